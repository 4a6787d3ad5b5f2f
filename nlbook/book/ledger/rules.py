"""Comparisons that verdict rules are made of; pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nlbook.book.ledger.row import Results, Verdict
from nlbook.book.ledger.tables import gap, mean, spread
from nlbook.errors import need

SURE = 2.0  # standard errors of a difference that count as a difference


class Comparison(NamedTuple):
    """outcome: "better", "level" or "worse" than the best of the others, whose name is `rival`."""

    outcome: str
    rival: str
    words: str


def against_best(
    results: Results,
    ours: str,
    others: Sequence[str],
    metric: str,
    *,
    higher: bool = False,
    form: str = ".3f",
    least: float = 0.0,
) -> Comparison:
    """Compare `ours` with the best of `others` in the mean over seeds.

    A difference counts when it is more than SURE standard errors and more than `least`; otherwise the two are level.
    With no spread at all (every seed alike) any difference above `least` counts.
    """
    need(len(others) > 0, "others", others, "at least one method")
    sign = 1 if higher else -1
    rival = max(others, key=lambda m: sign * mean(results, m, metric))
    by, error = gap(results, ours, rival, metric)
    outcome = "level"
    if abs(by) > max(SURE * error, least):
        outcome = "better" if sign * by > 0 else "worse"
    words = f"{ours} {spread(results, ours, metric, form)}, {rival} {spread(results, rival, metric, form)}"
    return Comparison(outcome, rival, words)


def best_of_all(
    results: Results,
    ours: str,
    others: Sequence[str],
    metric: str,
    *,
    near: str,
    higher: bool = False,
    form: str = ".3f",
    least: float = 0.0,
    what: str = "",
) -> Verdict:
    """The rule of a claim "ours is the best": reproduced when it is better than the best of the others; partly when it
    is level with it, or worse but better than `near`, its nearest relative; else not reproduced.
    """
    c = against_best(results, ours, others, metric, higher=higher, form=form, least=least)
    close = against_best(results, ours, [near], metric, higher=higher, form=form, least=least)
    text = f"{what}{c.words}: {c.outcome}."
    if c.outcome == "better":
        return Verdict("reproduced at toy scale", text)
    if c.outcome == "level":
        return Verdict("partly", text)
    if c.rival != near:
        text += f" Against {near} ({spread(results, near, metric, form)}): {close.outcome}."
    return Verdict("partly" if close.outcome == "better" else "not reproduced", text)


def spreads(results: Results, groups: Sequence[str], metric: str, form: str = ".2f") -> str:
    """'Hope 0.10 ± 0.01, Titans 0.20 ± 0.02' in that order."""
    return ", ".join(f"{g} {spread(results, g, metric, form)}" for g in groups)
