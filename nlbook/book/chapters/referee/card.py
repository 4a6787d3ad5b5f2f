"""The last page of chapter 08: one claim, tested, on a card. A card is plain data; `review` says what is missing or wrong.

    mine = card.blank()
    mine["claim"] = "..."
    card.review(mine)                       # every problem: which field, what came, what was expected
    card.review(mine, decide=my_rule)       # besides: does the verdict follow from the numbers by the rule?

What can be checked is form and consistency: that the rule has thresholds, that budgets are equal, that seeds are not
used twice, that a verdict follows. Whether the claim was worth testing is for the reader.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from nlbook.book.check.show import GREEN, GREY, ORANGE, Shown, box, rows_html
from nlbook.book.ledger.verdicts import WORDS
from nlbook.errors import need

SOURCE = re.compile(r"\b(eq|sec|section|table|fig|figure|definition|appendix|algorithm|abstract)s?\b\.?", re.IGNORECASE)
LEAST_SEEDS = 3
FIELDS: dict[str, str] = {
    "claim": "what the paper says, one sentence",
    "source": "where it says it, such as 'Table 6' or 'Eq. 57'",
    "prediction": "what you expect, written before the run",
    "metric": "{'name': ..., 'better': 'lower' or 'higher'}",
    "ours": "the name of the method that the claim is about",
    "baseline": "{name: why it is the strongest simple rival}",
    "control": "{what is run: what must come out if the experiment is sound}",
    "budget": "{method: settings tried}, the same number for all",
    "seeds": "{'tuning': [...], 'test': [...]}, no seed in both, at least 3 to test",
    "rule": "{verdict: when}, for 'reproduced at toy scale', 'partly' and 'not reproduced', with numbers",
    "result": "{method: [one number for each test seed]}",
    "verdict": "one of " + ", ".join(WORDS),
    "limits": "[what this does not show], at least two",
}


def blank() -> dict[str, Any]:
    """A card with nothing on it: a key for each field."""
    return {name: None for name in FIELDS}


class Review(Shown):
    """What is missing on a card (`.missing`), what is wrong (`.problems`), whether it may go to the ledger (`.ok`)."""

    def __init__(self, missing: list[str], problems: list[str], card: Mapping[str, Any]) -> None:
        self.missing, self.problems, self.card = missing, problems, card

    @property
    def ok(self) -> bool:
        return not self.missing and not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def head(self) -> str:
        if self.ok:
            return f"The card is complete and consistent: {self.card['source']}, {self.card['verdict']}."
        if len(self.missing) == len(FIELDS):
            return f"A blank card: {len(FIELDS)} fields to fill."
        parts = [f"{len(self.missing)} of {len(FIELDS)} fields are empty"] * bool(self.missing)
        parts += [f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}"] * bool(self.problems)
        return f"Not yet: {', '.join(parts)}."

    def text(self) -> str:
        lines = [self.head(), *(f"  - {p}" for p in self.problems)]
        return "\n".join(lines + [f"  {name}: {FIELDS[name]}" for name in self.missing])

    def html(self) -> str:
        color = GREEN if self.ok else GREY if len(self.missing) == len(FIELDS) else ORANGE
        found = "".join(f"<li>{escape(p)}</li>" for p in self.problems)
        return box(
            color,
            f"<strong>{escape(self.head())}</strong>"
            + (f"<ul>{found}</ul>" if found else "")
            + rows_html((name, FIELDS[name]) for name in self.missing),
            label="review of your card",
        )


def review(filled: Mapping[str, Any], decide: Callable[[Mapping[str, list[float]]], str] | None = None) -> Review:
    """Review a card.

    decide: your rule as a function, result -> verdict; the card's verdict must be what it returns.
    """
    need(isinstance(filled, Mapping), "card", type(filled).__name__, "a dict with the fields of card.blank()")
    need(decide is None or callable(decide), "decide", type(decide).__name__, "a function: result -> verdict")
    missing = [name for name in FIELDS if _empty(filled.get(name))]
    problems = [
        f"{name!r} is no field of a card; the fields are {', '.join(FIELDS)}" for name in filled if name not in FIELDS
    ]
    found = {name: check(filled[name]) for name, check in CHECKS.items() if name not in missing}
    problems += [f"{name}: {p}" for name, told in found.items() for p in told]
    wrong = {name for name, told in found.items() if told}
    sound = set(FIELDS) - set(missing) - wrong
    problems += _together(filled, sound)
    if decide is not None and {"result", "verdict"} <= sound:
        problems += _follows(filled, decide)
    return Review(missing, problems, filled)


def _empty(x: Any) -> bool:
    return x is None or x == "" or x == {} or x == [] or (isinstance(x, str) and not x.strip())


def _came(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 60 else text[:57] + "..."


def _sentence(x: Any, least: int) -> list[str]:
    if not isinstance(x, str):
        return [f"got {_came(x)}, expected a sentence"]
    return [] if len(x.split()) >= least else [f"got {_came(x)}, expected a sentence of at least {least} words"]


def _source(x: Any) -> list[str]:
    good = isinstance(x, str) and SOURCE.search(x)
    return [] if good else [f"got {_came(x)}, expected a place such as 'Table 6', 'Fig. 8', 'Eq. 57' or 'Section 7.1'"]


def _metric(x: Any) -> list[str]:
    if not isinstance(x, Mapping) or not isinstance(x.get("name"), str) or not x["name"].strip():
        return [f"got {_came(x)}, expected {FIELDS['metric']}"]
    return (
        []
        if x.get("better") in ("lower", "higher")
        else [f"'better' is {_came(x.get('better'))}, expected 'lower' or 'higher'"]
    )


def _named(x: Any) -> list[str]:
    if not isinstance(x, Mapping):
        return [f"got {_came(x)}, expected names with a reason each, such as {{'MLP': 'same size, no levels'}}"]
    return [
        f"{k!r} has {_came(v)}, expected a reason of at least three words"
        for k, v in x.items()
        if not (isinstance(v, str) and len(v.split()) >= 3)
    ]


def _budget(x: Any) -> list[str]:
    if not isinstance(x, Mapping) or not all(type(n) is int and n >= 1 for n in x.values()):
        return [f"got {_came(x)}, expected {{method: settings tried}} with whole numbers of at least 1"]
    if len(set(x.values())) > 1:
        most, least = max(x, key=lambda m: x[m]), min(x, key=lambda m: x[m])
        return [
            f"{most} was tried with {x[most]} settings and {least} with {x[least]}: expected the same number for "
            f"all; with unequal searches a method beats itself"
        ]
    return []


def _seeds(x: Any) -> list[str]:
    lists = [x.get(k) for k in ("tuning", "test")] if isinstance(x, Mapping) else [None]
    if not all(isinstance(v, (list, tuple)) and all(isinstance(s, int) for s in v) for v in lists):
        return [f"got {_came(x)}, expected {FIELDS['seeds']}"]
    tuning, test = set(lists[0] or ()), set(lists[1] or ())
    both = sorted(tuning & test)
    found = [f"seed {both[0]} is used for tuning and for the test: expected no seed in both"] if both else []
    if len(test) < LEAST_SEEDS:
        found.append(f"got {len(test)} seeds to test with, expected at least {LEAST_SEEDS}")
    return found


def _rule(x: Any) -> list[str]:
    if not isinstance(x, Mapping) or not all(isinstance(v, str) for v in x.values()):
        return [f"got {_came(x)}, expected {{verdict: when, in words}}"]
    found = [f"{k!r} is no verdict, expected some of {', '.join(WORDS)}" for k in x if k not in WORDS]
    if len([k for k in x if k in WORDS]) < 2:
        return [*found, "got one outcome, expected at least two: a rule that cannot say no decides nothing"]
    if WORDS[3] not in x:
        found.append(f"says nothing of {WORDS[3]!r}: expected the case in which the claim fails")
    if not any(re.search(r"\d", v) for v in x.values()):
        found.append("has no number, expected a threshold: by how much must it be better?")
    return found


def _result(x: Any) -> list[str]:
    if not isinstance(x, Mapping) or not all(isinstance(v, (list, tuple)) and v for v in x.values()):
        return [f"got {_came(x)}, expected {FIELDS['result']}"]
    bad = {k: n for k, v in x.items() for n in v if not isinstance(n, (int, float)) or not math.isfinite(n)}
    return [
        f"{k} has {_came(n)}, expected finite numbers (a run that diverged gets the worst value, and is counted)"
        for k, n in bad.items()
    ]


def _limits(x: Any) -> list[str]:
    if not isinstance(x, (list, tuple)) or not all(isinstance(v, str) for v in x):
        return [f"got {_came(x)}, expected a list of sentences"]
    found = [] if len(x) >= 2 else [f"got {len(x)}, expected at least two: scale, and what else could explain it"]
    return found + [f"{_came(v)} is too short, expected a sentence" for v in x if len(v.split()) < 4]


def _together(c: Mapping[str, Any], sound: set[str]) -> list[str]:
    """What only two fields together can get wrong."""
    found: list[str] = []
    if {"ours", "baseline"} <= sound and c["ours"] in c["baseline"]:
        found.append(f"baseline: {c['ours']!r} is the method itself, expected a rival")
    methods = ({c["ours"]} | set(c["baseline"])) if {"ours", "baseline"} <= sound else set()
    for name in ("budget", "result"):
        if methods and name in sound and (left := sorted(methods - set(c[name]))):
            found.append(f"{name}: has no {', '.join(left)}, expected every method that is compared")
    if {"seeds", "result"} <= sound:
        n = len(set(c["seeds"]["test"]))
        found += [
            f"result: {m} has {len(v)} numbers, expected {n}, one for each test seed"
            for m, v in c["result"].items()
            if len(v) != n
        ]
    if {"rule", "verdict"} <= sound and c["verdict"] not in c["rule"]:
        found.append(f"verdict: {c['verdict']!r} has no line in the rule, expected one of {', '.join(c['rule'])}")
    return found


def _follows(c: Mapping[str, Any], decide: Callable[[Mapping[str, list[float]]], str]) -> list[str]:
    given = json.loads(json.dumps(c["result"]))
    try:
        word = decide(given)
        again = decide(dict(reversed(given.items())))
    except Exception as error:
        return [f"decide: failed on your result with {type(error).__name__}: {error}"]
    if word != again:
        return [f"decide: says {word!r}, and {again!r} when the methods stand in another order"]
    return [] if word == c["verdict"] else [f"verdict: the card says {c['verdict']!r}, your rule says {_came(word)}"]


CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "claim": lambda x: _sentence(x, 5),
    "prediction": lambda x: _sentence(x, 4),
    "source": _source,
    "metric": _metric,
    "ours": lambda x: [] if isinstance(x, str) else [f"got {_came(x)}, expected a name"],
    "baseline": _named,
    "control": _named,
    "budget": _budget,
    "seeds": _seeds,
    "rule": _rule,
    "result": _result,
    "verdict": lambda x: [] if x in WORDS else [f"got {_came(x)}, expected one of {', '.join(WORDS)}"],
    "limits": _limits,
}
