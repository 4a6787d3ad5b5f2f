"""How a memory moves (the learning rule), and what it keeps (the retention): parts two and three.

`GD` on an objective gives the rules that have a name of their own:

    dot   M + eta v k^T                          Hebb (eq. 15, 18, 64)
    l2    M (I - eta k k^T) + eta v k^T          delta (eq. 65; printed with the erasing factor on the left)
    oja   M + eta v (k - M^T v)^T                Oja (eq. 66-67; printed as a row minus a column)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nlbook.errors import need, need_choice
from nlbook.memory.objectives import Objective, outer, recall

Rate = float | Tensor


def spread(rate: Rate, dims: int) -> Rate:
    """A rate per sequence (...) made ready to multiply a tensor with `dims` more dimensions; a number stays one."""
    return rate[(...,) + (None,) * dims] if isinstance(rate, Tensor) and rate.ndim else rate


def dgd_rate(k: Tensor, lr: Rate, form: str = "exact") -> Tensor:
    """eta' = lr / (1 + lr |k|^2), one a sequence (...) (eq. 57, 121).

    form="printed": lr / (1 + lr), as the paper prints it, is right for |k| = 1 only.
    """
    need_choice("form", form, ("exact", "printed"))
    square = k.square().sum(-1) if form == "exact" else torch.ones_like(k[..., 0])
    return lr / (1 + lr * square)


@dataclass(frozen=True)
class GD:
    """One gradient step on the objective at the current pair (eq. 1, 19-20, 54). Hebb on dot, delta on l2, Oja on oja.

    capped: the rate of a pair is at most the one that reaches its minimum. Then a write never expands what it acts on:
    |k|^2 lr <= 1 for l2, |v|^2 lr <= 1 for oja, and for lp no entry of the error changes its sign.
    """

    capped: bool = False
    name: ClassVar[str] = "gd"
    formula: ClassVar[str] = "M − η∇L(M; k, v)"
    discounts_evidence: ClassVar[bool] = False  # True: `keep` discounts old pairs inside the rule, not the state (RLS)
    needs_answer: ClassVar[bool] = False  # True: works for objectives that see M through its answer alone

    def start(self, M: Tensor) -> dict[str, Tensor]:
        """What the rule remembers beside M (nothing here)."""
        return {}

    def step(
        self, objective: Objective, M: Tensor, k: Tensor, v: Tensor, lr: Rate, keep: Rate, extra: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The change of M (..., d_v, d_k) and the rule's new own state."""
        if not self.capped:
            return -spread(lr, 2) * objective.grad(M, k, v), extra
        y = recall(M, k) if objective.through_answer else v  # which no other objective looks at
        rate = torch.minimum(torch.as_tensor(spread(lr, 1), dtype=M.dtype, device=M.device), objective.most(y, k, v))
        if objective.through_answer:
            return -outer(rate * objective.surprise_at(y, v), k), extra
        return -rate.unsqueeze(-1) * objective.grad(M, k, v), extra


