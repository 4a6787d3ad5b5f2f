"""Who wrote when: a recorder that any model of the book can run under.

A module that changes its own fast state inherits `Writes` and calls `self.wrote(...)` behind `if self.write_hooks:`;
with no hook attached that is one attribute look-up. Optimizers are followed through torch's own step hooks. Nothing
global.

    with Trace(model, optimizer, tokens_per_step=256) as trace:
        ...train or read...
    print(trace.as_table())
"""

from __future__ import annotations

import statistics
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nlbook.errors import need
from nlbook.levels.order import INF, Rate
from nlbook.tree import tensors

State = Any  # a tensor, or dicts, lists and tuples of tensors


def norm(state: State) -> float:
    """Frobenius norm over everything that a state holds (all sequences of a batch together)."""
    return float(sum(t.detach().double().square().sum() for t in tensors(state).values())) ** 0.5


@dataclass(frozen=True)
class Write:
    """One write. `time`: tokens since the trace began; the write comes after that token. `state`, `change`: norms."""

    level: str
    time: int
    state: float
    change: float | None
    reason: str = ""


class Writes:
    """Mixin for a module with fast state: it tells whoever listens about each of its writes.

    In the module:  `if self.write_hooks: self.wrote("memory", time, state, change, "chunk of 16 tokens is full")`
    """

    write_hooks: OrderedDict[int, Callable[..., None]] | None = None

    def register_write_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """`hook(module, level, time, state, change, reason)` runs after each write; the handle's `remove` detaches
        it.
        """
        if self.write_hooks is None:
            self.write_hooks = OrderedDict()
        handle = RemovableHandle(self.write_hooks)
        self.write_hooks[handle.id] = hook
        return handle

    def wrote(self, level: str, time: int, state: State, change: State = None, reason: str = "") -> None:
        """Report a write of `level` after token `time` of the sequence: the new state, and what was added to the old
        one.
        """
        for hook in list((self.write_hooks or {}).values()):
            hook(self, level, time, state, change, reason)


