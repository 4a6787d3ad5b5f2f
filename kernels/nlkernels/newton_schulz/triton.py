"""Newton-Schulz of small matrices, all steps in one program per matrix: X never leaves the registers.

Muon and M3 orthogonalise many small matrices. In eager PyTorch each step of each matrix is three launches of some
microseconds for a product that takes less than one; here a matrix is one program, read once and written once. Both
sides must fit (at most 128, padded to powers of two); zero padding is kept by the iteration, since every term is a
product with X. Rows are the shorter side: a tall matrix is loaded transposed, (X X^T) X = X (X^T X).

The backward (backward.py) runs the steps again; an optimizer does not need it, learning through an optimizer does.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nlkernels.blocks import block, dot_add, dot_t, settings
from nlkernels.dispatch import capability, compute_dtype
from nlkernels.interpret import launch
from nlkernels.newton_schulz.backward import newton_schulz_backward


@triton.jit
def newton_schulz_kernel(
    g,
    out,
    a,
    b,
    c,
    eps,
    M: tl.constexpr,
    N: tl.constexpr,
    TALL: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    STEPS: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
):
    """One (M, N) matrix a program, M <= N; a TALL one lies in memory as (N, M). Strides are constants, or the addresses
    alone would fill half of the registers."""
    at = tl.program_id(0).to(tl.int64) * M * N
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    ok = (m[:, None] < M) & (n[None, :] < N)
    if TALL:
        where = at + n[None, :] * M + m[:, None]
    else:
        where = at + m[:, None] * N + n[None, :]
    X = tl.load(g + where, mask=ok, other=0.0).to(ACC)
    X = X / (tl.sqrt(tl.sum(tl.sum(X * X, 1), 0)) + eps)
    for _ in range(STEPS):
        A = dot_t(X, X, PREC)
        X = dot_add(dot_add(c * A, A, b * A, PREC), X, a * X, PREC)
    tl.store(out + where, X.to(out.dtype.element_ty), mask=ok)


def plan(M: int, N: int) -> dict[str, int]:
    """Tile sides and warps."""
    BM, BN = block(M), block(N)
    return {"BM": BM, "BN": BN, "num_warps": 8 if BM * BN > 64 * 64 else 4}


def backward_plan(M: int, N: int, cc: tuple[int, int]) -> dict[str, int]:
    """As `plan`, but 4 warps on sm_90, where 8 would spill."""
    return {**plan(M, N), **({"num_warps": 4} if cc >= (9, 0) else {})}


@torch.library.custom_op(
    "nlkernels::newton_schulz",
    mutates_args=(),
    schema="(Tensor G, int steps, float a, float b, float c, float eps) -> Tensor",
)
def newton_schulz_op(G, steps, a, b, c, eps):
    G = G.contiguous()
    rows, cols = G.shape[-2:]
    out = torch.empty_like(G)
    M, N = min(rows, cols), max(rows, cols)
    launch(
        newton_schulz_kernel,
        (G.numel() // (rows * cols),),
        G,
        out,
        a,
        b,
        c,
        eps,
        M=M,
        N=N,
        TALL=rows > cols,
        STEPS=steps,
        **plan(M, N),
        **settings(G),
    )
    return out


@newton_schulz_op.register_fake
def _(G, steps, a, b, c, eps):
    return G.new_empty(G.shape)


def _save(ctx: Any, inputs: tuple, output: Any) -> None:
    G, *ctx.options = inputs
    ctx.save_for_backward(G)


@torch.library.custom_op(
    "nlkernels::newton_schulz_backward",
    mutates_args=(),
    schema="(Tensor dout, Tensor G, int steps, float a, float b, float c, float eps) -> Tensor",
)
def newton_schulz_backward_op(dout, G, steps, a, b, c, eps):
    G, dout = G.contiguous(), dout.contiguous()
    rows, cols = G.shape[-2:]
    M, N, many = min(rows, cols), max(rows, cols), G.numel() // (rows * cols)
    like = {"dtype": compute_dtype(G.dtype), "device": G.device}
    xs, ds, sq = (torch.empty(many, *shape, **like) for shape in ((steps + 1, M, N), (2, M, N), (4, M, M)))
    dG = torch.empty_like(G)
    on = capability(G.device)
    launch(
        newton_schulz_backward,
        (many,),
        G,
        dout,
        dG,
        xs,
        ds,
        sq,
        a,
        b,
        c,
        eps,
        M=M,
        N=N,
        TALL=rows > cols,
        STEPS=steps,
        R=block(N) if on == (0, 0) else 32,
        num_stages=1,
        **backward_plan(M, N, on),
        **settings(G),
    )
    return dG


@newton_schulz_backward_op.register_fake
def _(dout, G, steps, a, b, c, eps):
    return G.new_empty(G.shape)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    (G,) = ctx.saved_tensors
    return torch.ops.nlkernels.newton_schulz_backward(grad, G, *ctx.options), None, None, None, None, None


newton_schulz_op.register_autograd(_backward, setup_context=_save)


def fused(G: Tensor, steps: int, abc: tuple[float, float, float], eps: float) -> Tensor:
    """G: (..., m, n), both sides at most 128. Returns the same shape and dtype.  eq. 44"""
    return newton_schulz_op(G, steps, *abc, eps)