@dataclass(frozen=True)
class Implicit(GD):
    """The proximal step: argmin_M' L(M'; k, v) + 1/(2 lr) |M' - M|^2, solved exactly (eq. 98-99; for l2
    it is Longhorn, implicit LMS).

    The gradient is taken where the step lands, so it never overshoots. On dot it is GD.
    """

    name: ClassVar[str] = "implicit"
    formula: ClassVar[str] = "argmin L(M'; k, v) + ½η⁻¹|M' − M|²"
    needs_answer: ClassVar[bool] = True

    def step(
        self, objective: Objective, M: Tensor, k: Tensor, v: Tensor, lr: Rate, keep: Rate, extra: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        c = (lr * k.square().sum(-1)).unsqueeze(-1)
        return -spread(lr, 2) * outer(objective.implicit_surprise(recall(M, k), v, c), k), extra


@dataclass(frozen=True)
class DGD(GD):
    """Delta Gradient Descent: regress the answer on u = -surprise, u held fixed, solved exactly (eq. 56-57, 113).

    On dot u is the value: DGD is then the implicit delta rule and recalls v. On l2 the surprise already holds
    the error, the old content is taken off twice and the fixed point is v/2.
    """

    form: str = "exact"
    name: ClassVar[str] = "dgd"
    formula: ClassVar[str] = "M(I − η'kkᵀ) − η'∇L,  η' = η/(1 + η|k|²)"
    needs_answer: ClassVar[bool] = True

    def step(
        self, objective: Objective, M: Tensor, k: Tensor, v: Tensor, lr: Rate, keep: Rate, extra: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        y = recall(M, k)
        return -spread(dgd_rate(k, lr, self.form), 2) * outer(y + objective.surprise_at(y, v), k), extra


@dataclass(frozen=True)
class Omega(GD):
    """One gradient step on the sum over the last `window` pairs (eq. 68). window=1 is GD.

    Printed, eq. 68 subtracts the losses themselves, at the state still to be computed; a gradient at M_{t-1} is meant.
    The window is state: window * (d_k + d_v + 1) floats.

    weights: None (all 1), or one factor per age, newest first (gamma_{t,i} / lr in the paper's letters).
    """

    window: int = 8
    weights: tuple[float, ...] | None = None
    name: ClassVar[str] = "omega"
    formula: ClassVar[str] = "M − η Σ_{last c} ∇L(M; kᵢ, vᵢ)"

    def __post_init__(self) -> None:
        need(isinstance(self.window, int) and self.window >= 1, "window", self.window, "an int >= 1 (tokens)")
        right = self.weights is None or len(self.weights) == self.window
        need(right, "weights", self.weights, f"None or {self.window} numbers")

    def start(self, M: Tensor) -> dict[str, Tensor]:
        *batch, d_v, d_k = M.shape  # a zero weight says: no pair here yet
        return {
            "keys": M.new_zeros(*batch, self.window, d_k),
            "values": M.new_zeros(*batch, self.window, d_v),
            "seen": M.new_zeros(*batch, self.window),
        }

    def step(
        self, objective: Objective, M: Tensor, k: Tensor, v: Tensor, lr: Rate, keep: Rate, extra: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        keys = torch.cat([k.unsqueeze(-2), extra["keys"][..., :-1, :]], -2)  # newest first
        values = torch.cat([v.unsqueeze(-2), extra["values"][..., :-1, :]], -2)
        seen = torch.cat([torch.ones_like(k[..., :1]), extra["seen"][..., :-1]], -1)
        weight = seen if self.weights is None else seen * M.new_tensor(self.weights)
        grads = objective.grad(M.unsqueeze(-3), keys, values)  # (..., window, d_v, d_k)
        change = -spread(lr, 2) * (weight[..., None, None] * grads).sum(-3)
        return change, {"keys": keys, "values": values, "seen": seen}


@dataclass(frozen=True)
class RLS(GD):
    """Recursive least squares: after every pair M is the exact minimiser of the squared error over all pairs so far,
    plus ridge/2 |M - M_0|^2 (Sherman-Morrison, eq. 117; eq. 6 and 68 over the whole past).

    lr is here the weight of the new pair, `keep` the discount of the old ones; M itself never decays. The inverse
    covariance is state: d_k^2 more floats.
    """

    ridge: float = 1e-2
    name: ClassVar[str] = "rls"
    formula: ClassVar[str] = "argmin Σ½|Mkᵢ − vᵢ|² + ½ridge·|M − M₀|²"
    discounts_evidence: ClassVar[bool] = True

    def __post_init__(self) -> None:
        need(self.ridge > 0, "ridge", self.ridge, "a positive number")

    def start(self, M: Tensor) -> dict[str, Tensor]:
        *batch, _, d_k = M.shape
        eye = torch.eye(d_k, dtype=M.dtype, device=M.device) / self.ridge
        return {"P": eye.expand(*batch, d_k, d_k)}  # the inverse of sum k k^T + ridge I

    def step(
        self, objective: Objective, M: Tensor, k: Tensor, v: Tensor, lr: Rate, keep: Rate, extra: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        need(objective.name == "l2", "objective", objective.name, "l2 (RLS solves least squares)")
        P = extra["P"]
        if isinstance(keep, Tensor) or keep != 1:
            P = self._discounted(P, k, keep)
        Pk = recall(P, k)
        gain = spread(lr, 1) * Pk / (1 + spread(lr, 1) * (k * Pk).sum(-1, keepdim=True))
        P = P - outer(gain, Pk)
        return outer(v - recall(M, k), gain), {"P": (P + P.mT) / 2}  # rounding must not break its symmetry

    def _discounted(self, P: Tensor, k: Tensor, keep: Rate) -> Tensor:
        """P / keep: all old pairs weigh less. But a direction without new pairs grows so for ever, until it overflows.

        Where the mean of P's diagonal is past 1000 / ridge, only what lies along the new key is discounted.
        """
        Pk = recall(P, k)
        along = outer(Pk, Pk) / (k * Pk).sum(-1).clamp_min(torch.finfo(P.dtype).tiny)[..., None, None]
        wound = P.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] > 1000 / self.ridge
        keep = spread(keep, 2)
        return torch.where(wound, P + (1 / keep - 1) * along, P / keep)


@dataclass(frozen=True)
class Retention:
    """What a write leaves of the old state: keep in (0, 1], the pull `towards` zero or the initial state.

    gradient_at: "old" takes the gradient at M_{t-1}, as eq. 64-68 print it; "kept" takes it after the decay,
    as Gated DeltaNet does. With keep = 1 the two are the same.
    """

    keep: float = 1.0
    towards: str = "zero"
    gradient_at: str = "old"

    def __post_init__(self) -> None:
        need(0 < self.keep <= 1, "keep", self.keep, "a number in (0, 1]")
        need(self.towards in ("zero", "initial"), "towards", repr(self.towards), "'zero' or 'initial'")
        need(self.gradient_at in ("old", "kept"), "gradient_at", repr(self.gradient_at), "'old' or 'kept'")

    def apply(self, M: Tensor, start: Tensor, keep: Rate) -> Tensor:
        """keep M, or keep M + (1 - keep) start."""
        if not isinstance(keep, Tensor) and keep == 1:
            return M
        keep = spread(keep, 2)
        return keep * M if self.towards == "zero" else start + keep * (M - start)

    @property
    def formula(self) -> str:
        if self.towards == "initial":
            return "M₀ + α(M − M₀)"
        if self.keep == 1:
            return "M"
        return "αM" if self.gradient_at == "old" else "αM, ∇L taken there"
