"""M3, multi-scale momentum Muon (eq. 75, Algorithm 1): a fast and a slow memory of gradients, orthogonalised.

What is printed does not run as meant: no moment ever decays (all are plain sums), so beta_1 and beta_3 cancel in the
scale-free Newton-Schulz and beta_2 only rescales the step; ranges overlap by one gradient; M2_t stands on both sides;
and g_t is taken at weights that do not exist yet. `m3_reference` can run both readings; `M3` is the corrected one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlbook.errors import need_choice, need_int, need_number
from nlbook.levels.order import Component
from nlbook.optim.base import Group, decay_, options
from nlbook.optim.muon import KEPT, MatrixOptimizer, check_betas, orthogonalise, shape_scale


def m3_reference(
    W: Tensor,
    gradient: Callable[[Tensor], Tensor],
    steps: int,
    *,
    lr: float,
    betas: tuple[float, float, float] = (0.9, 0.95, 0.9),
    alpha: float = 0.5,
    period: int = 10,
    second: str = "update",
    eps: float = 1e-8,
    orthogonal: Callable[[Tensor], Tensor] | None = None,
    printed: bool = False,
) -> Tensor:
    """The definition, in the block layout of Algorithm 1: `steps` steps on one matrix, no tricks (float64-able).

    Args:
        W: (p, q) start. gradient: W -> dL/dW.
        betas: retentions of M1, V and M2. The paper's write shares are 1 - these, except with `printed`, where they are
            the paper's beta_1, beta_2, beta_3 themselves: M += beta * g.
        second: "update" | "grad" | "none", see `M3`; `printed` ignores it and uses the gradient.
        orthogonal: Newton-Schulz; default the quintic, 5 steps.
        printed: sums without decay and without bias correction. (Its overlapping ranges have no runnable reading; the
            blocks partition the steps here too.)
    """
    NS = orthogonal or (lambda m: orthogonalise([m])[0])
    b1, b2, b3 = betas
    M1 = torch.zeros_like(W)
    M2, V, O2 = M1, M1, M1
    block: list[Tensor] = []
    for t in range(1, steps + 1):
        if len(block) == period:  # line 3 of Algorithm 1: the slow level, from the block that has just ended
            total = torch.stack(block).sum(0)
            M2 = M2 + b3 * total if printed else b3 * M2 + (1 - b3) * total
            O2, block = NS(M2), []
        g = gradient(W)
        block.append(g)
        M1 = M1 + b1 * g if printed else b1 * M1 + (1 - b1) * g
        U = NS(M1) + alpha * O2
        if printed:
            V = V + b2 * g.square()
            W = W - lr * U / (V.sqrt() + eps)
        elif second == "none":
            W = W - lr * shape_scale(W.shape, "rms") * U
        else:
            V = b2 * V + (1 - b2) * (g if second == "grad" else U).square()
            W = W - lr * U / ((V / (1 - b2**t)).sqrt() + eps)
    return W


class M3(MatrixOptimizer):
    """M3 (eq. 75, Algorithm 1, corrected) for matrices, AdamW for the rest.

        M1 <- b1 M1 + (1 - b1) G                    every step
        U   = NS(M1) + alpha O2
        V  <- b2 V + (1 - b2) q^2,                  q = U or G (`second`), bias-corrected
        W  <- W - lr U / (sqrt(V) + eps)
        M2 <- b3 M2 + (1 - b3) sum of G             every `period` steps, over the period
        O2  = NS(M2)                                read from the next step on

    M1 has forgotten a gradient (99 %) after 44 steps at b1 = 0.9; M2 after 44 periods.

    Args:
        params: parameters or groups; `matrix_groups(model, adamw=("head",))` makes the usual split.
        lr: >= 0 (default 3e-3). With second="update" and "none" of AdamW's size; "grad" needs another by orders of
            magnitude.
        betas: retentions b1, b2, b3 in [0, 1) (default (0.9, 0.95, 0.9)); the paper's factors are 1 - these.
        alpha: weight of the slow memory, >= 0 (default 0.5; 0 is Muon with an Adam denominator, and does no slow work).
        period: steps between two updates of the slow memory, >= 1 (default 10).
        second: what V averages. "update" (default): the squared update, as AdaMuon does: steps do not depend on the
            gradient's scale. "grad": the squared gradient, as printed: NS removed the gradient's scale already, so
            dividing once more makes steps grow like 1/|gradient| as training converges, and element-wise division
            undoes the orthogonality. "none": no V, and Muon's "rms" scale instead.
        eps: >= 0 (default 1e-8), outside the root (the print does not say).
        ns_steps, polynomial: of Newton-Schulz (default 5, "quintic").
        weight_decay: decoupled (default 0).
        rule, adamw_lr_ratio, adamw_betas, adamw_eps: see `Muon`.

    State per matrix: M1, M2, O2, the buffer of the period and V, five times the weights (Muon has one, AdamW two).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 3e-3,
        betas: tuple[float, float, float] = (0.9, 0.95, 0.9),
        alpha: float = 0.5,
        period: int = 10,
        second: str = "update",
        eps: float = 1e-8,
        ns_steps: int = 5,
        polynomial: str = "quintic",
        weight_decay: float = 0.0,
        rule: str = "auto",
        adamw_lr_ratio: float = 1.0,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        super().__init__(params, options(locals()))

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        check_betas("betas", group["betas"], 3)
        need_number("alpha", group["alpha"])
        need_int("period", group["period"])
        need_choice("second", group["second"], ("update", "grad", "none"))
        need_number("eps", group["eps"])

    def _matrix_components(self, group: Group) -> list[Component]:
        names = ["fast"] + ["second"] * (group["second"] != "none")
        after = frozenset({"fast"} if group["second"] == "update" else ())  # V averages what M1 has just made
        found = [Component("weights", 1, needs=frozenset(names)), Component("fast", 1, kind=KEPT)]
        if "second" in names:
            found.append(Component("second", 1, needs=after, kind=KEPT))
        if group["alpha"] > 0:
            found.append(Component("slow", period=group["period"], kind=KEPT))
        return found

    def _matrix_update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        b1, b2, b3 = group["betas"]
        lr, slow, second = group["lr"], group["alpha"] > 0, group["second"]
        steps = self._ticks(params)
        (m1,) = self._states(params, "fast")
        torch._foreach_lerp_(m1, grads, 1 - b1)
        update = orthogonalise(m1, group["ns_steps"], group["polynomial"])
        if slow:
            m2, o2, block = self._states(params, "slow", "slow_read", "block")
            torch._foreach_add_(update, o2, alpha=group["alpha"])
            torch._foreach_add_(block, grads)
        decay_(params, lr * group["weight_decay"])
        if second == "none":
            for p, u in zip(params, update, strict=True):
                p.add_(u, alpha=-lr * shape_scale(p.shape, "rms"))
        else:
            (v,) = self._states(params, "second")
            q = update if second == "update" else grads
            torch._foreach_mul_(v, b2)
            torch._foreach_addcmul_(v, q, q, 1 - b2)
            down = torch._foreach_sqrt(v)
            torch._foreach_div_(down, [math.sqrt(1 - b2**t) for t in steps])
            torch._foreach_add_(down, group["eps"])
            torch._foreach_addcdiv_(params, update, down, -lr)
        due = [i for i, t in enumerate(steps) if t % group["period"] == 0] if slow else []
        if due:
            torch._foreach_lerp_([m2[i] for i in due], [block[i] for i in due], 1 - b3)
            torch._foreach_zero_([block[i] for i in due])
            read = orthogonalise([m2[i] for i in due], group["ns_steps"], group["polynomial"])
            for i, o in zip(due, read):
                o2[i].copy_(o)
