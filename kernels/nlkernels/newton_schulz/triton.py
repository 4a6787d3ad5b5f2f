"""Newton-Schulz of small matrices, all steps in one program per matrix: X never leaves the registers.

Muon and M3 orthogonalise many small matrices. In eager PyTorch each step of each matrix is three launches of some
microseconds for a product that takes less than one; here a matrix is one program, read once and written once. Both
sides must fit (at most 128, padded to powers of two); zero padding is kept by the iteration, since every term is a
product with X. Rows are the shorter side: a tall matrix is loaded transposed, (X X^T) X = X (X^T X).

The backward (backward.py) runs the steps again; an optimizer does not need it, learning through an optimizer does.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from nlkernels.blocks import block, dot_add, dot_t, settings
from nlkernels.dispatch import capability, compute_dtype
from nlkernels.interpret import launch
from nlkernels.newton_schulz.backward import newton_schulz_backward
from nlkernels.operator import Fused, Given, empty


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


def plan(G: torch.Tensor) -> tuple[Given, dict[str, int], dict[str, int]]:
    """What both launches share; their launch options: 4 warps backward on sm_90, where 8 would spill."""
    rows, cols, on = *G.shape[-2:], capability(G.device)
    M, N = sorted((rows, cols))
    shared = {"M": M, "N": N, "TALL": rows > cols, "BM": block(M), "BN": block(N), **settings(G)}
    shared["R"] = block(N) if on == (0, 0) else 32
    warps = {"num_warps": 8 if block(M) * block(N) > 64 * 64 else 4}
    return shared, warps, {**warps, **({"num_warps": 4} if on >= (9, 0) else {}), "num_stages": 1}


def forward(given: Given, steps, **numbers) -> None:
    shared, options, _ = plan(given["g"])
    matrices = given["g"].shape[:-2].numel()
    launch(newton_schulz_kernel, (matrices,), {**given, **shared, **numbers, "STEPS": steps}, **options)


def backward(given: Given, steps, **numbers) -> Given:
    """The gradient of G."""
    g = given["g"]
    shared, _, options = plan(g)
    M, N, matrices, work = shared["M"], shared["N"], g.shape[:-2].numel(), compute_dtype(g.dtype)
    shapes = {"xs": (steps + 1, M, N), "ds": (2, M, N), "sq": (4, M, M)}
    scratch = {n: torch.empty(matrices, *shape, dtype=work, device=g.device) for n, shape in shapes.items()}
    given = {**given, **shared, **numbers, **scratch, "STEPS": steps, "dg": torch.empty_like(g)}
    launch(newton_schulz_backward, (matrices,), given, **options)
    return {"g": given["dg"]}


FUSED = Fused(
    "newton_schulz",
    "g",
    "int steps, float a, float b, float c, float eps",
    returned="out",
    outputs=lambda given, **options: {"out": empty(given["g"], *given["g"].shape)},
    forward=forward,
    backward=backward,
)


def fused(G: torch.Tensor, steps: int, abc: tuple[float, float, float], eps: float) -> torch.Tensor:
    """G: (..., m, n), both sides at most 128. Returns the same shape and dtype.  eq. 44"""
    return FUSED(G, steps, *abc, eps)[0]
