"""Sets for a class: nothing of a solution is in a student's notebook, solutions earn all points, the same seed
the same bytes.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import linecache
import math
import re
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nlbook_tools.cli import main
from nlbook_tools.course import exam, handed, marked, minutes, plans, release, variants
from nlbook_tools.course.sets import make, run

from nlbook.book import check
from nlbook.book.chapters import files
from nlbook.book.check import registry, result
from nlbook.book.check.define import Estimate, Exercise, Implement
from nlbook.book.check.judge import judge
from nlbook.book.check.testing import stub_drift
from nlbook.errors import NLBookError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = files(FOLDER / "src", ".md")
SEED = 918_273
each = pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem.split("_")[0])


def code(nb):
    return [c for c in nb.cells if c.cell_type == "code"]


def body_of(function: ast.FunctionDef) -> str:
    return "\n".join(
        ast.unparse(n) for n in function.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
    )


# ---- students --------------------------------------------------------------------------------------------------------
@each
def test_no_solution_is_in_a_students_notebook(source):
    made = release.sheet(source, SEED)
    nb = marked.student(made)
    bodies = {
        (n.name, body_of(n)) for c in code(nb) for n in ast.walk(ast.parse(c.source)) if isinstance(n, ast.FunctionDef)
    }
    text = release.finish(nb, "student")
    for task, answer in zip(made.tasks, made.answers):
        item = task.item
        if isinstance(item, Implement):
            solved = ast.parse(item.solution_source()).body[0]
            assert (task.name, body_of(solved)) not in bodies, item.id
            assert stub_drift(item.id, answer.source) is None
        elif isinstance(item, Estimate):
            assert answer.source == "answer = None"
        else:
            assert answer.source == item.stub_source()
    assert str(SEED) not in text and "SOLUTION" not in text
    assert all(not c.outputs and c.execution_count is None for c in code(nb))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("| 01 | [A memory](01_a_memory.ipynb) | one |", "| 01 | A memory | one |"),
        ("**Next:** [A memory](01_a_memory.ipynb).", "**Next:** A memory (chapter 01)."),
        ("[A, optimizers](A_optimizers.ipynb), [Speed](B_make_it_fast.ipynb)", "A, optimizers, Speed (appendix B)"),
        ("[Appendix A](A_optimizers.ipynb) and [this](04_who.ipynb)", "Appendix A and [this](04_who.ipynb)"),
    ],
)
def test_a_chapter_that_is_not_in_the_set_is_named_once(line, said):
    assert release.unlinked(line, "04") == said


def test_every_exercise_is_in_a_notebook():
    """An exercise that no notebook asks could not be handed out."""
    asked = {t.item.id for source in SOURCES for t in release.sheet(source).tasks}
    assert asked == {e.id for e in registry.all_exercises() if e.chapter in {s.stem.split("_")[0] for s in SOURCES}}


def test_in_class_no_solution_is_shown():
    try:
        check.in_class()
        assert (
            check.solution("01-delta").source == result.KEPT and "torch.outer" not in check.solution("01-delta").html()
        )
        assert (
            "Solution" not in check.exercise("01-delta", None).html()
            and "Hint 1" in check.exercise("01-delta", None).html()
        )
        with pytest.raises(TypeError, match="teacher"):
            check.solution("01-delta")(1, 2, 3, 4)
        assert "Its gradient is" not in check.choice("01-r1").html()
    finally:
        check.in_class(False)
    assert "torch.outer" in check.solution("01-delta").source


# ---- solutions -------------------------------------------------------------------------------------------------------
def answered(nb, made):
    """The values that the answer cells of a notebook give, after its imports."""
    space = {"__name__": "__main__"}
    imports = [
        ast.unparse(n)
        for c in code(nb)
        for n in ast.parse(c.source).body
        if isinstance(n, (ast.Import, ast.ImportFrom))
    ]
    exec("\n".join(imports), space)
    for task, cell in zip(made.tasks, made.answers):
        name = f"<{task.item.id}>"
        linecache.cache[name] = len(cell.source), None, cell.source.splitlines(keepends=True), name  # triton reads it
        exec(compile(cell.source, name, "exec"), space)
        yield task, space[task.name]


@each
@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), SEED])
def test_a_solution_notebook_earns_all_points(source, seed):
    made = release.sheet(source, seed)
    nb = release.solution(made)
    for task, value in answered(nb, made):
        said = judge(exam.find(task.item.id, seed), value)
        assert said.status == "passed", (task.item.id, said.message)


@each
def test_a_students_notebook_earns_none(source):
    made = release.sheet(source)
    nb = release.student(made)
    for task, value in answered(nb, made):
        assert judge(exam.find(task.item.id, SEED), value).status != "passed", task.item.id


@each
def test_what_is_judged_in_a_set_is_what_its_exercises_ask_for(source):
    made = release.sheet(source, SEED)
    asked = [(t.item.id, t.name) for t in made.tasks]
    assert [(p.id, p.name) for p in handed.parts(marked.student(made), SEED)] == asked


# ---- seeds -----------------------------------------------------------------------------------------------------------
def test_the_same_seed_the_same_bytes_and_another_seed_others(tmp_path):
    def all_of(name, seed):
        made = make(FOLDER, ["01", "session-50"], tmp_path / name, seed=seed, kinds=("student", "solution"))
        return {p.relative_to(tmp_path / name).as_posix(): p.read_bytes() for p in made}

    one, two, other = all_of("a", 5), all_of("b", 5), all_of("c", 6)
    assert one == two and one.keys() == other.keys()
    path = "solution/01/01_a_memory_you_can_hold.ipynb"
    assert one[path] != other[path] and "release/session-50/01_a_memory_you_can_hold.ipynb" in one


@pytest.mark.parametrize("id", sorted(variants.listed()))
def test_a_question_with_other_numbers_has_other_answers(id):
    answers = set()
    for seed in range(1, 25):
        item = variants.private(id, seed)
        answer = item.solution()
        answers.add(round(answer, 6))
        assert judge(item, answer).status == "passed", (seed, answer)
        for wrong, why in item.wrong.items():
            said = judge(item, wrong)
            assert said.status == "failed" and said.message == why, (seed, wrong)
        assert judge(item, 3 * answer + 1).status == "failed"
    assert len(answers) >= 4
    assert variants.private(id, 0) is registry.find(id, Exercise)


def test_the_numbers_that_are_the_same_for_every_seed_are_known():
    assert set(variants.listed()) <= {e.id for e in registry.items(Estimate)}
    assert variants.fixed() == []


def test_numbers_of_a_question_give_its_answer():
    """08-seeds, worked out again from what the question says."""
    for seed in range(1, 9):
        item = variants.private("08-seeds", seed)
        scatter, gap = map(float, re.findall(r"\d\.\d+", item.prompt))
        assert 2 * scatter * math.sqrt(2 / item.solution()) == pytest.approx(gap)


@pytest.mark.parametrize("item", [e for e in registry.items(Implement)], ids=lambda e: e.id)
def test_private_cases_are_other_cases(item):
    own = variants.private(item.id, SEED)
    if item.draw is not None:
        drawn = [c.args for c in own.all_cases()[len(item.cases) :]]
        public = [c.args for c in item.all_cases()[len(item.cases) :]]
        assert len(drawn) == len(public) and str(drawn) != str(public)


# ---- minutes and sessions --------------------------------------------------------------------------------------------
@each
def test_minutes_of_sections_add_up_to_the_front_matter(source):
    from nlbook_tools.notebooks import sync

    chapter, front = minutes.read(source), sync.read_text(source).metadata["nlbook"]
    assert sum(s.reading for s in chapter.sections) == front["minutes"]["reading"]
    assert sum(s.work for s in chapter.sections) == front["minutes"]["exercises"]
    assert {i for s in chapter.sections for i in s.exercises} == {t.item.id for t in release.sheet(source).tasks}


def test_whole_numbers_keep_their_sum():
    assert minutes.whole([1.4, 1.4, 1.2], 4) == [2, 1, 1] and minutes.whole([0.0, 3.0], 7) == [0, 7]


@pytest.mark.parametrize("session", plans.sessions().values(), ids=lambda s: s.name)
def test_a_session_fits_its_time_and_uses_nothing_that_it_left_out(session):
    took = plans.in_class(session, FOLDER)
    assert 0.85 * session.minutes <= took <= session.minutes
    for source, drop in plans.session(FOLDER, session.name):
        made = release.sheet(source, 0, drop)
        assert (undefined := unbound(release.student(made))) == set(), (source.stem, undefined)


def unbound(nb) -> set[str]:
    """Names that a notebook uses and never makes."""
    trees = [ast.parse(c.source) for c in code(nb)]
    made = {n.id for t in trees for n in ast.walk(t) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    made |= {
        (a.asname or a.name).split(".")[0]
        for t in trees
        for n in ast.walk(t)
        if isinstance(n, (ast.Import, ast.ImportFrom))
        for a in n.names
    }
    made |= {n.name for t in trees for n in ast.walk(t) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    made |= {n.arg for t in trees for n in ast.walk(t) if isinstance(n, ast.arg)}
    made |= {n.name for t in trees for n in ast.walk(t) if isinstance(n, ast.ExceptHandler) and n.name}
    used = {n.id for t in trees for n in ast.walk(t) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return used - made - {*dir(builtins), "display"}


def test_the_search_for_unbound_names_can_fail():
    cut = release.sheet(SOURCES[1], 0, ("Signature result: two beat one",))
    cut.nb.cells.append(nbformat.v4.new_code_cell("stream"))
    assert unbound(cut.nb) == {"stream"}


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(NLBookError, match="expected one of 00, 01"):
        make(FOLDER, ["77"], tmp_path)
    with pytest.raises(NLBookError, match="expected headings of the chapter"):
        release.sheet(SOURCES[1], 0, ("No such section",))
    with pytest.raises(NLBookError, match="expected some of"):
        plans.Part("01", ("No such section",)).dropped(minutes.read(SOURCES[1]))


# ---- forms -----------------------------------------------------------------------------------------------------------
def test_the_command_writes_a_course_folder(tmp_path):
    said = CliRunner().invoke(main, ["release", "01", "--out", str(tmp_path), "--seed", "4"])
    assert said.exit_code == 0, said.output
    assert sorted(p.parent.parent.name for p in tmp_path.glob("*/01/*.ipynb")) == [
        "instructor",
        "release",
        "solution",
    ]
    assert json.loads((tmp_path / "course.json").read_text())["seeds"] == {"01": 4}
    compile((tmp_path / "nbgrader_config.py").read_text(), "nbgrader_config.py", "exec")
    refused = CliRunner().invoke(main, ["release", "1", "--out", str(tmp_path)])
    assert refused.exit_code == 1 and "expected one of 00, 01" in refused.output


def test_the_instructor_notebook_tells_wrong_answers_and_minutes(tmp_path):
    path, *_ = make(FOLDER, ["01"], tmp_path, kinds=("instructor",))
    nb = nbformat.read(path, 4)
    text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    for miss in registry.find("01-delta", Implement).misconceptions:
        assert miss.message in text
    for part in ("**Board.**", 'viz.load("interference:', "together: 90 minutes", "(right)", "also tried by the tests"):
        assert part in text
    assert "return M + eta * torch.outer(error, k)" in "\n".join(c.source for c in code(nb))


@pytest.mark.skipif(importlib.util.find_spec("nbgrader") is None, reason="nbgrader is not installed: make course")
@each
def test_nbgrader_takes_the_marks(source):
    from nbgrader.nbgraderformat import MetadataValidator

    MetadataValidator().validate_nb(marked.student(release.sheet(source, SEED)))


@pytest.mark.notebook
@pytest.mark.parametrize("name", ["session-50", pytest.param("week-3", marks=pytest.mark.slow)])
def test_a_students_session_runs_from_top_to_bottom_with_nothing_solved(name):
    """Stubs raise NotImplementedError only inside the check, which reports them, each of them; no cell fails."""
    for source, drop in plans.session(FOLDER, name):
        made = release.sheet(source, SEED, drop)
        nb = release.student(made)
        done = run(nb, source.stem, FOLDER, print)
        assert [c.source for c in done.cells] == [c.source for c in nb.cells] and made.tasks
        for task, check_cell in zip(made.tasks, made.checks):
            at = next(i for i, c in enumerate(nb.cells) if c is check_cell)
            said = "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in done.cells[at].outputs)
            if made.other_numbers(task):  # the public check knows other numbers: it is not asked
                assert said == "Your answer, judged when it is handed in: None\n", (task.item.id, said)
            else:
                assert "not tried yet" in said, (task.item.id, said)
