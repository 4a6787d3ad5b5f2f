"""Level diagrams of live models, every diagram that could be claimed of them, and a run that ticks (chapter 04)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from nlbook.book.chapters.levels.examples import AdaTransformerLayer, LinearAttention
from nlbook.errors import generator, need
from nlbook.levels import Component, NestedSystem, Trace, levels_of

Diagram = list[list[str]]


def five_models(length: int = 64, dim: int = 8) -> dict[str, tuple[nn.Module, torch.optim.Optimizer, int | None]]:
    """name -> (model, optimizer, tokens of one sequence between two optimizer steps, or None: count in steps)."""
    linear = nn.Linear(dim, dim, bias=False)
    attention, ada = LinearAttention(dim), AdaTransformerLayer(dim)
    block = nn.TransformerEncoderLayer(dim, 2, 2 * dim, dropout=0.0, batch_first=True)
    return {
        "linear layer, momentum": (linear, torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9), None),
        "linear layer, AdamW": (linear, torch.optim.AdamW(linear.parameters()), None),
        "linear attention, momentum": (
            attention,
            torch.optim.SGD(attention.parameters(), lr=0.1, momentum=0.9),
            length,
        ),
        "Transformer, SGD": (block, torch.optim.SGD(block.parameters(), lr=0.1), length),
        "AdaTransformer, AdamW": (ada, torch.optim.AdamW(ada.parameters()), length),
    }


SHORT = {
    "momentum_buffer": "m",
    "exp_avg": "m",
    "exp_avg_sq": "v",
    "self_attn.attention": "attention",
    "weight": "W",
    "weights": "W",
    "W_LinAttn": "M",
}


def five_systems(length: int = 64) -> dict[str, NestedSystem]:
    """`levels_of` each of the five live models, all weights of a layer joined into W, with the paper's short names."""
    out = {}
    for name, (model, optimizer, tokens) in five_models(length).items():
        s = levels_of(model, optimizer, tokens_per_step=tokens, depth=0)
        parts = [c.renamed({n: SHORT.get(n, n) for n in (c.name, *c.needs)}) for c in s.components]
        out[name] = NestedSystem(parts, s.unit)
    return out


def by_frequency(system: NestedSystem) -> Diagram:
    """The baseline: rule 1 alone, one level a frequency, the slowest first."""
    rates = sorted({c.frequency for c in system.components})  # type: ignore[type-var]
    return [[c.name for c in system.components if c.frequency == f] for f in rates]


def all_diagrams(names: Sequence[str]) -> Iterator[Diagram]:
    """Every way to put the names into ordered levels, none of them empty: 1, 3, 13, 75, 541, ... of them."""
    if not names:
        yield []
        return
    for size in range(1, len(names) + 1):
        for first in combinations(names, size):
            for rest in all_diagrams([n for n in names if n not in first]):
                yield [list(first), *rest]


@dataclass(frozen=True)
class Refusals:
    """Every diagram of a system, judged: how many there are, those accepted, and why the others were refused."""

    total: int
    accepted: list[Diagram]
    reasons: Counter[str]


def judge_all(system: NestedSystem) -> Refusals:
    """Try every diagram that could be drawn of a system's components; a refusal counts under its first reason."""
    names = [c.name for c in system.components]
    need(len(names) <= 6, "system", f"{len(names)} components", "at most 6 (7 have 47 293 diagrams)")
    total, accepted, reasons = 0, [], Counter[str]()
    for diagram in all_diagrams(names):
        total += 1
        if wrong := system.violations(diagram):
            reasons[wrong[0].kind] += 1
        else:
            accepted.append(diagram)
    return Refusals(total, accepted, reasons)


