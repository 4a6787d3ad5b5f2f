"""Every registered exercise: its solution passes, its stub does not, its mutants are refused, right answers accepted.

Chapter writers add exercises.py and answers.py to their chapter's folder; nothing here changes.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from nlbook.book.check import registry
from nlbook.book.check.questions import Prediction, Question
from nlbook.book.check.testing import GENERIC, assert_accepts, assert_refuses, check_definition, needed, table

EXERCISES = registry.all_exercises()
QUESTIONS, PREDICTIONS = registry.items(Question), registry.items(Prediction)
SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "src"
ids = {"ids": lambda item: item.id}


def answers(item, name):
    return getattr(table(item.chapter), name).get(item.id, {})


@pytest.mark.parametrize("item", EXERCISES, **ids)
def test_definition(item):
    assert check_definition(item) == []


@pytest.mark.parametrize("item", EXERCISES, **ids)
def test_wrong_answers_are_refused(item):
    mutants, least = answers(item, "MUTANTS"), needed(item)[0]
    assert len(mutants) >= least, f"answers of chapter {item.chapter}: {item.id}: {len(mutants)} mutants of {least}"
    results = assert_refuses(item.id, mutants)
    named = getattr(item, "misconceptions", ()) or getattr(item, "wrong", ()) or not mutants
    assert named or any(r.reason not in GENERIC for r in results.values()), "every message is the generic one"
    told = [name for name, r in results.items() if r.reason == "misconception"]
    assert not told, f"the definition tries these already, as misconceptions: {told}"


@pytest.mark.parametrize("item", EXERCISES, **ids)
def test_right_answers_are_accepted(item):
    right = answers(item, "ACCEPTED")
    least = needed(item)[1]
    assert len(right) >= least, f"answers of chapter {item.chapter}: {item.id}: {len(right)} answers of {least}"
    assert_accepts(item.id, right)


@pytest.mark.parametrize("item", [*QUESTIONS, *(p for p in PREDICTIONS if p.options)], **ids)
def test_a_letter_and_a_text_mean_the_same_option(item):
    for letter, option in item.lettered():
        assert item.chosen(letter) == item.chosen(option.text) == option
    assert not getattr(item, "recalls", "") or item.recalls < item.chapter, "recalls an earlier chapter"


def test_tables_name_registered_exercises():
    known = {e.id for e in EXERCISES}
    for number in registry.chapters():
        assert {*table(number).MUTANTS, *table(number).ACCEPTED} <= known


def test_right_options_are_spread_evenly_over_the_letters():
    """Whoever always presses the same letter scores as chance does."""
    for n in (3, 4):
        right = [o.right for i in (*QUESTIONS, *PREDICTIONS) if len(i.options) == n for o in i.options]
        share = Counter(i % n for i, it_is in enumerate(right) if it_is)
        assert all(abs(share[i] / sum(share.values()) - 1 / n) < 0.06 for i in range(n)), share


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.md")), ids=lambda s: s.stem)
def test_the_page_does_not_spoil_its_predictions(source):
    """A reveal is called by id; what it says stands in the definitions, and what is measured is worked out."""
    cells = re.findall(r"```\{code-cell\} ipython3\n((?::.*\n)*)(.*?)```", source.read_text(encoding="utf-8"), re.S)
    code = [body for _, body in cells if "check." in body]
    said = {o.why for i in PREDICTIONS for o in i.options} | {i.why for i in PREDICTIONS if i.why}
    assert not [why for why in said if any(why in body for body in code)]
    for call in (n for body in code for n in ast.walk(ast.parse(body)) if isinstance(n, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "reveal":
            assert not call.keywords and len(call.args) <= 2, ast.unparse(call)
            assert not isinstance(call.args[-1], (ast.Dict, ast.UnaryOp)), ast.unparse(call)
            assert len(call.args) == 1 or not isinstance(call.args[1], ast.Constant), ast.unparse(call)


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.md")), ids=lambda s: s.stem)
def test_a_chapter_says_in_which_precision_it_works(source):
    """So that chapters run one after the other in one process do not disturb each other."""
    assert len(re.findall(r"^torch\.set_default_dtype\(", source.read_text(encoding="utf-8"), re.M)) == 1
