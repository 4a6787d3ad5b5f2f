"""What a continuum memory system carries from call to call, and the clockwork of its levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from nlbook.errors import need, need_int
from nlbook.tree import Tree

Weights = dict[str, Tensor]


class Event(NamedTuple):
    """At `time` (tokens from the beginning of the call), level `level` is updated, or restarts from its start state.

    A restart is `full` when the owner's context had its whole length; only then does the start state learn from it.
    """

    time: int
    level: int
    kind: str  # "update" | "restart"
    full: bool = True


def schedule(
    periods: Sequence[int],
    length: int,
    clocks: Sequence[int] | None = None,
    *,
    nested: bool = False,
) -> list[Event]:
    """Which level does what when, in the next `length` tokens.

    Args:
        periods: tokens per chunk of each level. clocks: tokens that each has gathered already.
        nested: level i restarts whenever its owner, level i + 1, is updated or restarts; its own chunk then begins
            anew, so that floor(C_owner / C) full updates fit (the paper says ceil).

    >>> [(e.time, e.level) for e in schedule((2, 3), 6)]
    [(2, 0), (3, 1), (4, 0), (6, 0), (6, 1)]
    """
    for i, period in enumerate(periods):
        need_int(f"periods[{i}]", period)
    need_int("length", length, 0)
    clock, time, events = list(clocks or [0] * len(periods)), 0, []
    begun = len(clock) == len(periods) and all(0 <= k < c for k, c in zip(clock, periods))
    need(begun and bool(clock), "clocks", clock, f"one number of tokens below each period of {list(periods)}")
    while time < length:
        n = min(*(c - k for c, k in zip(periods, clock)), length - time)
        time += n
        clock = [k + n for k in clock]
        ends = [k == c for k, c in zip(clock, periods)]
        events += [Event(time, i, "update") for i, e in enumerate(ends) if e]
        clock = [0 if e else k for k, e in zip(clock, ends)]
        if nested:
            broken = False  # did the owner restart before its chunk was full?
            for i in range(len(periods) - 2, -1, -1):
                if ends[i + 1] or broken:
                    events.append(Event(time, i, "restart", ends[i + 1]))
                    clock[i], broken = 0, True
                else:
                    broken = False
    return events


@dataclass
class LevelState(Tree):
    """One level: its present weights and whatever it has gathered since its last boundary.

    Tensors of `weights`, `buffer`, `start` and `meta` have a leading axis of sequences (1 when shared).
    """

    weights: Weights
    clock: int = 0  # tokens since the last boundary of this level
    buffer: Weights | None = None  # sum of gradients over those tokens; None is zero
    inner: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # the inner optimizer's state, per weight
    start: Weights | None = None  # nested: where it restarts; moved by its owner
    meta: Weights | None = None  # nested: sum of gradients since the owner's last boundary
    updates: int = 0
    restarts: int = 0


@dataclass
class CMSState(Tree):
    """State of a CMS: its levels (in the order of application) and the number of tokens read so far."""

    levels: list[LevelState]
    position: int = 0

    def moved_per_token(self) -> float:
        """Parameters moved per token and sequence so far, counted: sum over levels of updates * size / tokens."""
        size = [sum(w[0].numel() for w in s.weights.values()) for s in self.levels]
        return sum(s.updates * p for s, p in zip(self.levels, size)) / max(1, self.position)
