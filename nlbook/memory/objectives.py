"""What a memory minimises: one number for a state, a key and a value (the first of the three parts of Def. 1).

Each objective carries its value, its gradient in closed form and the names that the field uses for it. Shapes, here
and in the whole package: state M (..., d_v, d_k), key k (..., d_k), value v (..., d_v), answer y = M k (..., d_v).

>>> M, k, v = torch.zeros(2, 3), torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 2.0])
>>> L2().value(M, k, v), L2().surprise(M, k, v)
(tensor(2.), tensor([ 0., -2.]))
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from nlbook.errors import NLBookError, need


def recall(M: Tensor, k: Tensor) -> Tensor:
    """The answer y = M k (eq. 16): M (..., d_v, d_k), k (..., d_k) -> (..., d_v)."""
    return (M @ k.unsqueeze(-1)).squeeze(-1)


def outer(v: Tensor, k: Tensor) -> Tensor:
    """The rank-one matrix v k^T: v (..., d_v), k (..., d_k) -> (..., d_v, d_k)."""
    return v.unsqueeze(-1) * k.unsqueeze(-2)


class Objective:
    """The internal loss of a memory (eq. 6). `value`, `grad` and `surprise` are the whole interface.

    surprise: the gradient at the answer y = M k. When the objective sees M through y alone, grad = surprise k^T.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    latex: ClassVar[str]
    field: ClassVar[str]
    through_answer: ClassVar[bool] = True  # False: the objective looks at M in another way too (Oja)

    def value(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The loss, one number a memory: (...)."""
        raise NotImplementedError

    def surprise_at(self, y: Tensor, v: Tensor) -> Tensor:
        """Gradient at the answer y: (..., d_v). Any memory, linear or deep, is trained through this."""
        raise NotImplementedError

    def surprise(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Gradient at the answer of the linear memory M: (..., d_v)."""
        return self.surprise_at(recall(M, k), v)

    def grad(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Gradient at the state: (..., d_v, d_k). A rank-one matrix, surprise times key (eq. 8)."""
        return outer(self.surprise(M, k, v), k)

    def most(self, y: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The largest rate whose gradient step does not pass the minimum of this pair: (..., 1), or one a d_v."""
        raise NotImplementedError(f"{self.name}: no bound of the rate is known")

    def implicit_surprise(self, y: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """The surprise s at the answer y' = y - c s that the memory gives *after* the step; c = lr |k|^2 (..., 1)."""
        raise NotImplementedError(f"{self.name}: no implicit step is known")


@dataclass(frozen=True)
class Dot(Objective):
    """-<M k, v>: align the answer with the value, never mind its size. One GD step is Hebb's rule (eq. 17-18, 64).

    Printed in eq. 64 with a factor 2 that its own gradient lacks; without it eq. 17, 18 and 64 agree.
    """

    name: ClassVar[str] = "dot"
    formula: ClassVar[str] = "-⟨Mk, v⟩"
    latex: ClassVar[str] = r"-\langle Mk, v\rangle"
    field: ClassVar[str] = "dot-product similarity; linear attention, RetNet, fast weights"

    def value(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return -(recall(M, k) * v).sum(-1)

    def surprise_at(self, y: Tensor, v: Tensor) -> Tensor:
        return -v

    def surprise(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return -v  # whatever the memory says: no need to ask it

    def most(self, y: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.full_like(v[..., :1], inf)  # the loss has no minimum to pass

    def implicit_surprise(self, y: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return -v  # the loss is linear: implicit and explicit step are the same


@dataclass(frozen=True)
class L2(Objective):
    """1/2 |M k - v|^2: answer with exactly the value. One GD step is the delta rule (eq. 65, printed without 1/2)."""

    name: ClassVar[str] = "l2"
    formula: ClassVar[str] = "½|Mk − v|²"
    latex: ClassVar[str] = r"\tfrac12\|Mk-v\|_2^2"
    field: ClassVar[str] = "squared error; DeltaNet, Longhorn, TTT, Titans"

    def value(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 0.5 * (recall(M, k) - v).square().sum(-1)

    def surprise_at(self, y: Tensor, v: Tensor) -> Tensor:
        return y - v

    def most(self, y: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 1 / k.square().sum(-1, keepdim=True)

    def implicit_surprise(self, y: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return (y - v) / (1 + c)


@dataclass(frozen=True)
class Lp(Objective):
    """1/p |M k - v|_p^p (the attentional bias of Miras/Moneta; 1/p makes p = 2 the squared error above).

    p = 1 writes only the sign of the error (robust to outliers), p > 2 cares most about the largest error.
    """

    p: float = 3.0
    name: ClassVar[str] = "lp"
    formula: ClassVar[str] = "⅟p·|Mk − v|ₚᵖ"
    latex: ClassVar[str] = r"\tfrac1p\|Mk-v\|_p^p"
    field: ClassVar[str] = "L_p error; Miras (Moneta)"

    def __post_init__(self) -> None:
        need(self.p >= 1, "p", self.p, "a number >= 1 (below 1 the objective has no minimum to walk to)")

    def value(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (recall(M, k) - v).abs().pow(self.p).sum(-1) / self.p

    def surprise_at(self, y: Tensor, v: Tensor) -> Tensor:
        r = y - v
        tiny = torch.finfo(r.dtype).tiny  # keeps the second derivative finite at r = 0 for p < 2
        return r.sign() * r.abs().clamp_min(tiny).pow(self.p - 1)

    def most(self, y: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """r -> r - lr |k|^2 sign(r) |r|^(p-1) for each entry r of the error: at rest, not over it."""
        size = (y - v).abs().clamp_min(torch.finfo(v.dtype).tiny)
        return size.pow(2 - self.p) / k.square().sum(-1, keepdim=True)

    def implicit_surprise(self, y: Tensor, v: Tensor, c: Tensor) -> Tensor:
        r, tiny = y - v, torch.finfo(y.dtype).tiny
        if self.p == 1:  # soft threshold
            return r.sign() * (r.abs() / c.clamp_min(tiny)).clamp_max(1)
        size, c = r.abs(), c.expand_as(r)  # solve rho + c rho^(p-1) = |r| for rho in [0, |r|], entry by entry
        with torch.no_grad():
            low, high = torch.zeros_like(size), size.clone()
            for _ in range(80):
                middle = (low + high) / 2
                too_big = middle + c * middle.pow(self.p - 1) > size
                low, high = torch.where(too_big, low, middle), torch.where(too_big, middle, high)
            rho = ((low + high) / 2).clamp_min(tiny)
            slope = 1 + c * (self.p - 1) * rho.pow(self.p - 2)
        rho = rho - (rho + c * rho.pow(self.p - 1) - size) / slope  # one Newton step carries the gradient of the root
        return r.sign() * rho.clamp_min(tiny).pow(self.p - 1)


@dataclass(frozen=True)
class Oja(Objective):
    """-<M k, v> + 1/2 |M^T v|^2: Hebb with a brake on what the memory already says along v (eq. 67).

    Half of the printed loss. Its gradient is v (M^T v - k)^T; the brace printed under it subtracts a matrix from a
    vector.
    """

    name: ClassVar[str] = "oja"
    formula: ClassVar[str] = "-⟨Mk, v⟩ + ½|Mᵀv|²"
    latex: ClassVar[str] = r"-\langle Mk, v\rangle+\tfrac12\|M^\top v\|_2^2"
    field: ClassVar[str] = "Oja's normalised Hebb rule"
    through_answer: ClassVar[bool] = False

    def value(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return -(recall(M, k) * v).sum(-1) + 0.5 * recall(M.mT, v).square().sum(-1)

    def surprise_at(self, y: Tensor, v: Tensor) -> Tensor:
        raise NLBookError("objective: got oja, expected one that sees the state through its answer alone: dot, l2, lp")

    def grad(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return outer(v, recall(M.mT, v) - k)

    def most(self, y: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 1 / v.square().sum(-1, keepdim=True)


OBJECTIVES: dict[str, type[Objective]] = {"dot": Dot, "l2": L2, "lp": Lp, "oja": Oja}


def get_objective(objective: str | Objective) -> Objective:
    """An objective by name (`dot`, `l2`, `lp`, `oja`), or the one given."""
    if isinstance(objective, Objective):
        return objective
    need(objective in OBJECTIVES, "objective", repr(objective), f"one of {', '.join(OBJECTIVES)} or an Objective")
    return OBJECTIVES[objective]()
