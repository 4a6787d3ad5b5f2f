"""What a comparison is worth: the same two optimizers, judged after an equal and after an unequal search.

    a = measure("AdamW", seeds=8)             # test loss at every rate and seed, measured once
    flips(a, b, tries_a=7, tries_b=1)       # how often the rule of two standard errors says better, level, worse

Everything that is judged is drawn from measured tables, so a thousand referees cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlbook.book.chapters.optimizers.race import run
from nlbook.errors import generator, need

RATES: dict[str, tuple[float, ...]] = {  # seven each, a factor of about 3 apart
    "SGD momentum": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "AdamW": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "Muon": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}
WORST = 5.0  # nats: a run that diverged, or is worse than this, counts as this
OUTCOMES = ("better", "level", "worse")


@dataclass(frozen=True)
class Losses:
    """Losses of one method: valid (settings, seeds) on validation data, for choosing; test (settings, seeds) to report."""

    name: str
    settings: tuple[Any, ...]
    valid: Tensor
    test: Tensor


def measure(name: str, *, seeds: int = 8, steps: int = 40, width: int = 32) -> Losses:
    """Train an MLP on the digits at every rate: three seeds graded on 300 images held out from training, to choose by,
    and `seeds` others on the test images.
    """
    need(name in RATES, "name", repr(name), f"one of {', '.join(RATES)}")
    need(seeds >= 3, "seeds", seeds, "at least 3")

    def losses(validation: bool, of: range) -> Tensor:
        got = [
            [min(run(name, lr, seed=s, steps=steps, width=width, validation=validation)[1], WORST) for s in of]
            for lr in RATES[name]
        ]
        return torch.tensor(got, dtype=torch.float64)

    return Losses(name, RATES[name], losses(True, range(1000, 1003)), losses(False, range(seeds)))


def outcome(a: Tensor, b: Tensor) -> str:
    """Whether losses a are "better" than, "level" with or "worse" than losses b: means that differ by more than two
    standard errors of the difference, over seeds; the ledger's rule.
    """
    by = float(a.mean() - b.mean())
    error = math.sqrt(float(a.var()) / len(a) + float(b.var()) / len(b))
    return "level" if abs(by) <= 2 * error else "better" if by < 0 else "worse"


def settle(a: Losses, b: Losses) -> str:
    """What a fair comparison says of a: each reports its test losses at the setting that its validation losses choose."""
    return outcome(*(t.test[t.valid.mean(1).argmin()] for t in (a, b)))


def judge_once(a: Losses, b: Losses, tries_a: int, tries_b: int, *, g: torch.Generator, seeds: int = 4) -> str:
    """One referee: each method gets so many rates of its list, drawn at random, the best is chosen by validation on one
    seed, and both are graded on `seeds` seeds of their own."""
    have = min(a.test.shape[1], b.test.shape[1])
    need(2 <= seeds <= have // 2, "seeds", seeds, f"an int in 2 .. {have // 2}: the two methods share no seed")
    order, graded = torch.randperm(have, generator=g), []
    for i, (t, tries) in enumerate(((a, tries_a), (b, tries_b))):
        need(1 <= tries <= len(t.settings), "tries", tries, f"an int in 1 .. {len(t.settings)}")
        offered = torch.randperm(len(t.settings), generator=g)[:tries]
        tuning = int(torch.randint(t.valid.shape[1], (), generator=g))
        best = offered[t.valid[offered, tuning].argmin()]
        graded.append(t.test[best, order[i * seeds : (i + 1) * seeds]])
    return outcome(*graded)


def flips(
    a: Losses, b: Losses, tries_a: int, tries_b: int, *, referees: int = 1000, seed: int = 0, seeds: int = 4
) -> dict[str, float]:
    """Share of referees who find a better than, level with, or worse than b."""
    g = generator(seed)
    said = [judge_once(a, b, tries_a, tries_b, g=g, seeds=seeds) for _ in range(referees)]
    return {word: said.count(word) / referees for word in OUTCOMES}


def seeds_needed(gap: float, sd: float, errors: float = 2.0) -> float:
    """Seeds of each method from which a true difference `gap` is `errors` standard errors: errors sd sqrt(2 / n) = gap."""
    need(gap > 0 and sd > 0, "gap, sd", (gap, sd), "two numbers > 0")
    return 2 * (errors * sd / gap) ** 2


def power(gap: float, sd: float, counts: Sequence[int], *, referees: int = 4000, seed: int = 0) -> list[float]:
    """How often the rule sees a true difference `gap` between two methods whose seeds scatter by `sd`, for each number
    of seeds. With gap = 0: how often it is fooled."""
    g, out = generator(seed), []
    for n in counts:
        a, b = (sd * torch.randn(referees, n, generator=g, dtype=torch.float64) for _ in range(2))
        by = a.mean(1) - gap - b.mean(1)
        error = (a.var(1) / n + b.var(1) / n).sqrt()
        out.append(float((by.abs() > 2 * error).double().mean()))
    return out
