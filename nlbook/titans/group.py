"""A group of boxes of equal shape that learn side by side: its write over a run of tokens, and the reads inside that
run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.errors import need, need_shape
from nlbook.titans.chunked import Decays, Piece
from nlbook.titans.rules import Rule, Signals, Weights, implicit_rate, read, token_write


@dataclass
class Gates:
    """Per token (batch, head, 1, length): log alpha, eta, and log mu (None: no momentum)."""

    log_keep: Tensor
    eta: Tensor
    log_mu: Tensor | None = None
    _decays: Decays | None = field(default=None, init=False, repr=False)

    @property
    def decays(self) -> Decays:
        """Their sums and ratios, made once. (functools.cached_property takes a lock, which torch.compile refuses.)"""
        if self._decays is None:
            self._decays = Decays(self.log_keep, self.eta, self.log_mu)
        return self._decays

    @classmethod
    def together(cls, log_keep: Tensor, eta: Tensor, log_mu: Tensor | None = None) -> list[Gates]:
        """The gates of each run of equal length, with decays made in one go: (batch, head, 1, run, length)."""
        mu = [None] * eta.shape[-2] if log_mu is None else log_mu.unbind(-2)
        out = [cls(*g) for g in zip(log_keep.unbind(-2), eta.unbind(-2), mu)]
        for gates, decays in zip(out, Decays.together(log_keep, eta, log_mu)):
            gates._decays = decays
        return out

    def slower(self, rate: Tensor) -> Gates:
        """The same gates at a fraction of the pace: eta -> rate eta, 1 - alpha -> rate (1 - alpha)."""
        return Gates(torch.log1p(rate * torch.expm1(self.log_keep)), rate * self.eta, self.log_mu)


def write(
    now: Weights,
    io: Signals,
    gates: Gates,
    rule: Rule,
    *,
    init: Weights | None = None,
    momentum: Weights | None = None,
    moves: Tensor | None = None,
) -> tuple[Weights, Weights, Callable[[str, str, Tensor], Tensor]]:
    """Write a run of tokens whose inputs and errors are frozen (eq. 88, 90). `init` is given for retention="initial".

    moves: (box, 1, 1) bool, boxes that learn at all; None: all. Returns the new weights, the new momentum, and
    `inside(name, when, rows)`: one weight matrix of the running state applied to one row a token.
    """
    new: Weights = {}
    pushed: Weights = {}
    pieces: dict[str, Piece] = {}
    single = gates.eta.shape[-1] == 1
    shared = gates
    for name, (a, e) in io.items():
        gates = shared if rule.rate == "explicit" else replace(shared, eta=implicit_rate(shared.eta, a))
        target, S = None if init is None else init[name], None if momentum is None else momentum[name]
        factor = rule.factor_of(name)
        if single:  # one token needs no system
            mu = None if gates.log_mu is None else gates.log_mu.exp()[..., None]
            W, S = token_write(
                now[name],
                a,
                e,
                gates.log_keep.exp()[..., None],
                gates.eta[..., None],
                factor,
                init=target,
                momentum=S,
                mu=mu,
            )
        else:
            pieces[name] = Piece(now[name], a, e, gates.decays, factor, init=target, momentum=S)
            W, S = pieces[name].end()
        new[name] = W if moves is None else torch.where(moves, W, now[name])
        if S is not None:
            pushed[name] = S

    def inside(name: str, when: str, rows: Tensor) -> Tensor:
        if single:
            return rows @ (now if when == "before" else new)[name].mT
        return pieces[name].read(rows, when)

    return new, pushed, inside


def answer(
    start: Weights, q: Tensor, residual: bool, when: str, inside: Callable[[str, str, Tensor], Tensor]
) -> Tensor:
    """y_t = M(q_t) with the state that `when` names: "start" of the chunk, or the running one "before" or "after" token
    t.
    """
    if when == "start":
        return read(start, q, residual)
    if "W" in start:
        return inside("W", when, q)
    o = inside("W1", when, F.silu(inside("W2", when, q)))
    return q + o if residual else o


def causal_conv(x: Tensor, taps: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution with its past carried along.

    x (..., length, dim), taps (..., width, dim), the last one for the present token; tail (..., width - 1, dim): the
    raw rows before x. Returns the filtered rows and the new tail.
    """
    width = taps.shape[-2]
    need_shape("tail", tail, width - 1, x.shape[-1])
    z = torch.cat([tail, x], -2)
    y = taps[..., -1:, :] * x
    for i in range(width - 1):
        y = y + taps[..., i : i + 1, :] * z[..., i : i + x.shape[-2], :]
    return y, z[..., z.shape[-2] - (width - 1) :, :]


def identity_taps(*shape: int, width: int, noise: float, g: torch.Generator) -> Tensor:
    """Taps (*shape[:-1], width, dim) that pass the present token through; `noise` adds uniform numbers in [-noise,
    noise].
    """
    need(width >= 1, "conv", width, "an int >= 1 (taps)")
    taps = noise * (2 * torch.rand(*shape[:-1], width, shape[-1], generator=g) - 1)
    taps[..., -1, :] += 1
    return taps
