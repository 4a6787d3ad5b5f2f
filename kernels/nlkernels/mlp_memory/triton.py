"""The residual two-layer memory in one fused forward kernel: both weight matrices stay on chip.

One program per (batch, head) walks the chunks; the algebra is that of chunked.py, with S1 = W1^T (h, d) and S2 = W2^T
(d, h). The update of S1 needs A^T on the left of a product; A goes through a scratch tensor and is loaded back
transposed (a barrier orders the program's threads), since Triton 3.4-3.7.0 miscompiles a transposed register tile
there on Hopper.

The backward is not fused: it recomputes through the chunked form in PyTorch. What the compiler says (d = h = 64, C
    32, bf16):
28 bytes spilled a thread on sm_90, but 3 KB on sm_80, where it will be slow.
"""
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nlkernels.blocks import block, decay, dot, settings, solve_rows, tile
from nlkernels.compile_check import Case
from nlkernels.dispatch import compute_dtype
from nlkernels.interpret import launch
from nlkernels.mlp_memory.chunked import chunked


@triton.jit
def mlp_memory_forward(q, k, v, la, wr, w1, w2, scratch, y, w1T, w2T, L, N, CHUNK,
                       D: tl.constexpr, HID: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr, C: tl.constexpr,
                       ERASE: tl.constexpr, L2: tl.constexpr, READ: tl.constexpr, PREC: tl.constexpr,
                       ACC: tl.constexpr):
    bh = tl.program_id(0).to(tl.int64)
    i, od, oh = tl.arange(0, C), tl.arange(0, BD), tl.arange(0, BH)
    md, mh = od < D, oh < HID
    q += bh * L * D
    k += bh * L * D
    v += bh * L * D
    y += bh * L * D
    la += bh * L
    wr += bh * L
    scratch += bh * CHUNK * HID
    at1 = bh * D * HID + od[None, :] * HID + oh[:, None]                 # W1 (d, h), loaded as S1 (h, d)
    at2 = bh * D * HID + oh[None, :] * D + od[:, None]                   # W2 (h, d), loaded as S2 (d, h)
    m1, m2 = mh[:, None] & md[None, :], md[:, None] & mh[None, :]
    S1 = tl.load(w1 + at1, mask=m1, other=0.0).to(ACC)
    S2 = tl.load(w2 + at2, mask=m2, other=0.0).to(ACC)
    for n in range(0, N):
        r = n * CHUNK + i
        mr = (i < CHUNK) & (r < L)
        h = tl.load(wr + r, mask=mr, other=0.0).to(ACC)
        a = tl.load(la + r, mask=mr, other=0.0).to(ACC)
        g = tl.cumsum(a, 0)
        gp = g - a
        gC = tl.sum(a, 0)
        K = tile(k, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        z = dot(K, S2, PREC)
        sig = tl.sigmoid(z)
        A = z * sig
        AS = dot(A, S1, PREC)
        e1 = -tile(v, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        if L2:
            e1 += K + AS
        E1 = -h[:, None] * e1
        E2 = -h[:, None] * dot(e1, tl.trans(S1), PREC) * sig * (1.0 + z * (1.0 - sig))
        if ERASE:
            D_ = h[:, None] * decay(gp[:, None], g[None, :], i[:, None] > i[None, :])
            s = (h * tl.exp(gp))[:, None]
            E1 = solve_rows(D_ * dot(A, tl.trans(A), PREC), E1 - s * AS, C)
            E2 = solve_rows(D_ * dot(K, tl.trans(K), PREC), E2 - s * z, C)
        tl.debug_barrier()                                               # the chunk before has been read
        tl.store(scratch + i[:, None] * HID + oh[None, :], A, mask=(i < CHUNK)[:, None] & mh[None, :])
        Q = tile(q, r[:, None], od[None, :], D, mr[:, None], md[None, :], ACC)
        hidden = dot(Q, S2, PREC)
        if READ == "start":
            Y = Q + dot(hidden * tl.sigmoid(hidden), S1, PREC)
        else:
            if READ == "before":
                to = gp
                keep = i[:, None] > i[None, :]
            else:
                to = g
                keep = i[:, None] >= i[None, :]
            M = decay(to[:, None], g[None, :], keep)
            lam = tl.exp(to)[:, None]
            hidden = lam * hidden + dot(M * dot(Q, tl.trans(K), PREC), E2, PREC)
            hidden = hidden * tl.sigmoid(hidden)
            Y = Q + lam * dot(hidden, S1, PREC) + dot(M * dot(hidden, tl.trans(A), PREC), E1, PREC)
        tl.store(y + r[:, None] * D + od[None, :], Y.to(y.dtype.element_ty), mask=mr[:, None] & md[None, :])
        w = tl.exp(gC - g)[None, :]
        Kt = tile(k, r[None, :], od[:, None], D, mr[None, :], md[:, None], ACC)
        S2 = tl.exp(gC) * S2 + dot(Kt * w, E2, PREC)
        tl.debug_barrier()                                               # A is in the scratch tensor
        At = tile(scratch, i[None, :], oh[:, None], HID, (i < CHUNK)[None, :], mh[:, None], ACC)
        S1 = tl.exp(gC) * S1 + dot(At * w, E1, PREC)
    tl.store(w1T + at1, S1, mask=m1)
    tl.store(w2T + at2, S2, mask=m2)


def plan(d: int, hidden: int, chunk: int) -> dict[str, Any]:
    """Tile sizes and launch options; one stage, so that no load is moved before the barrier it waits for."""
    return {"D": d, "HID": hidden, "BD": block(d), "BH": block(hidden), "C": block(chunk),
            "num_warps": 8 if max(block(chunk), block(hidden)) > 32 else 4, "num_stages": 1}


@torch.library.custom_op("nlkernels::mlp_memory", mutates_args=(),
                         schema="(Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor eta, Tensor W1, Tensor W2, "
                                "int chunk, bool l2, str read, bool erase) -> (Tensor, Tensor, Tensor)")
def mlp_memory_op(q, k, v, alpha, eta, W1, W2, chunk, l2, read, erase):
    B, H, L, d = k.shape
    hidden = W2.shape[-2]
    q, k, v, eta, W1, W2 = (x.contiguous() for x in (q, k, v, eta, W1, W2))
    y, end1, end2 = torch.empty_like(q), torch.empty_like(W1), torch.empty_like(W2)
    scratch = torch.empty(B, H, chunk, hidden, dtype=W1.dtype, device=q.device)
    launch(mlp_memory_forward, (B * H,), q, k, v, alpha.log().contiguous(), eta, W1, W2, scratch, y, end1, end2, L,
           -(-L // chunk), chunk, ERASE=erase, L2=l2, READ=read, **plan(d, hidden, chunk), **settings(q))
    return y, end1, end2


@mlp_memory_op.register_fake
def _(q, k, v, alpha, eta, W1, W2, chunk, l2, read, erase):
    return q.new_empty(q.shape), W1.new_empty(W1.shape), W2.new_empty(W2.shape)


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.chunk, ctx.l2, ctx.read, ctx.erase = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, *grads: Tensor) -> tuple:
    tensors = ctx.saved_tensors
    work = compute_dtype(tensors[0].dtype)
    with torch.enable_grad():
        leaves = [x.detach().to(work).requires_grad_() for x in tensors]
        out = chunked(*leaves, chunk=ctx.chunk, objective="l2" if ctx.l2 else "dot", read=ctx.read, erase=ctx.erase)
        found = torch.autograd.grad(out, leaves, [g.to(work) for g in grads])
    return *(g.to(x.dtype) for g, x in zip(found, tensors, strict=True)), None, None, None, None


mlp_memory_op.register_autograd(_backward, setup_context=_save)


def fused(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, W1: Tensor, W2: Tensor, *, chunk: int,
          objective: str,
          read: str, erase: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `mlp_memory`; gates and weights in float32 (float64 for float64).  eq. 89-91"""
    return mlp_memory_op(q, k, v, alpha, eta, W1, W2, chunk, objective == "l2", read, erase)


def compile_cases(cc: int, dtype: str, d: int = 64, hidden: int = 64, chunk: int = 32) -> list[Case]:
    """The forward for d 64, h 64, chunk 32, read start."""
    meta = plan(d, hidden, chunk)
    warps, stages = meta.pop("num_warps"), meta.pop("num_stages")
    meta |= {"ERASE": True, "L2": True, "READ": "start", "PREC": "tf32" if dtype == "fp32" else dtype,
             "ACC": tl.float32}
    signature = {n: "i32" if n in ("L", "N", "CHUNK") else f"*{dtype}" if n in ("q", "k", "v", "y") else "*fp32"
                 for n in mlp_memory_forward.arg_names if n not in meta}
    return [Case(mlp_memory_forward, signature, meta, warps, stages, label=f"{dtype} d{d} h{hidden} C{chunk}")]
