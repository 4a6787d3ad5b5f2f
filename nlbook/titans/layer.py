"""What both layers share: initial states, the walk from boundary to boundary, the accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nlbook.errors import need, need_float, need_int, need_same, need_shape
from nlbook.levels import Component, Writes
from nlbook.titans.rules import Gates, Rule, Weights
from nlbook.titans.state import TitansState

IMPLS = ("auto", "chunked", "tokens", "operator")


@dataclass(frozen=True)
class Boxes:
    """Memories of equal shape and chunk size, which learn side by side."""

    names: tuple[str, ...]
    chunk: int
    residual: bool


class FastLayer(Writes, nn.Module):
    """A layer whose weights move while it reads. The outer gradient runs through every write to the initial states.

    Subclasses fill `groups` (name -> boxes), `initial` and `filtered` (name -> how many rows a convolution takes), and
    say what does not depend on fast weights (`_prepare`), and how a run of tokens is read and written (`_run`).
    """

    nested_initial_states: ClassVar[tuple[str, ...]] = ("initial",)
    block: int = 64  # tokens in one parallel piece: speed only
    groups: Mapping[str, Boxes]
    filtered: Mapping[str, int]
    taps: nn.Parameter

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int | None,
        memory: str,
        rule: Rule,
        gates: Gates,
        conv: int,
        activation: str,
    ) -> None:
        super().__init__()
        for name, n in (("dim", dim), ("heads", heads)):
            need_int(name, n)
        need(dim % heads == 0, "heads", heads, f"a divisor of dim = {dim}")
        need(memory in ("mlp", "linear"), "memory", repr(memory), "'mlp' or 'linear'")
        need(activation in ("silu", "none"), "activation", repr(activation), "'silu' or 'none'")
        need(gates.decay or rule.radius is None, "radius", rule.radius, "None without decay: what is never lost grows")
        self.eta_max, self.decay = gates.eta_max, gates.decay
        self.dim, self.heads, self.width, self.memory, self.rule = dim, heads, dim // heads, memory, rule
        self.hidden, self.conv, self.activation = hidden or self.width, conv, activation
        self.initial = nn.ParameterDict()

    def _boxes(self, names: tuple[str, ...], chunk: int, residual: bool = True, argument: str = "chunk") -> Boxes:
        need_int(argument, chunk)
        return Boxes(names, chunk, residual and self.memory == "mlp")

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
        S = {g: {n: torch.zeros_like(w) for n, w in ws.items()} for g, ws in now.items()} if self.rule.momentum else {}
        tails = {}
        if self.conv:
            shape = (self.conv - 1, self.width)
            tails = {n: self.taps.new_zeros(batch, self.heads, k, *shape) for n, k in self.filtered.items()}
        return TitansState(now, now, S, tails)

    # ------------------------------------------------------------------ the walk
    def forward(self, x: Tensor, state: TitansState | None = None, *, impl: str = "auto") -> tuple[Tensor, TitansState]:
        """Read x (batch, length, dim), write while reading; returns y (batch, length, dim) and the state after that.

        impl: the same numbers, other speeds. "chunked": runs of up to `block` tokens at once. "tokens": one token at a
        time. "operator": whole chunks through the operator of nlkernels whose rule this is (`self.operator` names it),
        which is fused on a GPU. "auto": "operator" where there is one and no trace is taken, else "chunked".
        """
        need_float("x", x)
        need_shape("x", x, "batch", "length", self.dim)
        need(x.ndim == 3, "x", f"shape {tuple(x.shape)}", "(batch, length, dim)")
        need(impl in IMPLS, "impl", repr(impl), f"one of {', '.join(map(repr, IMPLS))}")
        has = self.operator is not None and not self.write_hooks
        need(
            has or impl != "operator",
            "impl",
            "'operator'",
            f"'auto' or 'chunked': nlkernels has no operator for {self.rule} with memory={self.memory!r} as this layer "
            "uses it, or for a layer that is traced",
        )
        impl = ("operator" if has else "chunked") if impl == "auto" else impl
        with torch.autocast(x.device.type, enabled=False):  # small products of a recurrence: parameters' dtype
            out, x = x.dtype, x.to(next(self.parameters()).dtype) if torch.is_autocast_enabled(x.device.type) else x
            need_same("the parameters", next(self.parameters()), "x", x)
            state = self.initial_state(x.shape[0]) if state is None else state
            held = next(iter(next(iter(state.now.values())).values()))
            rows = held.shape[0]
            need_same("x", x, "state", held)
            need(rows == x.shape[0], "state", f"a state of {rows} sequence(s)", f"one of {x.shape[0]}, as x has")
            y, state = self._walk(x, state, impl)
            return y.to(out), state

    def _walk(self, x: Tensor, state: TitansState, impl: str) -> tuple[Tensor, TitansState]:
        whole, tails = self._prepare(x, state)
        lead, many = (x.shape[1], 0) if impl != "operator" else self._whole_chunks(x.shape[1], state.position)
        rest = x.shape[1] - lead - many
        cuts = [(n, self._run) for n in self._runs(lead, state.position, 1 if impl == "tokens" else self.block)]
        cuts += [(many, self._operate)] if many else []
        cuts += [(n, self._run) for n in self._runs(rest, state.position + lead + many, self.block)]
        ys = []
        for (n, run), part in zip(cuts, self._parts(whole, [n for n, _ in cuts])):
            y, new = run(part, state)
            state = self._boundary(state, new, n)
            ys.append(y)
        y = torch.cat(ys, 2) if ys else x.new_zeros(x.shape[0], self.heads, 0, self.width)
        return y.transpose(1, 2).flatten(2), replace(state, tails={**state.tails, **tails})

    def _whole_chunks(self, length: int, position: int) -> tuple[int, int]:
        """Tokens before the next boundary, and tokens in whole chunks after it: those an operator takes."""
        chunk = next(iter(self.groups.values())).chunk
        lead = min(length, -position % chunk)
        return lead, (length - lead) // chunk * chunk

    def _runs(self, length: int, position: int, block: int) -> list[int]:
        """Tokens of each run: up to the next boundary of any group, at most `block`."""
        sizes: list[int] = []
        while length > 0:
            sizes.append(min(*(g.chunk - position % g.chunk for g in self.groups.values()), block, length))
            position, length = position + sizes[-1], length - sizes[-1]
        return sizes

    def _parts(self, whole: dict[str, Tensor], sizes: list[int]) -> list[dict[str, Any]]:
        """What `_prepare` made, run by run. (Split: a slice's gradient would fill the whole length with zeros.)"""
        cut = {k: v.split(sizes, -2) for k, v in whole.items()} if sizes else {}
        return [{k: v[i] for k, v in cut.items()} for i in range(len(sizes))]

    def _prepare(self, x: Tensor, state: TitansState) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What does not depend on fast weights, for all tokens: name -> (..., length, size); and new tails."""
        raise NotImplementedError

    def _run(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        """Read and write one run; every group stays inside one chunk. Does not touch start and position."""
        raise NotImplementedError

    @property
    def operator(self) -> str | None:
        """The operator of nlkernels whose rule this layer has, or None."""
        raise NotImplementedError

    def _operate(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        """`_run` for whole chunks, through that operator."""
        raise NotImplementedError

    def _boundary(self, old: TitansState, new: TitansState, n: int) -> TitansState:
        """Move the clock; groups whose chunk is full take their present weights as the new start."""
        new.position = old.position + n
        full = [g for g, group in self.groups.items() if new.position % group.chunk == 0]
        new.start = {**old.start, **{g: new.now[g] for g in full}}
        for g in full if self.write_hooks else ():
            for j, box in enumerate(self.groups[g].names):
                after = {k: w[:, :, j].detach() for k, w in new.now[g].items()}
                change = {k: w - old.start[g][k][:, :, j].detach() for k, w in after.items()}
                reason = f"chunk of {self.groups[g].chunk} tokens is full"
                self.wrote(f"M_{box}", new.position, after, change, reason)
        return new

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, length, dim) -> (batch, head, length, width)."""
        return x.unflatten(-1, (self.heads, self.width)).transpose(1, 2)

    # ------------------------------------------------------------------ accounts
    def nested_components(self) -> list[Component]:
        """The memories for `nlbook.levels.levels_of`: what is read changes once per chunk; periods in tokens."""
        out = []
        for name, group in self.groups.items():
            for j, box in enumerate(group.names):
                size = sum(w[:, j].numel() for w in self.initial_weights(name).values())
                out.append(Component(f"M_{box}", period=group.chunk, kind="fast state", size=size))
                if self.rule.momentum:
                    out.append(Component(f"M_{box}.momentum", period=1, kind="fast state", size=size))
        return out

    def extra_repr(self) -> str:
        chunks = {b: g.chunk for g in self.groups.values() for b in g.names}
        return f"{self.dim}, heads={self.heads}, memory={self.memory!r}, hidden={self.hidden}, {chunks=}, {self.rule}"


def positive_keep(log_keep: Tensor) -> Tensor:
    """alpha > 0: the operators work with its logarithm."""
    return log_keep.exp().clamp_min(torch.finfo(log_keep.dtype).tiny)
