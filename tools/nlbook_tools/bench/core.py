"""Interleaved timing. A ratio of medians measured side by side survives a noisy machine better than a time does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nlbook.errors import need


@dataclass(frozen=True)
class Row:
    """Seconds of one contestant: median, and the 20 % and 80 % quantiles of its rounds."""

    name: str
    median: float
    low: float
    high: float
    ratio: float  # median of the round-by-round ratios to the baseline: above 1 is slower


@dataclass(frozen=True)
class Report:
    """What `compare` measured. `aim` is the ratio an issue or a claim asks for, shown beside it and never enforced."""

    title: str
    baseline: str
    rows: list[Row]
    aims: dict[str, float] = field(default_factory=dict)
    note: str = ""
    facts: dict = field(default_factory=dict)  # numbers behind the note, for --json

    def __getitem__(self, name: str) -> Row:
        return next(r for r in self.rows if r.name == name)

    def table(self) -> str:
        wide = max(len(r.name) for r in self.rows)
        lines = [self.title, f"  {'':{wide}}    median  [20 %, 80 %] ms      ratio to {self.baseline}"]
        for r in self.rows:
            aim = f"   (aim: <= {self.aims[r.name]:g})" if r.name in self.aims else ""
            lines.append(
                f"  {r.name:{wide}} {1e3 * r.median:9.2f}  [{1e3 * r.low:.2f}, {1e3 * r.high:.2f}]"
                f"{'':4}{r.ratio:8.3f}{aim}"
            )
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])

    def as_dict(self) -> dict:
        return {
            "title": self.title,
            "baseline": self.baseline,
            "note": self.note,
            "aims": self.aims,
            "facts": self.facts,
            "rows": [vars(r) for r in self.rows],
        }


def compare(
    contestants: dict[str, Callable[[], object]],
    baseline: str,
    *,
    title: str = "",
    rounds: int = 15,
    warmup: int = 2,
    aims: dict[str, float] | None = None,
    note: str = "",
    clock: Callable[[], float] = time.process_time,
    sync: Callable[[], object] | None = None,
) -> Report:
    """Time callables in turn, round by round, and report each one's ratio to `baseline`.

    Args:
        contestants: name -> callable without arguments; each is called once a round.
        baseline: the name whose time is the unit.
        rounds: measured rounds (after `warmup` unmeasured ones).
        clock: seconds; CPU seconds of this process by default, since other people share the machine.
        sync: called before the clock is read (`torch.cuda.synchronize` on a GPU, with `clock=time.perf_counter`).
    """
    need(baseline in contestants, "baseline", repr(baseline), f"one of {sorted(contestants)}")
    need(rounds >= 1, "rounds", rounds, "at least 1")
    sync = sync or (lambda: None)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(warmup + rounds):
        for name, fn in contestants.items():
            sync()
            start = clock()
            fn()
            sync()
            if i >= warmup:
                times[name].append(clock() - start)
    rows = []
    for name, t in times.items():
        q = statistics.quantiles(t, n=5) if len(t) > 1 else [t[0]] * 4
        ratio = statistics.median(a / max(b, 1e-12) for a, b in zip(t, times[baseline], strict=True))
        rows.append(Row(name, statistics.median(t), q[0], q[3], ratio))
    return Report(title or f"against {baseline}", baseline, rows, aims or {}, note)
