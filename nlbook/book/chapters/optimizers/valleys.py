"""The bent valley of Fig. 4 (eq. 53), and a fair sweep of momentum rules over many of them.

The paper gives neither the valley's constants nor step sizes, so a single picture of it proves nothing. `sweep` runs
every rule on many valleys, rates and brakes at once, and says how often a rule needs fewer steps than a heavy ball that
was tuned with the same number of settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from nlbook.errors import need

START = (-3.5, 2.0)  # where Fig. 4 starts
TOLERANCE = 1e-4  # psi below it has arrived
RULES = ("heavy ball", "bounded", "clipped", "implicit", "row", "column", "printed")


class Valley(NamedTuple):
    """psi(r, theta) = r^2 + k (r - theta + alpha sin(omega r))^2 (eq. 53): a bent valley, minimum 0 at (0, 0).

    The fields may be tensors that broadcast: one valley a cell of a sweep.
    """

    k: float | Tensor = 5.0
    alpha: float | Tensor = 1.0
    omega: float | Tensor = 2.0

    def value(self, r: Tensor, theta: Tensor) -> Tensor:
        return r * r + self.k * (r - theta + self.alpha * torch.sin(self.omega * r)).square()

    def gradient(self, r: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        e = r - theta + self.alpha * torch.sin(self.omega * r)
        return 2 * r + 2 * self.k * e * (1 + self.alpha * self.omega * torch.cos(self.omega * r)), -2 * self.k * e


VALLEYS = tuple(Valley(*v) for v in product((1.0, 5.0, 10.0), (0.5, 1.0, 2.0), (1.0, 3.0, 6.0)))  # 27 of them
RATES = tuple(10.0**x for x in (-4, -3.5, -3, -2.75, -2.5, -2.25, -2, -1.75, -1.5, -1.25, -1, -0.5, 0))  # 13


def momentum_rule(
    rule: str,
    m: tuple[Tensor, Tensor],
    g: tuple[Tensor, Tensor],
    lr: Tensor | float,
    keep: Tensor | float,
    erase: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """The momentum of a two-dimensional parameter after one gradient (eq. 33 and 49 on vectors), for many cells at
    once.

    Args:
        rule: "heavy ball"; "bounded", "clipped", "implicit" as in `nlbook.optim.DeltaMomentum`; "row" is its
            "corrected", (keep I - erase g g^T) m; "column" the other reading of eq. 49 for a vector, (keep - erase
            |g|^2) m; "printed" (keep - |g|^2) m.
        m, g: momentum and gradient, both as (r part, theta part).
    """
    n = g[0] * g[0] + g[1] * g[1]
    if rule == "row":
        along = m[0] * g[0] + m[1] * g[1]
        return (keep * m[0] - erase * along * g[0] - lr * g[0], keep * m[1] - erase * along * g[1] - lr * g[1])
    write: Tensor | float = lr
    hold: Tensor | float = keep
    if rule == "bounded":
        hold = keep * torch.exp(-erase * n)
    elif rule == "clipped":
        hold = (keep - erase * n).clamp(min=0)
    elif rule == "implicit":
        hold, write = keep / (1 + erase * n), lr / (1 + erase * n)
    elif rule == "column":
        hold = keep - erase * n
    elif rule == "printed":
        hold = keep - n
    elif rule != "heavy ball":
        need(False, "rule", repr(rule), f"one of {', '.join(map(repr, RULES))}")
    return hold * m[0] - write * g[0], hold * m[1] - write * g[1]


class Descent(NamedTuple):
    """A run on the valley. `steps`: the step from which psi stays below TOLERANCE, or `inf` for never."""

    steps: Tensor  # (...) float64
    path: Tensor  # (length + 1, ..., 2) positions (r, theta), if asked for; else empty


def descend(
    valley: Valley,
    rule: str,
    *,
    lr: Tensor | float,
    keep: Tensor | float = 0.9,
    erase: Tensor | float | None = None,
    start: tuple[float, float] = START,
    length: int = 1000,
    path: bool = False,
) -> Descent:
    """Run a rule on a valley, or on a whole grid of cells that broadcast against each other, in float64.

    Args:
        lr, keep, erase: numbers or tensors; `erase=None` means lr (the corrected eq. 49).
        path: keep every position (for pictures).

    A cell whose position leaves a ball of radius 1e6 has diverged and never arrives.
    """
    need(rule in RULES, "rule", repr(rule), f"one of {', '.join(map(repr, RULES))}")
    f64 = [torch.as_tensor(x, dtype=torch.float64) for x in (*valley, lr, keep, lr if erase is None else erase)]
    k, alpha, omega, lr, keep, erase = (x.contiguous() for x in torch.broadcast_tensors(*f64))
    here = Valley(k, alpha, omega)
    r, theta = torch.full_like(k, start[0]), torch.full_like(k, start[1])
    m = (torch.zeros_like(k), torch.zeros_like(k))
    since = torch.full_like(k, math.inf)
    lost = torch.zeros_like(k, dtype=torch.bool)
    track = [torch.stack([r, theta], -1)] if path else []
    for t in range(1, length + 1):
        m = momentum_rule(rule, m, here.gradient(r, theta), lr, keep, erase)
        r, theta = r + m[0], theta + m[1]
        lost |= ~((r.abs() < 1e6) & (theta.abs() < 1e6))
        if lost.any():  # park diverged cells far away, so that nothing overflows
            r, theta = torch.where(lost, 1e6, r), torch.where(lost, 1e6, theta)
            m = (torch.where(lost, 0.0, m[0]), torch.where(lost, 0.0, m[1]))
        near = (here.value(r, theta) < TOLERANCE) & ~lost
        since = torch.where(near, since.clamp(max=t), math.inf)
        if path:
            track.append(torch.stack([r, theta], -1))
    return Descent(since, torch.stack(track) if path else torch.empty(0, dtype=torch.float64))


@dataclass(frozen=True)
class Sweep:
    """Fewest steps of each rule on each valley, over all its settings."""

    rules: tuple[str, ...]
    best: Tensor  # (rules, valleys) float64, inf where no setting arrives
    settings: dict[str, int]  # how many settings (rate, retention, brake) each rule was given

    def arrives(self, rule: str) -> int:
        """On how many valleys at least one setting arrives."""
        return int(self.best[self.rules.index(rule)].isfinite().sum())

    def faster(self, rule: str, than: str = "heavy ball", margin: float = 0.0) -> int:
        """On how many valleys `rule` needs fewer steps, by more than the share `margin`."""
        a, b = self.best[self.rules.index(rule)], self.best[self.rules.index(than)]
        return int((a < (1 - margin) * b).sum())

    def ratio(self, rule: str, than: str = "heavy ball") -> float:
        """Median ratio of steps over the valleys that both solve; nan if there are none."""
        a, b = self.best[self.rules.index(rule)], self.best[self.rules.index(than)]
        both = a.isfinite() & b.isfinite()
        return float((a[both] / b[both]).median()) if both.any() else math.nan


def sweep(
    rules: Iterable[str] = RULES,
    valleys: Iterable[Valley] = VALLEYS,
    *,
    rates: Iterable[float] = RATES,
    keeps: Iterable[float] = (0.9,),
    erases: Iterable[float] | None = None,
    length: int = 4000,
    start: tuple[float, float] = START,
) -> Sweep:
    """The fewest steps of every rule on every valley, over a grid of settings (eq. 53, Fig. 4).

    Args:
        erases: strengths of the brake; None ties the brake to the rate (the corrected eq. 49 has one eta). Rules that
            have no brake get as many settings, by refining their rates geometrically.
    """
    rules, valleys, rates, keeps = tuple(rules), tuple(valleys), tuple(rates), tuple(keeps)
    brakes = None if erases is None else tuple(erases)
    land = Valley(*(torch.tensor([v[i] for v in valleys], dtype=torch.float64)[:, None] for i in range(3)))
    best, settings = [], {}
    for rule in rules:
        braked = brakes is not None and rule not in ("heavy ball", "printed")
        here = rates
        if brakes is not None and not braked:
            low, high = math.log(min(rates)), math.log(max(rates))
            n = len(rates) * len(brakes)
            here = tuple(math.exp(low + (high - low) * i / (n - 1)) for i in range(n))
        cells = list(product(here, keeps, brakes if braked and brakes is not None else (math.nan,)))
        lr, keep, erase = torch.tensor(cells, dtype=torch.float64).mT
        run = descend(land, rule, lr=lr, keep=keep, erase=erase if braked else lr, length=length, start=start)
        best.append(run.steps.min(-1).values)
        settings[rule] = len(cells)
    return Sweep(rules, torch.stack(best), settings)
