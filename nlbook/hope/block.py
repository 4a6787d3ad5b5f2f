"""One block of Hope: a sequence mixer, and levels that learn from the error of the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.cms import CMS, CMSState
from nlbook.errors import generator
from nlbook.hope.mixers import StaticMLP, arguments, make_mixer
from nlbook.numerics import rms
from nlbook.tree import Tree, restart


def full(logits: Tensor) -> Tensor:
    """At least float32: what autocast left in bfloat16 is no place for a logarithm."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class NextToken:
    """What Hope's levels learn from: the cross-entropy of the next token, read from y through the head (eq. 71).

    head (vocabulary, dim). With one block y is what the model says. With several, the levels of all of them follow the
    error at the last one's y (`HandedDown`): what comes back through the blocks above would need their graph.
    """

    def __init__(self, head: Tensor) -> None:
        self.head = head

    def __call__(self, y: Tensor, target: Tensor) -> Tensor:
        """Nats, (batch, length), from y (batch, length, dim) and the next tokens (batch, length)."""
        return F.cross_entropy(F.linear(rms(y), self.head).mT, target, reduction="none")

    def error(self, y: Tensor, target: Tensor) -> Tensor:
        """d loss / d y."""
        n = rms(y)
        surprise = torch.softmax(F.linear(n, self.head), -1)
        e = (surprise - F.one_hot(target, len(self.head))) @ self.head
        return (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * (e - n * (e * n).mean(-1, keepdim=True))


class HandedDown:
    """The error at the last block's output, (batch, length, dim), handed down the residual stream as it is."""

    def __init__(self, given: Tensor) -> None:
        self.given = given

    def error(self, y: Tensor, target: Tensor) -> Tensor:
        return self.given if torch.is_grad_enabled() else self.given.detach()


LEVELS = {"variant": "headwise", "lr": 0.03, "learn_lr": True, "reduce": "sum", "first_order": True}
MEMORY: dict[str, dict[str, Any]] = {
    "self_modifying": {  # keys and queries begin aligned, and no write is too long
        "chunk": 16, "other_chunk": 16, "read": "after", "rate": "implicit", "eta": 0.3, "eta_max": 1.0,
        "mem_gain": 3.0, "proj_std": 0.05, "query": "identity",
    },
    # One token again and again adds the same gradient up within a chunk, and the state grows. Far beyond what any other
    # text reaches it stops growing, so that nothing becomes NaN.
    "titans": {"radius": 1e5},
}  # fmt: skip


@dataclass
class BlockState(Tree):
    """The mixer's state, the levels' (None of a static chain), and the rows that wait for their next tokens."""

    mixer: Any
    levels: CMSState | None
    waiting: dict[str, Tensor] | None = None


class HopeBlock(nn.Module):
    """Eq. 94-97 with the norms, gate and residuals that the paper leaves out:

    n = rms(x);  o = mixer(n)                           self-modifying Titans, or a baseline's mixer
    h = x + W_o (rms(o) * silu(W_g n))                  gated read-out
    y = h + sum_l MLP_l(n)                              the continuum memory system (eq. 74); or a chain on h (eq. 70)

    A level learns from a row once its next token is known, so the last row of a call waits in the state. c: a
    HopeConfig.
    """

    def __init__(self, c: Any, seed: int) -> None:
        super().__init__()
        g = generator(seed)
        shared = {n: getattr(c, n) for n in ("heads", "conv", "conv_noise", "shift", "activation")}
        options = {**shared, "seed": seed + 1, **MEMORY.get(c.mixer, {}), **c.options}
        self.mixer = make_mixer(c.mixer, c.dim, options)
        self.W_g = nn.Parameter(torch.randn(c.dim, c.dim, generator=g) / c.dim**0.5)
        self.W_o = nn.Parameter(torch.randn(c.dim, c.dim, generator=g) / c.dim**0.5)
        if c.mlp == "static":
            self.mlp: Any = StaticMLP(c.dim, c.hidden, len(c.periods), seed + 2)
            return
        levels = {**LEVELS, "seed": seed + 2, **c.cms}
        self.mlp = CMS(c.dim, c.hidden, c.periods, **arguments(CMS, levels, "cms"))
        if self.mlp.objective != "local":
            self.gate = nn.Parameter(torch.zeros(len(c.periods), c.dim))
            self.gate_bias = nn.Parameter(torch.zeros(len(c.periods)))

    def initial_state(self, batch: int) -> BlockState:
        start: Any = self.mixer.initial_state
        return BlockState(start(batch), self.mlp.initial_state(batch) if isinstance(self.mlp, CMS) else None)

    def forward(
        self, x: Tensor, state: BlockState, known: Tensor | None = None, loss: NextToken | None = None
    ) -> tuple[Tensor, BlockState]:
        """x (batch, length, dim) -> y, state. known (batch, length - 1): the tokens after all rows but the last; levels
        read and do not learn without them.
        """
        n = rms(x)
        o, mixed = self.mixer(n, state.mixer)  # eq. 94-96
        h = x + F.linear(rms(o) * F.silu(F.linear(n, self.W_g)), self.W_o)
        if state.levels is None:
            return self.mlp(h), BlockState(mixed, None)
        with torch.autocast(x.device.type, enabled=False):  # fast weights stay in full precision
            if known is None or loss is None or self.mlp.objective == "local":
                y, moved = self.mlp(h, state.levels, source=self._source(x))
                return y, BlockState(mixed, moved, None if self.mlp.objective == "local" else {"h": h, "x": x})
            *parts, moved = self._learn(h[:, :-1], x[:, :-1], state.levels, known, loss)
            last, moved = self.mlp(h[:, -1:], moved, source=self._source(x[:, -1:]))
            return torch.cat([*parts, last], 1), BlockState(mixed, moved, {"h": h[:, -1:], "x": x[:, -1:]})

    def hear(self, known: Tensor, state: BlockState, loss: NextToken | HandedDown) -> BlockState:
        """The rows that wait learn from the tokens (batch, rows) that came after them."""
        if state.waiting is None or state.levels is None:
            return state
        _, moved = self._learn(**state.waiting, levels=state.levels, known=known, loss=loss)
        return BlockState(state.mixer, moved)

    def end(self, rows: Tensor, ends: Tensor, state: BlockState) -> BlockState:
        """Contexts end before the next token. rows (batch,): of these sequences; ends (batch, 1 + levels): whose."""
        fresh = self.initial_state(len(rows))
        mixer = fresh.mixer if ends[:, 0].all() else restart(ends[:, 0], state.mixer, fresh.mixer)
        if state.levels is None:
            return BlockState(mixer, None)
        return BlockState(mixer, self.mlp.end_context(state.levels, rows, ends[:, 1:]))

    def answer(self, state: BlockState) -> Tensor:
        """What the block said at the rows that wait."""
        rows: Any = state.waiting
        return self.mlp(rows["h"], state.levels, source=self._source(rows["x"]))[0]

    def _source(self, x: Tensor) -> Tensor | None:
        return x if self.mlp.variant == "headwise" and self.mlp.objective != "local" else None

    def _learn(self, h: Tensor, x: Tensor, levels: CMSState, known: Tensor, loss: Any) -> tuple[Tensor, CMSState]:
        weight = 2 * torch.sigmoid(F.linear(rms(h), self.gate, self.gate_bias))  # eta_t of eq. 71, a number a level
        return self.mlp(h, levels, known, source=self._source(x), loss=loss, weight=weight)
