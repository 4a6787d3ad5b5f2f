"""Every registered exercise: its solution passes, its stub does not, its mutants are refused, right answers accepted.

Chapter writers add exercises.py and answers.py to their chapter's folder; nothing here changes.
"""

from __future__ import annotations

import pytest

from nlbook.book.check import registry
from nlbook.book.check.define import Prediction, Question
from nlbook.book.check.result import chosen, lettered
from nlbook.book.check.testing import GENERIC, assert_accepts, assert_refuses, check_definition, needed, table

EXERCISES = registry.all_exercises()
QUESTIONS = registry.items(Question)
ids = {"ids": lambda item: item.id}


def answers(item, name):
    module = table(item.chapter)
    return getattr(module, name, {}).get(item.id, {}) if module else {}


@pytest.mark.parametrize("item", EXERCISES, **ids)
def test_definition(item):
    assert check_definition(item) == []


@pytest.mark.parametrize("item", EXERCISES, **ids)
def test_wrong_answers_are_refused(item):
    mutants = answers(item, "MUTANTS")
    least = needed(item)[0]
    assert len(mutants) >= least, f"answers of chapter {item.chapter}: {item.id}: {len(mutants)} mutants of {least}"
    results = assert_refuses(item.id, mutants)
    if mutants:
        assert any(r.rung not in GENERIC for r in results.values()), "every message is the generic one"
        assert len({r.message for r in results.values()}) > 1, "every mutant gets the same message"


@pytest.mark.parametrize("item", EXERCISES, **ids)
def test_right_answers_are_accepted(item):
    right = answers(item, "ACCEPTED")
    least = needed(item)[1]
    assert len(right) >= least, f"answers of chapter {item.chapter}: {item.id}: {len(right)} answers of {least}"
    assert_accepts(item.id, right)


@pytest.mark.parametrize("item", QUESTIONS, **ids)
def test_question(item):
    for letter, option in lettered(item):
        assert chosen(item, letter) == chosen(item, option.text) == (option, "")
    assert not item.recalls or item.recalls < item.chapter, "recalls an earlier chapter"


def test_tables_name_registered_exercises():
    known = {e.id for e in EXERCISES}
    for number in registry.chapters():
        if module := table(number):
            assert {*module.MUTANTS, *module.ACCEPTED} <= known


def test_predictions_are_sound():
    assert [p.problems() for p in registry.items(Prediction)] == [[] for _ in registry.items(Prediction)]
