"""Numbers over seeds: means, spreads, and the choice of a setting by tuning runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from nlbook.book.ledger.row import Cell, Results
from nlbook.errors import NLBookError, need


def mean(results: Results, group: str, metric: str) -> float:
    """Mean over seeds."""
    return statistics.fmean(values(results, group, metric))


def sd(results: Results, group: str, metric: str) -> float:
    """Standard deviation over seeds (n - 1 in the denominator); 0 for one seed."""
    v = values(results, group, metric)
    return statistics.stdev(v) if len(v) > 1 else 0.0


def values(results: Results, group: str, metric: str) -> list[float]:
    """One number a seed; a clear error where a run is missing."""
    found = results.get(group, {}).get(metric)
    if not found:
        raise NLBookError(f"results: got no {metric!r} of {group!r}, expected one number for each seed")
    return found


def spread(results: Results, group: str, metric: str, form: str = ".3f") -> str:
    """'0.123 ± 0.010' over seeds; without a spread for one seed."""
    m = format(mean(results, group, metric), form)
    return f"{m} ± {format(sd(results, group, metric), form)}" if len(values(results, group, metric)) > 1 else m


def percent(results: Results, group: str, metric: str) -> str:
    """A share as '98.2 ± 1.1' percent over seeds."""
    return f"{100 * mean(results, group, metric):.1f} ± {100 * sd(results, group, metric):.1f}"


def gap(results: Results, a: str, b: str, metric: str) -> tuple[float, float]:
    """mean(a) - mean(b), and the standard error of that difference."""
    x, y = values(results, a, metric), values(results, b, metric)
    error = math.sqrt(sd(results, a, metric) ** 2 / len(x) + sd(results, b, metric) ** 2 / len(y))
    return statistics.fmean(x) - statistics.fmean(y), error


def try_group(method: str, choice: dict[str, Any]) -> str:
    """The name of a group of tuning cells: 'Hope @ lr=0.01'."""
    return f"{method} @ " + ", ".join(f"{k}={v}" for k, v in choice.items())


def tuning_cells(
    function: str,
    methods: dict[str, dict[str, Any]],
    choices: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    **shared: Any,
) -> list[Cell]:
    """The same choices for every method, on the tuning seeds. methods: name -> settings of its own."""
    return [
        Cell(try_group(m, choice), function, {**shared, **own, **choice, "seed": seed})
        for m, own in methods.items()
        for choice in choices
        for seed in seeds
    ]


def chosen(
    results: Results,
    method: str,
    choices: Sequence[dict[str, Any]],
    score: str | Callable[..., float],
    *,
    higher: bool = False,
) -> dict[str, Any]:
    """The choice with the best mean `score` (a metric, or a function of metric -> values) among the tuning runs; runs
    that failed do not win. The first of equals wins.
    """
    need(len(choices) > 0, "choices", choices, "at least one")

    def loss(choice: dict[str, Any]) -> float:
        found = results.get(try_group(method, choice))
        if not found:
            return math.inf
        got = statistics.fmean(found[score]) if isinstance(score, str) else score(found)
        return math.inf if math.isnan(got) else -got if higher else got

    return min(choices, key=loss)


def evaluation_cells(
    function: str,
    methods: dict[str, dict[str, Any]],
    choices: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    tuned: Results,
    score: str | Callable[..., float],
    *,
    higher: bool = False,
    **shared: Any,
) -> list[Cell]:
    """Every method at its own best choice, on seeds that tuning has not seen."""
    return [
        Cell(m, function, {**shared, **own, **chosen(tuned, m, choices, score, higher=higher), "seed": seed})
        for m, own in methods.items()
        for seed in seeds
    ]
