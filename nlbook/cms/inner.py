"""Inner optimizers: how a level moves when its chunk is full (the f of eq. 71, "the update term of any optimizer").

Each is a pure function of (weights, gradient, state), so that an outer loss can be differentiated through it. Weights
carry a leading axis of sequences; every sequence has a state of its own. Anything with the two methods of `Inner` will
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from nlbook.errors import NLBookError, need

InnerState = dict[str, Tensor]


@runtime_checkable
class Inner(Protocol):
    """`init(w)` makes the state of one weight (sequences, out, in); `step` returns the new weight and the new state."""

    def init(self, w: Tensor) -> InnerState: ...

    def step(self, w: Tensor, g: Tensor, state: InnerState, lr: Tensor | float) -> tuple[Tensor, InnerState]: ...


@dataclass(frozen=True)
class SGD:
    """w <- w - lr g. Eq. 71 as it stands."""

    def init(self, w: Tensor) -> InnerState:
        return {}

    def step(self, w: Tensor, g: Tensor, state: InnerState, lr: Tensor | float) -> tuple[Tensor, InnerState]:
        return (torch.sub(w, g, alpha=lr) if isinstance(lr, float) else w - lr * g), state


@dataclass(frozen=True)
class Momentum:
    """m <- beta m + g;  w <- w - lr m. Heavy ball: the momentum moves at the pace of its level."""

    beta: float = 0.9

    def init(self, w: Tensor) -> InnerState:
        return {"momentum": torch.zeros_like(w)}

    def step(self, w: Tensor, g: Tensor, state: InnerState, lr: Tensor | float) -> tuple[Tensor, InnerState]:
        m = self.beta * state["momentum"] + g
        return w - lr * m, {"momentum": m}


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction, decoupled weight decay (AdamW) if `weight_decay` > 0. State: two moments and a step
    count."""

    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def init(self, w: Tensor) -> InnerState:
        return {"m": torch.zeros_like(w), "v": torch.zeros_like(w), "step": w.new_zeros(())}

    def step(self, w: Tensor, g: Tensor, state: InnerState, lr: Tensor | float) -> tuple[Tensor, InnerState]:
        b1, b2 = self.betas
        n = state["step"] + 1
        m, v = b1 * state["m"] + (1 - b1) * g, b2 * state["v"] + (1 - b2) * g * g
        root = (v / (1 - b2**n)).clamp_min(torch.finfo(w.dtype).tiny).sqrt()  # the clamp: a finite slope at v = 0
        w = w * (1 - lr * self.weight_decay) if self.weight_decay else w
        return w - lr * (m / (1 - b1**n)) / (root + self.eps), {"m": m, "v": v, "step": n}


_NAMED: dict[str, Any] = {"sgd": SGD, "momentum": Momentum, "adam": Adam}


def inner_of(optimizer: Any) -> Inner:
    """ "sgd", "momentum", "adam", or an object with `init` and `step`."""
    wanted = f"one of {sorted(_NAMED)}, or an object with init and step"
    if isinstance(optimizer, str):
        need(optimizer in _NAMED, "optimizer", repr(optimizer), wanted)
        return _NAMED[optimizer]()
    if not isinstance(optimizer, Inner) or isinstance(optimizer, type):
        raise NLBookError(f"optimizer: got {optimizer!r}, expected {wanted}")
    return optimizer
