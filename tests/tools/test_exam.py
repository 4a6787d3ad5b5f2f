"""The exam: twenty sound items for every seed, a key that is right, and no key in the student's notebook."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from nlbook_tools.cli import main
from nlbook_tools.course import bank, exam, marked, minutes, release

from nlbook.book.check.define import Estimate, Implement
from nlbook.book.check.judge import judge
from nlbook.errors import NLBookError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.mark.parametrize("seed", [1, 2, 3, 2027])
def test_the_items_are_sound(seed):
    items = bank.items(seed)
    assert [e.id for e in items] == [f"exam-{n:02d}" for n in range(1, 21)] and items[0].points
    for item in items:
        assert [p for p in item.problems() if "no single" not in p and "is not like" not in p] == []
        assert judge(item, None).status == "not tried"
        if isinstance(item, bank.Choice):
            verdicts = {letter: judge(item, letter).status for letter in "abcd"}
            assert [v for v in verdicts.values()].count("passed") == 1 and verdicts[item.letter()] == "passed"
            assert len(set(item.options)) == 4 and judge(item, "z").status == judge(item, 3).status == "failed"
        elif isinstance(item, Estimate):
            answer = float(item.solution())
            assert judge(item, answer).status == "passed" and judge(item, 1.2 * answer + 0.5).status == "failed"
        else:
            assert isinstance(item, Implement) and judge(item, item.solution).status == "passed"
            assert judge(item, lambda *a: a[0]).status == "failed"


def test_seeds_make_other_exams_and_the_same_seed_the_same():
    def asked(seed):
        return [(e.prompt, getattr(e, "options", None)) for e in bank.items(seed)]

    assert asked(1) == asked(1)
    differ = sum(a != b for a, b in zip(asked(1), asked(2)))
    assert differ >= 14, f"only {differ} of 20 items differ"


def test_objectives_of_the_exam_are_objectives_of_chapters():
    known = {id for chapter in minutes.chapters(FOLDER) for id in chapter.objectives}
    assert {e["objective"] for e in bank.entries()} <= known
    assert len({e["objective"].split(".")[0] for e in bank.entries()}) >= 8, "the exam reaches over the book"


def test_known_answers_worked_by_hand():
    """One instance of each number item whose answer is recomputed here from its text."""
    for item in bank.items(11):
        numbers = [float(x) for x in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", item.prompt)]
        if item.id == "exam-01":
            length, overlap, a, b = 1.0, *numbers[2:]
            assert item.solution() == pytest.approx(length * a + overlap * b)
        if item.id == "exam-09":
            s = numbers[-1]
            assert item.solution() == pytest.approx(s * (3 - s * s) / 2)
        if item.id == "exam-13":
            *periods, tokens = numbers
            assert item.solution() == sum(len(range(int(c), int(tokens) + 1, int(c))) for c in periods)


def test_the_key_is_not_in_the_students_notebook(tmp_path):
    said = CliRunner().invoke(main, ["release", "exam", "--seed", "77123", "--out", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert not (tmp_path / "key").exists() and not (tmp_path / "solution").exists()
    text = (tmp_path / "release" / "exam" / "exam.ipynb").read_text()
    assert "77123" not in text and "SOLUTION" not in text
    nb = marked.student(exam.sheet(77123))
    answers = [c.source for c in nb.cells if c.metadata.get("nbgrader", {}).get("solution")]
    assert len(answers) == 20 and all(a == "answer = None" or "raise NotImplementedError" in a for a in answers)
    said = CliRunner().invoke(main, ["release", "exam", "--seed", "77123", "--out", str(tmp_path), "--with-key"])
    assert said.exit_code == 0 and (tmp_path / "key" / "exam-77123.md").read_text() == exam.key(77123)


def test_the_solved_exam_earns_all_points():
    made = exam.sheet(5)
    release.solution(made)
    earned = 0.0
    for task, cell in zip(made.tasks, made.answers):
        space: dict = {}
        exec(cell.source, space)
        earned += task.item.points * (judge(exam.find(task.item.id, 5), space[task.name]).status == "passed")
    assert earned == sum(t.item.points for t in made.tasks) == 35


def test_every_cell_of_the_exam_is_python_and_ids_are_checked():
    for cell in exam.sheet(3).nb.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
    with pytest.raises(NLBookError, match="exam-01 to exam-20"):
        exam.find("exam-21", 1)
