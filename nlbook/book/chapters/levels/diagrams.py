"""Levels of live models, and every level diagram that could be claimed of them (chapter 04)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from nlbook.book.chapters.levels.examples import AdaTransformerLayer, LinearAttention
from nlbook.errors import need
from nlbook.levels import NestedSystem, levels_of

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


def on_the_axis(length: int = 33) -> dict[str, NestedSystem]:
    """A Transformer and a layer with a fast memory, in training by AdamW, one document a step, and in use."""
    models = five_models(length)
    out = {}
    for name, key in (("Transformer", "Transformer, SGD"), ("with a fast memory", "AdaTransformer, AdamW")):
        model = models[key][0]
        for when, optimizer in (("in training", torch.optim.AdamW(model.parameters())), ("in use", None)):
            s = levels_of(model, optimizer, tokens_per_step=length, depth=0)
            words = {**SHORT, "weights": "weights", "W_init": "start", "W_LinAttn": "state"}
            parts = [c.renamed({n: words.get(n, n) for n in (c.name, *c.needs)}) for c in s.components]
            out[f"{name}, {when}"] = NestedSystem(parts, s.unit)
    return out


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
