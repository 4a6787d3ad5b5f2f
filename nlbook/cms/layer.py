"""`CMS`: a chain (or a panel) of MLPs, each with an update period of its own. Eq. 70-74.

Between two boundaries nothing moves, so those tokens are one batch: forward, one loss signal, and the rows (input,
error) of each weight's gradient, by formulas that autograd can differentiate again. A gradient matrix is formed once
per chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from nlbook.cms.inner import SGD, inner_of
from nlbook.cms.level import ACTIVATIONS, MLP, Loss, Rows, add, answer, back, half_squared_error, settle, signal
from nlbook.cms.local import read_local
from nlbook.cms.state import CMSState, Event, LevelState, Weights, schedule
from nlbook.errors import generator, need, need_choice, need_float, need_int, need_same, need_shape
from nlbook.levels import Component, Writes
from nlbook.numerics import rms
from nlbook.tree import restart

META_LR = 0.1  # the step of a start that its owner moves (eq. 72)


class CMS(Writes, nn.Module):
    """Continuum memory system (eq. 70-74): MLPs that learn while they read, each at its own period.

    Level l is `h + down act(up rms(h))` and moves once per `periods[l]` tokens, by what those tokens say at the weights
    that the level had all along (eq. 71, corrected: C terms, not C + 1). Token t is read by weights that have seen only
    tokens before t. Levels that follow one loss and never forget are one level: see nlbook.cms.additive.

    Args:
        dim, hidden: widths; `hidden` an int or one per level.
        periods: tokens per update, in the order of application; the paper's figure puts the fastest first.
        variant: "sequential" (eq. 70, 73): a chain; all initial states are outer parameters.
            "nested" (eq. 72): a chain; the next slower level owns the start of each level: whenever it moves, the
            faster one restarts there and the start itself learns. Starts outlive restarts of their owner.
            "headwise" (eq. 74): all levels read the same input; y = x + sum softmax(mix)_l MLP_l(x).
        objective: what levels learn. A function `loss(y, target) -> (batch, length)`: all follow its gradient, and a
            call without target reads and does not learn. "local": each level fits 1/2 |MLP_l(k) - v|^2 with keys and
            values of its own, linear in its input; nothing of the future enters, and little comes of it.
        optimizer: "sgd", "momentum", "adam" or an inner optimizer (nlbook.cms.inner). lr: one number, or one per level;
            `learn_lr=True` makes them outer parameters (log scale).
        reduce: "mean" (each token counts lr / C) or "sum" (lr, as printed: the step grows with C).
        first_order: detach inner gradients: the outer gradient reaches initial states, rates and token weights as if
            the updates' directions were constants.

    Shapes: x (batch, length, dim) -> y (batch, length, dim), state. Fast weights belong to one sequence. The outer
    gradient reaches `up`, `down` (initial states).
    """

    nested_initial_states: ClassVar[tuple[str, ...]] = ("up", "down")

    def __init__(
        self,
        dim: int,
        hidden: int | Sequence[int],
        periods: Sequence[int],
        variant: str = "sequential",
        *,
        objective: Loss | str = half_squared_error,
        optimizer: Any = "sgd",
        lr: float | Sequence[float] = 0.1,
        learn_lr: bool = False,
        reduce: str = "mean",
        first_order: bool = False,
        mlp: MLP = MLP(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        many = isinstance(periods, list | tuple) and len(periods) > 0
        need(many, "periods", repr(periods), "tokens per update, one int >= 1 a level: (16, 64, 256)")
        k, self.dim, self.periods, self.hidden = len(periods), dim, list(periods), _each("hidden", hidden, len(periods))
        for name, n in (("dim", dim), *(("periods", c) for c in periods), *(("hidden", h) for h in self.hidden)):
            need_int(name, n)
        need_choice("variant", variant, ("sequential", "nested", "headwise"))
        need(callable(objective) or objective == "local", "objective", repr(objective), "a loss, or 'local'")
        need_choice("reduce", reduce, ("mean", "sum"))
        need_choice("activation", mlp.activation, ACTIVATIONS)
        need(
            variant != "nested" or all(a < b for a, b in zip(self.periods, self.periods[1:])),
            "periods",
            self.periods,
            "strictly growing periods for variant='nested': each level's start belongs to the next slower level",
        )
        rates = [float(r) for r in _each("lr", lr, k)]
        need(all(r >= 0 and math.isfinite(r) for r in rates), "lr", lr, "finite numbers >= 0")
        need(not learn_lr or all(r > 0 for r in rates), "lr", lr, "numbers > 0 when learn_lr=True (kept as logarithms)")
        self.variant, self.objective, self.inner = variant, objective, inner_of(optimizer)
        self.reduce, self.first_order, self.mlp = reduce, first_order, mlp
        self.rates = None if learn_lr else rates
        if learn_lr:
            self.log_lr = nn.Parameter(torch.tensor(rates).log())
        g = generator(seed)

        def normal(*shape: int, scale: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=g) * scale / shape[-1] ** 0.5)

        self.up = nn.ParameterList([normal(h, dim) for h in self.hidden])
        self.down = nn.ParameterList([normal(dim, h, scale=0.1) for h in self.hidden])
        if objective == "local":
            self.key = nn.ParameterList([normal(dim, dim) for _ in range(k)])
            self.value = nn.ParameterList([normal(dim, dim) for _ in range(k)])
        if variant == "headwise":
            self.mix = nn.Parameter(torch.zeros(k))
        twin = [f".{periods[: i + 1].count(c)}" if c in periods[:i] else "" for i, c in enumerate(periods)]
        self.names = [f"C{c}{t}" for c, t in zip(periods, twin)]  # "C16" for a level of period 16; "C16.2" for a second
        self.held: set[int] = set()  # levels that gather and do not move, to see what they are good for

    # ------------------------------------------------------------------ state
    def initial_state(self, batch: int) -> CMSState:
        """The state before the first token: each sequence starts at the learned initial weights."""
        levels = []
        for i in range(len(self.periods)):
            w = {n: p[i].expand(batch, -1, -1) for n, p in (("up", self.up), ("down", self.down))}
            start = w if self.variant == "nested" and i + 1 < len(self.periods) else None
            levels.append(LevelState(w, inner={n: self.inner.init(v) for n, v in w.items()}, start=start))
        return CMSState(levels)

    def end_context(self, state: CMSState, rows: Tensor | None = None, restarts: Tensor | None = None) -> CMSState:
        """A context ends after the last token: what is gathered moves every level now, as it is.

        rows (batch,), bool: for these sequences only; None: for all. restarts (batch, levels), bool: these levels start
        again from their initial weights. Clocks are shared, so they begin anew only where every sequence ends.
        """
        ended, batch = self._flushed(state), len(state.levels[0].weights["up"])
        rows = torch.ones(batch, dtype=torch.bool) if rows is None else rows
        levels = []
        for i, (old, new, fresh) in enumerate(zip(state.levels, ended.levels, self.initial_state(batch).levels)):
            if restarts is not None:
                new = restart(restarts[:, i], new, fresh)
            levels.append(new if rows.all() else replace(restart(rows, old, new), clock=old.clock))
        return CMSState(levels, state.position)

    def _flushed(self, state: CMSState) -> CMSState:
        levels = [replace(s) for s in state.levels]
        for i, s in enumerate(levels):
            if s.clock:
                self.write(levels, Event(0, i, "update"), [{} for _ in levels], state.position)
        return CMSState(levels, state.position)

    def rate(self, level: int) -> Tensor | float:
        """The step size of a level."""
        return self.rates[level] if self.rates is not None else self.log_lr[level].exp()

    # ------------------------------------------------------------------ forward
    def forward(
        self,
        x: Tensor,
        state: CMSState | None = None,
        target: Tensor | None = None,
        *,
        source: Tensor | None = None,
        loss: Loss | None = None,
        weight: Tensor | None = None,
        partial: str = "carry",
    ) -> tuple[Tensor, CMSState]:
        """Read x and learn from it.

        Args:
            x: (batch, length, dim). state: of the call before, or None at the beginning of a sequence.
            target: what the loss compares y with, (batch, length, ...).
            source: (batch, length, dim), what the levels read instead of x; "headwise" only. y is still added onto x.
            loss: instead of the constructor's objective. Called per segment between boundaries.
            weight: (batch, length) or (batch, length, levels), a factor on each token's gradient (eta_t of eq. 71; 0
                masks padding).
            partial: what an unfinished chunk becomes at the end of the call: "carry" (a stream may be cut anywhere),
                "drop", or "flush" (it moves its level as it is; each token counts as in a full chunk).

        Returns y (batch, length, dim) and the state after the last token.
        """
        need_float("x", x)
        need_shape("x", x, "batch", "length", self.dim)
        need(x.ndim == 3, "x", f"shape {tuple(x.shape)}", "(batch, length, dim)")
        need_same("the parameters", self.up[0], "x", x)
        need_choice("partial", partial, ("carry", "drop", "flush"))
        batch, length = x.shape[:2]
        state = state if state is not None else self.initial_state(batch)
        rows, k = state.levels[0].weights["up"].shape[0], len(self.periods)
        need(
            len(state.levels) == k and rows == batch,
            "state",
            f"{len(state.levels)} levels for {rows} sequence(s)",
            f"{k} levels for {batch}",
        )
        if source is not None:
            need(self.variant == "headwise", "source", "a tensor", "None: a chain reads what the level before it made")
            need_shape("source", source, *x.shape)
        if weight is not None:
            weight = weight[..., None] if weight.ndim == 2 else weight
            need_shape("weight", weight, batch, length, None)
            need(weight.shape[-1] in (1, k), "weight", f"shape {tuple(weight.shape)}", f"({batch}, {length}[, {k}])")
            weight = weight.expand(-1, -1, k)
        local = self.objective == "local"
        if target is not None:
            need(not local, "target", "a tensor", "None: objective='local' makes its own values")
            need(target.shape[:2] == x.shape[:2], "target", f"shape {tuple(target.shape)}", f"({batch}, {length}, ...)")
        need(target is not None or loss is None, "loss", "a loss without a target", "both, or neither")
        levels = [replace(s) for s in state.levels]
        if not local and target is None:  # nothing is gathered: the weights and clocks stay
            return self._chain(levels, x, source)[0], CMSState(levels, state.position + length)
        events = schedule(self.periods, length, [s.clock for s in levels], nested=self.variant == "nested")
        if target is None:
            y = read_local(self, levels, events, x, source, state.position, weight)
        else:
            y = self._task(
                levels, events, x, source, state.position, target, loss or cast(Loss, self.objective), weight
            )
        new = CMSState(levels, state.position + length)
        if partial == "drop":
            for s in levels:
                s.clock, s.buffer, s.meta = 0, None, None
        return y, self._flushed(new) if partial == "flush" else new

    def _task(
        self,
        levels: list[LevelState],
        events: list[Event],
        x: Tensor,
        source: Tensor | None,
        position: int,
        target: Tensor,
        loss: Loss,
        weight: Tensor | None,
    ) -> Tensor:
        """Every level follows one loss: segments between two boundaries of *any* level are one batch."""
        pending: list[Rows] = [{} for _ in levels]
        out, done, cursor, length = [], 0, 0, x.shape[1]
        while done < length or cursor < len(events):
            end = events[cursor].time if cursor < len(events) else length
            if end > done:
                part = slice(done, end)
                y, tape = self._chain(levels, x[:, part], None if source is None else source[:, part])
                out.append(y)
                w = None if weight is None else weight[:, part]
                e = signal(y, target[:, part], loss, torch.is_grad_enabled() and not self.first_order)
                self._gather(levels, tape, e, w, pending)
                for s in levels:
                    s.clock += end - done
                done = end
            while cursor < len(events) and events[cursor].time == end:
                self.write(levels, events[cursor], pending, position + end)
                cursor += 1
        for i, s in enumerate(levels):
            settle(s, pending[i])
        return torch.cat(out, 1) if len(out) > 1 else out[0] if out else x

    # ------------------------------------------------------------------ one segment
    def _chain(self, levels: list[LevelState], x: Tensor, source: Tensor | None) -> tuple[Tensor, list]:
        """y of eq. 70 (chain) or 74 (panel), and per level what the backward pass needs."""
        h, tape = x, []
        if self.variant == "headwise":
            mix = torch.softmax(self.mix, 0)
            read = x if source is None else source
            n = rms(read) if self.mlp.norm else read
            for i, s in enumerate(levels):
                o, z, a = answer(self.mlp, s.weights, n)
                tape.append((h, n, z, a))
                h = h + mix[i] * o
            return h, tape
        for s in levels:
            n = rms(h) if self.mlp.norm else h
            y, z, a = answer(self.mlp, s.weights, n, h)
            tape.append((h, n, z, a))
            h = y
        return h, tape

    def _gather(
        self, levels: list[LevelState], tape: list, e: Tensor, weight: Tensor | None, pending: list[Rows]
    ) -> None:
        """Backpropagate the loss signal through the levels; keep rows (input, error) of each weight's gradient."""
        keep = torch.is_grad_enabled() and not self.first_order
        mix = torch.softmax(self.mix, 0) if self.variant == "headwise" else None
        for i in range(len(levels) - 1, -1, -1):
            with torch.set_grad_enabled(keep):
                h, n, z, a = tape[i] if keep else tuple(t.detach() for t in tape[i])
                w = levels[i].weights if keep else {k: v.detach() for k, v in levels[i].weights.items()}
                own = e if mix is None else mix[i] * e
                dz = back(self.mlp, w, z, a, own)
                if i and mix is None:
                    dn = dz @ w["up"]
                    if self.mlp.norm:  # d rms(h) / d h
                        inv = (h.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
                        dn = inv * (dn - n * (dn * n).mean(-1, keepdim=True))
                    e = e + dn
            add(pending[i], n, a, own, dz, None if weight is None else weight[..., i])

    # ------------------------------------------------------------------ boundaries
    def write(self, levels: list[LevelState], event: Event, pending: list[Rows], time: int) -> None:
        """An update (eq. 71) or a restart (eq. 72) of one level, after token `time` of the sequence."""
        i, s = event.level, levels[event.level]
        old = s.weights
        settle(s, pending[i])
        if event.kind == "update":
            s.clock = 0
            if s.buffer is None:
                return
            g, s.buffer = s.buffer, None
            if i in self.held:
                return
            if s.start is not None:
                s.meta = g if s.meta is None else {n: s.meta[n] + g[n] for n in g}
            scale = 1 / self.periods[i] if self.reduce == "mean" else 1.0
            new: Weights = {}
            kept: dict[str, dict[str, Tensor]] = {}
            rate, linear = self.rate(i), isinstance(self.inner, SGD)  # SGD: the scale joins the rate, one pass less
            for n, w in old.items():
                grad = g[n] if scale == 1 or linear else g[n] * scale
                new[n], kept[n] = self.inner.step(w, grad, s.inner[n], rate * scale if linear else rate)
            s.weights, s.inner, s.updates = new, kept, s.updates + 1
            reason = f"chunk of {self.periods[i]} tokens is full"
        else:
            assert s.start is not None
            if event.full:
                s.start = self._learn_start(s, self.periods[i + 1])
            s.weights, s.buffer, s.meta, s.clock = s.start, None, None, 0
            s.inner = {n: self.inner.init(w) for n, w in s.start.items()}
            s.restarts += 1
            reason = f"restart from the start that {self.names[i + 1]} owns"
        if self.write_hooks:
            change = {n: s.weights[n].detach() - old[n].detach() for n in old}
            self.wrote(self.names[i], time, {n: w.detach() for n, w in s.weights.items()}, change, reason)

    def _learn_start(self, s: LevelState, period: int) -> Weights:
        """Eq. 72, by one meta step at the end of the owner's context (FOMAML: gradients at the adapted states)."""
        assert s.start is not None
        scale = META_LR / (period if self.reduce == "mean" else 1)
        g: Weights = {}
        for part in (s.meta, s.buffer):  # the last chunk may be unfinished; its tokens count too
            for n, v in (part or {}).items():
                g[n] = g[n] + v if n in g else v
        return {n: p - scale * g[n] if n in g else p for n, p in s.start.items()}

    # ------------------------------------------------------------------ accounts
    def cost(self) -> list[dict[str, Any]]:
        """Per level: name, period, parameters, and parameters moved per token = P_l / C_l. Predicted; see
        moved_per_token."""
        size = [2 * self.dim * h for h in self.hidden]
        return [
            {"level": n, "period": c, "parameters": p, "moved_per_token": p / c}
            for n, c, p in zip(self.names, self.periods, size)
        ]

    def moved_per_token(self) -> float:
        """Sum over levels of P_l / C_l: parameters moved per token and sequence. The frozen chain has 0, plain SGD sum
        P_l."""
        return sum(r["moved_per_token"] for r in self.cost())

    def nested_components(self) -> list[Component]:
        """The levels for `nlbook.levels.levels_of`; periods in tokens."""
        out = []
        for i, (name, c, h) in enumerate(zip(self.names, self.periods, self.hidden)):
            kept = sorted(k for k, v in self.inner.init(torch.zeros(1, 2, 2)).items() if v.numel() > 1)
            mine = {k: f"{name}.{k}" for k in kept}
            out.append(
                Component(name, period=c, needs=frozenset(mine.values()), kind="fast state", size=2 * self.dim * h)
            )
            out += [Component(m, period=c, kind="optimizer state", size=2 * self.dim * h) for m in mine.values()]
            if self.variant == "nested" and i + 1 < len(self.periods):
                out.append(
                    Component(
                        f"{name}.start",
                        period=self.periods[i + 1],
                        kind="fast state",
                        size=2 * self.dim * h,
                        note=f"owned by {self.names[i + 1]}",
                    )
                )
        return out

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, hidden={self.hidden}, periods={self.periods}, variant={self.variant!r}, "
            f"reduce={self.reduce!r}"
        )


def _each(name: str, value: Any, k: int) -> list[Any]:
    many = list(value) if isinstance(value, list | tuple) else [value] * k
    need(len(many) == k, name, f"{len(many)} values", f"one, or {k} (one per level)")
    return many
