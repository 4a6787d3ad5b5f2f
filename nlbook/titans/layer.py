"""What both layers share: initial states, the walk from boundary to boundary, the accounts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nlbook.errors import NLBookError, need, need_float, need_same, need_shape
from nlbook.levels import Component, Writes
from nlbook.titans.rules import Rule, Weights
from nlbook.titans.state import TitansState


@dataclass(frozen=True)
class Group:
    """Boxes of equal shape and chunk size."""

    boxes: tuple[str, ...]
    chunk: int
    residual: bool


class FastLayer(Writes, nn.Module):
    """A layer whose weights move while it reads. Subclasses fill `groups`, `initial`, and say what a run of tokens is.

    The outer gradient runs through every write to the initial states. checkpoint=True keeps only the states at run
    borders and recomputes the rest. first_order=True is an approximation: states are constants at chunk boundaries, and
    what arrives there is handed to the initial states as if nothing had been written.
    """

    nested_initial_states: ClassVar[tuple[str, ...]] = ("initial",)
    groups: Mapping[str, Group]

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int | None,
        memory: str,
        rule: Rule,
        *,
        eta_max: float,
        eta: float,
        horizon: float,
        decay: bool,
        block: int,
        checkpoint: bool,
        first_order: bool,
    ) -> None:
        super().__init__()
        for name, n in (("dim", dim), ("heads", heads), ("block", block)):
            if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                raise NLBookError(f"{name}: got {n!r}, expected an int >= 1")
        need(dim % heads == 0, "heads", heads, f"a divisor of dim = {dim}")
        need(memory in ("mlp", "linear"), "memory", repr(memory), "'mlp' or 'linear'")
        need(0 < eta < eta_max, "eta", eta, f"a number in (0, eta_max = {eta_max})")
        need(horizon > 1, "horizon", horizon, "a number of tokens > 1: alpha starts at 1 - 1/horizon")
        self.dim, self.heads, self.width, self.memory, self.rule = dim, heads, dim // heads, memory, rule
        self.hidden = hidden or self.width
        self.eta_max, self.decay, self.block = eta_max, decay, block
        self.checkpoint, self.first_order = checkpoint, first_order
        self.initial = nn.ParameterDict()
        self._bias = {"eta": math.log(eta / (eta_max - eta)), "alpha": math.log(horizon - 1)}

    def _add(
        self, group: str, out: int, stds: list[float], g: torch.Generator, identity: bool = False, gain: float = 1.0
    ) -> None:
        """Initial states of a group, one W1 (or W) scale a box: (head, box, out, in). gain: factor on W2."""
        shape = (self.heads, len(stds))
        scale = torch.tensor(stds)[:, None, None]
        if self.memory == "linear":
            W = scale * torch.randn(*shape, out, self.width, generator=g) / self.width**0.5
            self.initial[f"{group}_W"] = nn.Parameter(W + torch.eye(self.width) if identity else W)
            return
        W2 = gain * torch.randn(*shape, self.hidden, self.width, generator=g) / self.width**0.5
        self.initial[f"{group}_W2"] = nn.Parameter(W2)
        self.initial[f"{group}_W1"] = nn.Parameter(
            scale * torch.randn(*shape, out, self.hidden, generator=g) / self.hidden**0.5
        )

    # ------------------------------------------------------------------ state
    def initial_weights(self, group: str) -> Weights:
        """The learned initial states of a group, (head, box, out, in)."""
        names = ("W",) if self.memory == "linear" else ("W1", "W2")
        return {n: self.initial[f"{group}_{n}"] for n in names}

    def initial_state(self, batch: int) -> TitansState:
        """The state before the first token of `batch` sequences."""
        now = {g: {n: w.expand(batch, *w.shape) for n, w in self.initial_weights(g).items()} for g in self.groups}
        momentum = (
            {g: {n: torch.zeros_like(w) for n, w in ws.items()} for g, ws in now.items()} if self.has_momentum else {}
        )
        return TitansState(now, now, momentum, self._tails(batch))

    @property
    def has_momentum(self) -> bool:
        raise NotImplementedError

    def _tails(self, batch: int) -> dict[str, Tensor]:
        raise NotImplementedError

    # ------------------------------------------------------------------ the walk
    def forward(self, x: Tensor, state: TitansState | None = None, *, impl: str = "auto") -> tuple[Tensor, TitansState]:
        """Read x (batch, length, dim), write while reading; returns y (batch, length, dim) and the state after that.

        impl: the same numbers, other speeds. "chunked": pieces of up to `block` tokens. "tokens": one token at a time.
        "operator": whole chunks through the operator of nlkernels whose rule this is (`self.operator` names it).
        "auto": "operator" where there is one and no trace is taken, else "chunked".
        """
        need_float("x", x)
        need_shape("x", x, "batch", "length", self.dim)
        need(x.ndim == 3, "x", f"shape {tuple(x.shape)}", "(batch, length, dim)")
        need(
            impl in ("auto", "chunked", "tokens", "operator"),
            "impl",
            repr(impl),
            "'auto', 'chunked', 'tokens' or 'operator'",
        )
        whole = self.operator is not None and not self.first_order and not self.write_hooks
        need(
            impl != "operator" or whole,
            "impl",
            "'operator'",
            f"'auto' or 'chunked': nlkernels has no operator for {self.rule}, memory={self.memory!r} as this layer "
            "uses it, for first_order=True, or for a layer that is traced (see nlbook.titans.operators)",
        )
        if impl == "auto":
            impl = "operator" if whole else "chunked"
        with torch.autocast(x.device.type, enabled=False):  # small products of a recurrence: parameters' dtype
            out, x = x.dtype, x.to(next(self.parameters()).dtype) if torch.is_autocast_enabled(x.device.type) else x
            need_same("the parameters", next(self.parameters()), "x", x)
            state = self.initial_state(x.shape[0]) if state is None else state
            rows = next(iter(next(iter(state.now.values())).values())).shape[0]
            need(rows == x.shape[0], "state", f"a state of {rows} sequence(s)", f"one of {x.shape[0]}, as x has")
            y, state = self._walk(x, state, impl)
            return y.to(out), state

    def _walk(self, x: Tensor, state: TitansState, impl: str) -> tuple[Tensor, TitansState]:
        whole, tails = self._prepare(x, state)
        ys = []
        plan = list(self._plan(x.shape[1], state.position, impl))
        sizes = [n for _, n, _ in plan]  # split: the gradient of a slice a run would
        parts = {k: v.split(sizes, -2) for k, v in whole.items()} if plan else {}  # fill the whole length with zeros
        gates = {} if self.checkpoint else self._gates_of(whole, [(i, n) for i, n, run in plan if run == self._run])
        for j, (i, n, run) in enumerate(plan):
            part: dict[str, Any] = {k: v[j] for k, v in parts.items()}
            if i in gates:
                part["gates"] = gates[i]
            if self.checkpoint and torch.is_grad_enabled():
                y, new = checkpoint(run, part, state, use_reentrant=False, preserve_rng_state=False)
            else:
                y, new = run(part, state)
            state = self._boundary(state, new, n)
            ys.append(y)
        y = torch.cat(ys, 2) if ys else x.new_zeros(x.shape[0], self.heads, 0, self.width)
        return y.transpose(1, 2).flatten(2), replace(state, tails={**state.tails, **tails})

    def _plan(self, length: int, position: int, impl: str) -> Iterator[tuple[int, int, Any]]:
        """(first token, tokens, what reads and writes them). An operator takes whole chunks; what is left of a chunk at
        either end is walked.
        """
        lead, rest = length, length
        if impl == "operator":
            chunk = next(iter(self.groups.values())).chunk
            lead = min(length, -position % chunk)
            rest = lead + (length - lead) // chunk * chunk
        block = 1 if impl == "tokens" else self.block
        yield from ((i, n, self._run) for i, n in self._runs(lead, position, block))
        if rest > lead:
            yield lead, rest - lead, self._operate
        yield from ((rest + i, n, self._run) for i, n in self._runs(length - rest, position + rest, block))

    def _runs(self, length: int, position: int, block: int) -> Iterator[tuple[int, int]]:
        """(first token, tokens) of each run: up to the next boundary of any group, at most `block`."""
        chunks, i = {g.chunk for g in self.groups.values()}, 0
        while i < length:
            n = min(*(c - (position + i) % c for c in chunks), block, length - i)
            yield i, n
            i += n

    def _prepare(self, x: Tensor, state: TitansState) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What does not depend on fast weights, for all tokens: name -> (..., length, size); and its last convolution
        tails.
        """
        raise NotImplementedError

    def _gates_of(self, whole: dict[str, Tensor], runs: list[tuple[int, int]]) -> dict[int, Any]:
        """Gates that no fast weight makes, for many runs (first token, tokens) at once: first token -> Gates."""
        return {}

    def _run(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        """Read and write one run; every group stays inside one chunk. Does not touch start and position."""
        raise NotImplementedError

    @property
    def operator(self) -> str | None:
        """The operator of nlkernels whose rule this layer has, or None."""
        raise NotImplementedError

    def _operate(self, part: dict[str, Tensor], state: TitansState) -> tuple[Tensor, TitansState]:
        """`_run` for whole chunks, through that operator."""
        raise NotImplementedError

    def _boundary(self, old: TitansState, new: TitansState, n: int) -> TitansState:
        """Move the clock; groups whose chunk is full take their present weights as the new start."""
        new.position = old.position + n
        new.start = dict(old.start)
        for g, group in self.groups.items():
            if new.position % group.chunk:
                continue
            if self.first_order:
                first = self.initial_weights(g)
                new.now[g] = {k: first[k] + (w - first[k]).detach() for k, w in new.now[g].items()}
                if g in new.momentum:
                    new.momentum[g] = {k: w.detach() for k, w in new.momentum[g].items()}
            new.start[g] = new.now[g]
            if self.write_hooks:
                for j, box in enumerate(group.boxes):
                    after = {k: w[:, :, j].detach() for k, w in new.now[g].items()}
                    before = {k: w[:, :, j].detach() for k, w in old.start[g].items()}
                    self.wrote(
                        f"M_{box}",
                        new.position,
                        after,
                        {k: after[k] - before[k] for k in after},
                        f"chunk of {group.chunk} tokens is full",
                    )
        return new

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, length, dim) -> (batch, head, length, width)."""
        return x.unflatten(-1, (self.heads, self.width)).transpose(1, 2)

    # ------------------------------------------------------------------ accounts
    def nested_components(self) -> list[Component]:
        """The memories for `nlbook.levels.levels_of`: what is read changes once per chunk; periods in tokens."""
        out = []
        for name, group in self.groups.items():
            for j, box in enumerate(group.boxes):
                size = sum(w[:, j].numel() for w in self.initial_weights(name).values())
                out.append(Component(f"M_{box}", period=group.chunk, kind="fast state", size=size))
                if self.has_momentum:
                    out.append(Component(f"M_{box}.momentum", period=1, kind="fast state", size=size))
        return out

    def extra_repr(self) -> str:
        chunks: Any = {b: g.chunk for g in self.groups.values() for b in g.boxes}
        return (
            f"{self.dim}, heads={self.heads}, memory={self.memory!r}, hidden={self.hidden}, chunks={chunks}, "
            f"rule={self.rule}"
        )
