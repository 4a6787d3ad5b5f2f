"""Table 5: formal languages."""

from __future__ import annotations

from typing import Any

from nlbook.book.ledger.plan import SEEDS, TUNING_SEEDS, named
from nlbook.book.ledger.row import Cell, Results, Verdict, row
from nlbook.book.ledger.tables import chosen, mean, percent, tuning_cells

FUNCTION = "nlbook.book.ledger.runs.formal:race"
HOPE = "Hope, token by token"
METHODS = named(("LSTM", "Transformer", "delta rule", "delta rule, rate to 2", HOPE, "Hope, chunks of 16"))
METHODS["LSTM"] |= {"more": 5}
LANGUAGES = {
    "parity": "parity",
    "aa": "(aa)*",
    "abab": "(abab)*",
    "anbn": "a^n b^n",
    "anbncn": "a^n b^n c^n",
    "shuffle2": "shuffle-2",
}
REGULAR, COUNTERS = ("parity", "aa", "abab"), ("anbn", "anbncn", "shuffle2")
RATES: dict[str, list[dict[str, Any]]] = {
    "quick": [{"lr": 0.01}, {"lr": 0.02}],
    "full": [{"lr": 0.003}, {"lr": 0.01}, {"lr": 0.02}],
}
SIZE: dict[str, dict[str, Any]] = {"quick": {"steps": 200, "longest": 10}, "full": {"steps": 1500, "longest": 20}}
CONTROLS = ("delta rule", "Hope, chunks of 16")  # run on the regular languages only
KNOWN = 0.95  # share of words right with which a language counts as recognised


def tuning(profile: str) -> list[Cell]:
    return tuning_cells(FUNCTION, METHODS, RATES[profile], TUNING_SEEDS[profile], language="parity", **SIZE[profile])


def both(found: dict[str, list[float]]) -> float:
    """What tuning looks at: both bins, and the steps that it took as a tie-breaker."""
    return -(sum(found["bin0"]) + sum(found["bin1"])) / len(found["bin0"]) + 1e-6 * sum(found["steps"])


def cells(profile: str, tuned: Results) -> list[Cell]:
    out = []
    for method, own in METHODS.items():
        rate = chosen(tuned, method, RATES[profile], both)
        out += [
            Cell(
                f"{method}: {language}", FUNCTION, {**SIZE[profile], **own, **rate, "language": language, "seed": seed}
            )
            for language in (REGULAR if method in CONTROLS else LANGUAGES)
            for seed in SEEDS[profile]
        ]
    return out


def known(r: Results, method: str, languages: tuple[str, ...], bin: str) -> list[str]:
    """The languages that a method recognises on average over seeds."""
    return [x for x in languages if mean(r, f"{method}: {x}", bin) >= KNOWN]


def judge(r: Results) -> Verdict:
    every = (*REGULAR, *COUNTERS)
    hope = {b: known(r, HOPE, every, b) for b in ("bin0", "bin1")}
    attention = {b: known(r, "Transformer", REGULAR, b) for b in ("bin0", "bin1")}
    regular = [x for x in REGULAR if x in hope["bin1"]]
    words = (
        f"Hope, token by token, recognises {len(hope['bin0'])} of 6 languages at the lengths of training and {len(hope['bin1'])} of 6 "
        f"at up to twice the length ({', '.join(LANGUAGES[x] for x in hope['bin1']) or 'none'}); in chunks of 16 tokens it recognises "
        f"{len(known(r, 'Hope, chunks of 16', REGULAR, 'bin0'))} and {len(known(r, 'Hope, chunks of 16', REGULAR, 'bin1'))} of the 3 regular ones. Transformer: "
        f"{len(known(r, 'Transformer', every, 'bin0'))} and {len(known(r, 'Transformer', every, 'bin1'))}; LSTM "
        f"{len(known(r, 'LSTM', every, 'bin0'))} and {len(known(r, 'LSTM', every, 'bin1'))}; delta rule with rates to 2 "
        f"{len(known(r, 'delta rule, rate to 2', every, 'bin0'))} and {len(known(r, 'delta rule, rate to 2', every, 'bin1'))}."
    )
    if len(hope["bin0"]) == len(hope["bin1"]) == 6 and not attention["bin1"]:
        return Verdict("reproduced at toy scale", words)
    return Verdict("partly" if len(regular) > len(attention["bin1"]) else "not reproduced", words)


def our_rows(r: Results) -> tuple[list[str], list[list[str]]]:
    """The paper's layout: a method a row, two bins a language, percent."""
    head = ["", *(f"{name} {b}" for name in LANGUAGES.values() for b in ("Bin0", "Bin1"))]
    rows = [
        [m, *(percent(r, f"{m}: {x}", b) if f"{m}: {x}" in r else "" for x in LANGUAGES for b in ("bin0", "bin1"))]
        for m in METHODS
    ]
    return head, rows


ROWS = [row("table5", tuning=tuning, cells=cells, judge=judge, table=our_rows)]