def random_system(n: int, seed: int) -> NestedSystem:
    """n components with frequencies 0, 1/4, 1 or 8 per step, and needs that never make a circle."""
    g = generator(seed)
    rates = [0, "1/4", 1, 8]
    parts = []
    for i in range(n):
        f = rates[int(torch.randint(len(rates), (), generator=g))]
        needs = {f"c{j}" for j in range(i) if float(torch.rand((), generator=g)) < 0.4}
        parts.append(Component(f"c{i}", f, needs=frozenset(needs)))  # type: ignore[arg-type]
    return NestedSystem(parts, "step")


def ticking(periods: Sequence[int] = (2, 8, 32), length: int = 64, sequences: int = 3, seed: int = 0) -> Trace:
    """Train a continuum memory with these periods and AdamW for some sequences of random pairs, every write recorded.

    One optimizer step follows each sequence of `length` tokens. Inside a sequence, the level of period C moves itself
    after every C tokens.
    """
    from nlbook.cms import CMS

    g = generator(seed)
    model = CMS(8, 16, periods, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Trace(model, optimizer, tokens_per_step=length) as trace:
        for _ in range(sequences):
            x, target = torch.randn(2, 1, length, 8, generator=g)
            y, _ = model(x, target=target)
            optimizer.zero_grad()
            (y - target).square().mean().backward()
            optimizer.step()
    return trace


def measured_periods(trace: Trace) -> dict[str, float]:
    """Tokens between two writes as the run shows them, whatever anybody declared: the one gap that all writes keep.

    A lane whose gaps differ is an error: a period would be a guess.
    """
    out = {}
    for name, times in trace.updates.items():
        gaps = {b - a for a, b in zip([0, *times], times)}
        if gaps:
            need(len(gaps) == 1, name, f"gaps {sorted(gaps)}", "one gap between all of its writes")
            out[name] = float(gaps.pop())
    return out


@dataclass(frozen=True)
class Lanes:
    """A trace with its levels as lanes, for the score of updates: parts that share a level share one."""

    levels: list[str]
    periods: dict[str, float]
    updates: dict[str, list[int]]
    signal: torch.Tensor
    length: int
    unit: str

    def as_table(self) -> str:
        """Markdown: lane, period, number of writes, time of the last."""
        head = f"| lane | every ({self.unit}s) | writes in {self.length} | last at |\n|---|---|---|---|"
        rows = [f"| {n} | {self.periods[n]:g} | {len(self.updates[n])} | {self.updates[n][-1]} |" for n in self.levels]
        return "\n".join([head, *rows])

    def _repr_markdown_(self) -> str:
        return self.as_table()

    def __repr__(self) -> str:
        told = (f"{n}: {len(self.updates[n])} writes, every {self.periods[n]:g} {self.unit}s" for n in self.levels)
        return "; ".join(told)


def lanes(trace: Trace) -> Lanes:
    """One lane a level of a recorded run, fast to slow; the signal is the norm of the level's first part."""
    assert trace.system is not None
    held, order = trace.held("state"), trace.levels
    found: dict[str, str] = {}  # lane -> its first part
    for group in reversed(trace.system.levels):
        kinds = {trace.system[n].kind for n in group}
        many = len(group) > 2 and len(kinds) == 1
        found[f"{len(group)} {kinds.pop()}s" if many else ", ".join(group)] = group[0]
    return Lanes(
        list(found),
        {n: trace.periods[first] for n, first in found.items()},
        {n: trace.updates[first] for n, first in found.items()},
        torch.stack([held[order.index(first)] for first in found.values()]),
        trace.length,
        trace.unit,
    )


@dataclass(frozen=True)
class Sweep:
    """Random systems of one seed: diagrams accepted per system, and the share in which frequency alone is enough."""

    accepted: list[int]
    by_frequency: float


def sweep(systems: int = 20, n: int = 4, seed: int = 0) -> Sweep:
    """Judge every diagram of `systems` random nested systems of n components, and the baseline's one of each."""
    drawn = [random_system(n, 1000 * seed + i) for i in range(systems)]
    return Sweep(
        [len(judge_all(s).accepted) for s in drawn], sum(not s.violations(by_frequency(s)) for s in drawn) / systems
    )
