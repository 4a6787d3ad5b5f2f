"""Newton-Schulz orthogonalisation for Muon and M3: many matrices in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from nlkernels import dispatch
from nlkernels.errors import need, need_choice, need_finite, need_float, need_int, need_number
from nlkernels.newton_schulz.chunked import chunked
from nlkernels.newton_schulz.reference import reference

__all__ = ["COEFFICIENTS", "chunked", "newton_schulz", "reference"]

COEFFICIENTS = {"quintic": (3.4445, -4.7750, 2.0315), "cubic": (1.5, -0.5, 0.0)}


@overload
def newton_schulz(
    G: Tensor, steps: int = ..., coefficients: str = ..., *, eps: float = ..., impl: str = ..., explain: bool = ...
) -> Tensor: ...
@overload
def newton_schulz(
    G: Sequence[Tensor],
    steps: int = ...,
    coefficients: str = ...,
    *,
    eps: float = ...,
    impl: str = ...,
    explain: bool = ...,
) -> list[Tensor]: ...


def newton_schulz(
    G: Tensor | Sequence[Tensor],
    steps: int = 5,
    coefficients: str = "quintic",
    *,
    eps: float = 1e-7,
    impl: str = "auto",
    explain: bool = False,
) -> Tensor | list[Tensor]:
    """Approximate U V^T of G = U S V^T by a polynomial in G: `steps` times X <- a X + (b A + c A^2) X, A = X X^T.

    eq. 44 is its "cubic" form.

    Args:
        G: (m, n) or (..., m, n), every matrix on its own; or a list of such tensors, which is grouped by shape, dtype
            and device so that equal shapes share their launches.
        steps: 0 returns G / |G|.
        coefficients: "quintic" (Muon: fast, singular values end in about [0.7, 1.2]) or "cubic" (eq. 44: they converge
            to 1).
        eps: added to the norm; a zero matrix stays zero.
        impl: "auto" | "reference" | "chunked" | "triton". The fused kernel keeps a matrix in registers, so both sides
            are at most 128.
        explain: print which implementation was chosen, and why.

    Returns:
        The same shape and dtype as G (a list for a list, in its order). Differentiable; the fused kernel's backward
        is fused too, and runs the steps again.

    Raises:
        KernelError: fewer than two dimensions, an integer dtype, an unknown name.

    >>> X = newton_schulz(torch.diag(torch.tensor([1.0, 0.5, 0.25])), steps=20, coefficients="cubic")
    >>> torch.allclose(X, torch.eye(3), atol=1e-5)
    True
    """
    op = "newton_schulz"
    if not isinstance(G, Tensor):
        need(isinstance(G, list | tuple), f"G of {op}", type(G).__name__, "a tensor (..., m, n), or a list of them")
        return _grouped(G, steps, coefficients, eps, impl, explain)
    need_float("G of newton_schulz", G, "(..., m, n)")
    vector = "a tensor (..., m, n); vectors have no orthogonal factor: give biases and norms to another optimizer"
    need(G.ndim >= 2, "G of newton_schulz", f"shape {tuple(G.shape)}", vector)
    need_finite("G of newton_schulz", G)
    need_int("steps of newton_schulz", steps, 0)
    need_choice("coefficients of newton_schulz", coefficients, COEFFICIENTS)
    need_number("eps of newton_schulz", eps, 0)
    abc = COEFFICIENTS[coefficients]
    choice = dispatch.choose(op, impl, G, {"a side": max(G.shape[-2:])}, {"a side": 128})
    if impl == "auto" and choice.impl == "triton" and not fits_registers(G):
        choice = dispatch.Choice("chunked", "float32 with both sides over 64 would spill registers on this GPU")
    if explain:
        dispatch.explain_choice(op, choice)
    if G.numel() == 0:
        return G.clone()
    with dispatch.no_autocast(G):
        if choice.impl == "triton":
            from nlkernels.newton_schulz.triton import fused

            return fused(G, steps, abc, eps)
        return (chunked if choice.impl == "chunked" else reference)(G, steps, abc, eps)


def fits_registers(G: Tensor) -> bool:
    """Whether the fused kernel keeps G in registers: on sm_90 not float32 with both sides over 64 (compile_check)."""
    return G.dtype != torch.float32 or min(G.shape[-2:]) <= 64 or dispatch.capability(G.device) < (9, 0)


def _grouped(
    matrices: Sequence[Tensor], steps: int, coefficients: str, eps: float, impl: str, explain: bool
) -> list[Tensor]:
    groups: dict[tuple, list[int]] = {}
    for i, X in enumerate(matrices):
        need_float(f"G[{i}] of newton_schulz", X, "(..., m, n)")
        groups.setdefault((X.shape, X.dtype, X.device), []).append(i)
    out: list[Tensor] = [*matrices]
    for where in groups.values():
        batch = newton_schulz(
            torch.stack([matrices[i] for i in where]), steps, coefficients, eps=eps, impl=impl, explain=explain
        )
        for i, X in zip(where, batch.unbind(0), strict=True):
            out[i] = X
    return out
