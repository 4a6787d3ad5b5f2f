"""Titans' linear memory in one fused forward kernel: memory and momentum stay in registers.

One program per (value block, batch x head) walks the chunks; the algebra is that of chunked.py. The backward is not
fused: it recomputes through the chunked form in PyTorch, chunk states included, and says so here rather than pretend
    otherwise.
"""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nlkernels.blocks import block, decay, dot, settings, tile
from nlkernels.compile_check import TORCH, Case
from nlkernels.dispatch import capability, compute_dtype
from nlkernels.interpret import launch
from nlkernels.titans_memory.chunked import chunked


@triton.jit
def last_row(G, i, C: tl.constexpr):
    return tl.sum(tl.where(i[:, None] == C - 1, G, 0.0), 0)


@triton.jit
def titans_memory_forward(q, k, v, la, lu, wr, m0, s0, y, mT, sT, L, N, CHUNK,
                          DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
                          READ: tl.constexpr, PREC: tl.constexpr, MASK_PREC: tl.constexpr, ACC: tl.constexpr):
    """la, lu: log alpha, log mu. MASK_PREC: how the two decay masks are multiplied (never in half precision)."""
    pv, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, ok, ov = tl.arange(0, C), tl.arange(0, BK), pv * BV + tl.arange(0, BV)
    mk, mv = ok < DK, ov < DV
    q += bh * L * DK
    k += bh * L * DK
    v += bh * L * DV
    y += bh * L * DV
    la += bh * L
    lu += bh * L
    wr += bh * L
    at = bh * DK * DV + ov[None, :] * DK + ok[:, None]
    sm = mk[:, None] & mv[None, :]
    M = tl.load(m0 + at, mask=sm, other=0.0).to(ACC)                    # transposed: (d_k, d_v)
    S = tl.load(s0 + at, mask=sm, other=0.0).to(ACC)
    for n in tl.range(0, N, disable_licm=True):
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        lb = tl.cumsum(tl.load(la + r, mask=mr, other=0.0).to(ACC), 0)
        lm = tl.cumsum(tl.load(lu + r, mask=mr, other=0.0).to(ACC), 0)
        h = tl.load(wr + r, mask=mr, other=0.0).to(ACC)
        upto = i[:, None] >= i[None, :]
        B = decay(lb[:, None], lb[None, :], upto & mr[None, :])         # a token that is not there adds no momentum
        W = decay(lm[:, None], lm[None, :], upto)
        G = dot(B, W, MASK_PREC)
        f = tl.sum(B * tl.exp(lm)[None, :], 1)
        K = tile(k, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        U = h[:, None] * (tile(v, r[:, None], ov[None, :], DV, mr[:, None], mv[None, :], ACC) - dot(K, M, PREC))
        Q = tile(q, r[:, None], ok[None, :], DK, mr[:, None], mk[None, :], ACC)
        Kt = tile(k, r[None, :], ok[:, None], DK, mr[None, :], mk[:, None], ACC)
        Y = dot(Q, M, PREC)
        if READ == "after":
            Y = tl.exp(lb)[:, None] * Y + f[:, None] * dot(Q, S, PREC) + dot(G * dot(Q, Kt, PREC), U, PREC)
        elif READ == "before":
            # M_{t-1} = (M_t - S_t) / alpha_t divides by alpha; instead the masks of the token before are made anew
            before = tl.cumsum(tl.load(la + r - 1, mask=mr & (i > 0), other=0.0).to(ACC), 0)
            past = i[:, None] > i[None, :]
            Bp = decay(before[:, None], lb[None, :], past & mr[None, :])
            fp = tl.sum(Bp * tl.exp(lm)[None, :], 1)
            Y = tl.exp(before)[:, None] * Y + fp[:, None] * dot(Q, S, PREC)
            Y += dot(dot(Bp, W, MASK_PREC) * dot(Q, Kt, PREC), U, PREC)
        tl.store(y + r[:, None] * DV + ov[None, :], Y.to(y.dtype.element_ty), mask=mr[:, None] & mv[None, :])
        end = i == C - 1
        M = tl.exp(tl.sum(tl.where(end, lb, 0.0), 0)) * M + tl.sum(tl.where(end, f, 0.0), 0) * S + dot(
            Kt * last_row(G, i, C)[None, :], U, PREC)
        S = tl.exp(tl.sum(tl.where(end, lm, 0.0), 0)) * S + dot(Kt * last_row(W, i, C)[None, :], U, PREC)
    tl.store(mT + at, M, mask=sm)
    tl.store(sT + at, S, mask=sm)


def plan(dtype: torch.dtype, cc: tuple[int, int], dk: int, dv: int, chunk: int) -> dict[str, Any]:
    """Tile sizes and warps."""
    C, BK = block(chunk), block(dk)
    wide = 64 if dtype != torch.float32 or cc == (0, 0) else 32
    return {"DK": dk, "DV": dv, "BK": BK, "BV": min(block(dv), wide), "C": C, "num_warps": 8 if max(C, BK) > 32 else 4}


def mask_precision(prec: str) -> str:
    """Decay masks are multiplied in float32: TF32 on a GPU, exactly in the interpreter."""
    return "ieee" if prec in ("ieee", "bf16_emu") else "tf32"


@torch.library.custom_op("nlkernels::titans_memory", mutates_args=(),
                         schema="(Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor mu, Tensor eta, Tensor M0, "
                                "Tensor S0, int chunk, str read) -> (Tensor, Tensor, Tensor)")
def titans_memory_op(q, k, v, alpha, mu, eta, M0, S0, chunk, read):
    B, H, L, DK = k.shape
    DV = v.shape[-1]
    q, k, v, eta, M0, S0 = (x.contiguous() for x in (q, k, v, eta, M0, S0))
    meta = {**plan(q.dtype, capability(q.device), DK, DV, chunk), "READ": read, **settings(q)}
    exact = mask_precision(meta["PREC"]) if q.device.type == "cuda" else "ieee"
    y, M, S = torch.empty_like(v), torch.empty_like(M0), torch.empty_like(S0)
    launch(titans_memory_forward, (-(-DV // meta["BV"]), B * H), q, k, v, alpha.log().contiguous(),
           mu.log().contiguous(), eta,
           M0, S0, y, M, S, L, -(-L // chunk), chunk, MASK_PREC=exact, **meta)
    return y, M, S


@titans_memory_op.register_fake
def _(q, k, v, alpha, mu, eta, M0, S0, chunk, read):
    return v.new_empty(v.shape), M0.new_empty(M0.shape), S0.new_empty(S0.shape)


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.chunk, ctx.read = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, *grads: Tensor) -> tuple:
    tensors = ctx.saved_tensors
    work = compute_dtype(tensors[0].dtype)
    with torch.enable_grad():
        leaves = [x.detach().to(work).requires_grad_() for x in tensors]
        out = chunked(*leaves, chunk=ctx.chunk, read=ctx.read)
        found = torch.autograd.grad(out, leaves, [g.to(work) for g in grads], allow_unused=True)
    return *(None if g is None else g.to(x.dtype) for g, x in zip(found, tensors, strict=True)), None, None


titans_memory_op.register_autograd(_backward, setup_context=_save)


def fused(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, mu: Tensor, eta: Tensor, M0: Tensor, S0: Tensor, *,
          chunk: int,
          read: str) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `titans_memory`; gates and states in float32 (float64 for float64).  eq. 90"""
    return titans_memory_op(q, k, v, alpha, mu, eta, M0, S0, chunk, read)


def compile_cases(cc: int, dtype: str, d: int = 64, chunk: int = 32) -> list[Case]:
    """The forward as it is launched for d 64 and chunk 32, read after."""
    meta = plan(TORCH[dtype], (cc // 10, cc % 10), d, d, chunk)
    warps = meta.pop("num_warps")
    prec = "tf32" if dtype == "fp32" else dtype
    meta |= {"READ": "after", "PREC": prec, "MASK_PREC": "tf32", "ACC": tl.float32}
    signature = {n: "i32" if n in ("L", "N", "CHUNK") else f"*{dtype}" if n in ("q", "k", "v", "y") else "*fp32"
                 for n in titans_memory_forward.arg_names if n not in meta}
    return [Case(titans_memory_forward, signature, meta, warps, label=f"{dtype} d{d} C{chunk}")]
