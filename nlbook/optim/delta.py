"""Delta momentum (eq. 48-49): before the momentum stores a gradient, it forgets what it held along that gradient.

Plain momentum minimises a dot product, which never asks what is stored already. With a squared loss |m G^T + P|^2 / 2
the write becomes a delta rule, m <- m (keep I - eta G^T G) - eta P G. As printed, eq. 49 has neither the eta in the
brake nor a stable range: `variant` names what can be made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlbook.errors import need, need_choice, need_number
from nlbook.optim.base import GradientMemory, Group, as_matrix, decay_, options
from nlbook.optim.momentum import apply_map, back

VARIANTS = ("bounded", "clipped", "implicit", "corrected", "printed")


def delta_momentum_loss(m: Tensor, grad: Tensor, value: Tensor) -> Tensor:
    """|m G^T + P|^2 / 2, the inner loss whose gradient step is the corrected eq. 49.

    Errata: the text has |m G^T - P|^2, which gives + eta P G: the weights then walk uphill.

    Args:
        m, grad: (p, q). value: P, (p, p).
    """
    return (m @ grad.mT + value).square().sum() / 2


def delta_write(
    m: Tensor,
    grad: Tensor,
    lr: float,
    keep: float = 0.9,
    erase: float | None = None,
    variant: str = "bounded",
    value: Tensor | None = None,
) -> Tensor:
    """One write of delta momentum (eq. 48-49) as a new tensor: the definition that `DeltaMomentum` is tested against.

    Args:
        m, grad: (p, q); a vector counts as one row (1, q), so that G^T G is its (q, q) outer product.
        lr: write rate eta, >= 0. keep: retention, in [0, 1].
        erase: strength c of the brake, >= 0; None means `lr`, as one gradient step on the squared loss has.
        variant: with n = |G|_F^2 and V = P G,

            "corrected"  m (keep I - c G^T G) - lr V       the exact gradient step; stable for c lambda_max < 1 + keep
            "clipped"    max(0, keep - c n) m - lr V       one scalar brake, which can stop m but not turn it round
            "bounded"    keep exp(-c n) m - lr V           the same brake, smooth (default: the most robust in sweeps)
            "implicit"   (keep m - lr V) / (1 + c n)       the brake holds back the new gradient too
            "printed"    m (keep I - G^T G) - lr V         eq. 49 as printed: diverges as soon as |G|^2 > 1 + keep

        value: P (p, p) of eq. 49; None is the identity.
    """
    need_choice("variant", variant, VARIANTS)
    c = lr if erase is None else erase
    M, G = as_matrix(m), as_matrix(grad)
    V = (G if value is None else value @ G) * lr
    if variant in ("corrected", "printed"):
        new = keep * M - (1.0 if variant == "printed" else c) * (M @ G.mT) @ G - V  # (M G^T) G: never forms q x q
    else:
        n = G.square().sum()
        if variant == "clipped":
            new = (keep - c * n).clamp(min=0) * M - V
        elif variant == "bounded":
            new = keep * torch.exp(-c * n) * M - V
        else:
            new = (keep * M - V) / (1 + c * n)
    return new.reshape(m.shape)


class DeltaMomentum(GradientMemory):
    """Gradient descent with delta momentum (eq. 48-49): W <- W + m, with m from `delta_write`.

    Where gradients are large the brake empties the momentum, where they are small it is plain heavy ball: on a
    curved valley (eq. 53, Fig. 4) it stops the overshoot. What sweeps of 27 valleys say (chapter A):
    printed, it arrives in none; corrected to the letter in 10, and beats a tuned heavy ball in 2; bounded or clipped it
    needs fewer steps in 22, a third fewer in the median, with 13 rates for each rule. Against a heavy ball tuned to
    the last digit (825 settings each, 36 valleys) the lead shrinks to 15 %, with a third of the valleys lost.

    Args:
        lr: write rate, >= 0 (default 1e-2). It multiplies the new gradient, as in eq. 33, not the velocity.
        keep: retention in [0, 1) (default 0.9).
        erase: strength of the brake, >= 0; None (default) means `lr`. It has units of 1/|gradient|^2: the loss's scale
            matters, and n = |G|_F^2 is a whole parameter's, so larger tensors need a smaller one.
        variant: "bounded" (default) | "clipped" | "implicit" | "corrected" | "printed", see `delta_write`.
        weight_decay: decoupled (default 0).
        value: the map G -> P G of eq. 49 on matrices (p, q), not part of `state_dict`; None is the identity.
    """

    _extras = ("value",)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        keep: float = 0.9,
        erase: float | None = None,
        variant: str = "bounded",
        weight_decay: float = 0.0,
        *,
        value: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        need(value is None or callable(value), "value", type(value).__name__, "a callable or None")
        self.value = value
        super().__init__(params, options(locals(), "value"))

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        need_number("keep", group["keep"], 0, 1, open_high=True)
        if group["erase"] is not None:
            need_number("erase", group["erase"])
        need_choice("variant", group["variant"], VARIANTS)
        need_number("weight_decay", group["weight_decay"])

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        (m,) = self._states(params, "momentum")
        lr, keep, variant = group["lr"], group["keep"], group["variant"]
        c = lr if group["erase"] is None else group["erase"]
        new = grads if self.value is None else [back(apply_map("value", self.value, g), g, "value") for g in grads]
        if variant in ("corrected", "printed"):
            strength = 1.0 if variant == "printed" else c
            held = [
                ((as_matrix(x) @ as_matrix(g).mT) @ as_matrix(g)).reshape(x.shape)
                for x, g in zip(m, grads, strict=True)
            ]
            torch._foreach_mul_(m, keep)
            torch._foreach_sub_(m, held, alpha=strength)
            torch._foreach_sub_(m, new, alpha=lr)
        else:
            n = torch._foreach_norm(grads)
            torch._foreach_mul_(n, n)
            if variant == "implicit":
                torch._foreach_mul_(m, keep)
                torch._foreach_sub_(m, new, alpha=lr)
                torch._foreach_div_(m, [1 + c * x for x in n])
            else:
                brake = [(keep - c * x).clamp(min=0) if variant == "clipped" else keep * torch.exp(-c * x) for x in n]
                torch._foreach_mul_(m, brake)
                torch._foreach_sub_(m, new, alpha=lr)
        decay_(params, lr * group["weight_decay"])
        torch._foreach_add_(params, m)