class Trace:
    """Records every write of a model's levels and of its optimizer while the `with` block runs.

    Args:
        model: any torch module; those inside it that inherit `Writes` report their fast states.
        optimizer: a torch optimizer (or several); each step writes the weights and the optimizer's state.
        tokens_per_step: tokens that one optimizer step sees: the unit of time is one token. Without it the unit is one
            optimizer step, which a model with fast states refuses.
        depth: how many parts of a parameter's name make its component's name (see `levels_of`).

    `.levels` are lanes, slow -> fast, frozen and non-parametric ones included; `.periods` and `.updates` are
    dictionaries over them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any = None,
        *,
        tokens_per_step: int | None = None,
        depth: int = 1,
    ) -> None:
        from nlbook.levels.inspect import levels_of, optimizers_of

        self.model, self.optimizers = model, optimizers_of(optimizer)
        self.system = levels_of(model, optimizer, tokens_per_step=tokens_per_step, depth=depth)
        self.unit, self.tokens_per_step, self.depth = self.system.unit, tokens_per_step, depth
        self.events: list[Write] = []
        self.start = 0  # time at which the running sequence began
        self.length = 0
        self._handles: list[Any] = []
        self._steps = 0
        self.listeners: list[Callable[[], None]] = []  # called after each write, and when the recording ends
        self.running = False

    # ------------------------------------------------------------------ attach and detach
    def __enter__(self) -> Trace:
        from nlbook.levels.inspect import moved_by

        need(not self.running, "trace", "one that is running", "one that is not")
        self.running = True
        for path, module in self.model.named_modules():
            if isinstance(module, Writes):
                self._handles.append(module.register_write_hook(self._hook(path)))
        for i, opt in enumerate(self.optimizers):
            watch, own_clock = moved_by(self.model, self.optimizers, i, self.depth)
            before: dict[str, list[Tensor]] = {}

            def pre(_opt: Any, _args: Any, _kw: Any, watch: Any = watch, before: Any = before) -> None:
                before.update({name: [t.detach().clone() for t in find()] for name, find in watch.items()})

            def post(
                opt: Any,
                _args: Any,
                _kw: Any,
                i: int = i,
                watch: Any = watch,
                before: Any = before,
                own_clock: frozenset[str] = own_clock,
            ) -> None:
                if i == 0:
                    self._steps += 1
                time = self._steps * (self.tokens_per_step or 1)
                for name, find in watch.items():
                    after, old = [t.detach() for t in find()], before.get(name, [])
                    change = [a - b for a, b in zip(after, old)] if len(old) == len(after) else after  # a new buffer
                    if name in own_clock and not any(c.any() for c in change):
                        continue
                    self._note(name, time, after, change, f"optimizer step {self._steps}")
                self.start = time if i == len(self.optimizers) - 1 else self.start

            self._handles += [opt.register_step_pre_hook(pre), opt.register_step_post_hook(post)]
        return self

    def __exit__(self, *exc: object) -> None:
        for h in self._handles:
            h.remove()
        self._handles.clear()
        self.running = False
        for tell in self.listeners:
            tell()

    def _hook(self, path: str) -> Callable[..., None]:
        def hook(_module: Any, level: str, time: int, state: State, change: State, reason: str) -> None:
            self._note(f"{path}.{level}" if path else level, self.start + time, state, change, reason)

        return hook

    def _note(self, level: str, time: int, state: State, change: State, reason: str) -> None:
        self.events.append(Write(level, time, norm(state), None if change is None else norm(change), reason))
        self.length = max(self.length, time)
        for tell in self.listeners:
            tell()

    # ------------------------------------------------------------------ read
    @property
    def levels(self) -> list[str]:
        """Lanes from slow to fast: those of `levels_of`, then what else was written, by measured period."""
        lanes = [n for names in self.system.levels for n in names]
        seen = dict.fromkeys(e.level for e in self.events)
        extra = sorted((n for n in seen if n not in lanes), key=lambda n: -float(self._period(n)))
        rates = {n: float(self._period(n)) for n in [*lanes, *extra]}
        for n in extra:
            lanes.insert(next((i for i, lane in enumerate(lanes) if rates[lane] < rates[n]), len(lanes)), n)
        return lanes

    def _period(self, level: str) -> Rate:
        """Declared where known, else the median gap between two writes."""
        known = next((c.period for c in self.system.components if c.name == level), None)
        if known is not None:
            return known
        times = [e.time for e in self.events if e.level == level]
        gaps = [b - a for a, b in zip([0, *times], times) if b > a]
        return float(statistics.median(gaps)) if gaps else INF

    @property
    def periods(self) -> dict[str, float]:
        """Units of time between two writes: declared where known, else the median gap; 0 non-parametric, inf frozen."""
        return {n: float(self._period(n)) for n in self.levels}

    @property
    def updates(self) -> dict[str, list[int]]:
        """Times of the writes of every lane (empty for frozen and non-parametric ones)."""
        out: dict[str, list[int]] = {n: [] for n in self.levels}
        for e in self.events:
            out[e.level].append(e.time)
        return out

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a lane: name, period, writes, expected (length // period), first, last, state, change,
        reason.
        """
        out = []
        for n in self.levels:
            own = [e for e in self.events if e.level == n]
            p = float(self._period(n))
            changes = [e.change for e in own if e.change is not None]
            out.append(
                {
                    "level": n,
                    "period": p,
                    "writes": len(own),
                    "expected": 0 if p in (0.0, INF) else int(self.length // p),
                    "first": own[0].time if own else None,
                    "last": own[-1].time if own else None,
                    "state": own[-1].state if own else None,
                    "change": sum(changes) / len(changes) if changes else None,
                    "reason": own[-1].reason if own else "no state to write" if p == 0 else "never written",
                }
            )
        return out

    def as_table(self) -> str:
        """Markdown: which level wrote, how often, when last, by how much and why. Slowest level first."""

        def cell(v: Any) -> str:
            return "-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v)

        names = (
            "lane",
            f"every ({self.unit}s)",
            f"writes in {self.length}",
            "last at",
            "norm of state",
            "mean norm of change",
            "why",
        )
        lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
        for r in self.rows():
            keys = ("period", "writes", "last", "state", "change", "reason")
            cells = [f"`{r['level']}`", *(cell(r[k]) for k in keys)]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        return self.as_table()
