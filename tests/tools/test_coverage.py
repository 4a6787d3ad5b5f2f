"""Which code, tests and chapters carry an equation, and the command that says so."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from nlbook_tools.commands.paper import command

from nlbook import paper
from nlbook.book import coverage as scan
from nlbook.errors import NLBookError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("eq. 57", {57}),
        ("see Eq. 57-59.", {57, 58, 59}),
        ("eq. 5, 7-8 and 30", {5, 7, 8, 30}),
        ("eq. 94–95", {94, 95}),
        ("eq. 122, equation 5, seq. 7", set()),
        ("(eq. 9; eq. 11)", {9, 11}),
        ("eq 4", set()),
        ("eq.\n12", {12}),
    ],
)
def test_mentions_are_read_as_they_are_spelled(text, numbers):
    assert scan.numbers_in(text) == numbers


def test_code_is_credited_to_the_innermost_definition_and_never_to_a_module():
    source = '''
"""All of eq. 1-9."""
# eq. 2
class A:
    """eq. 3"""
    def f(self):
        # eq. 4
        return 1
def g():
    """eq. 5 and more"""
    x = "eq. 6"
    return x  # eq. 7
'''
    assert scan.named_in(source) == {"A": {3}, "A.f": {4}, "g": {5, 7}}


def test_marks_are_read_from_functions_classes_and_files():
    source = """
import pytest
pytestmark = [pytest.mark.slow, pytest.mark.eq(1)]
@pytest.mark.eq(2, *range(5, 7))
def test_a(): ...
@pytest.mark.eq(9)
class TestB:
    @pytest.mark.eq(10)
    def test_c(self): ...
@pytest.mark.eq(11)
def helper(): ...
"""
    assert scan.marked_in(source) == {"test_a": {1, 2, 5, 6}, "TestB::test_c": {1, 9, 10}}


def test_a_short_name_for_the_mark_counts_too():
    source = "eq = pytest.mark.eq\nslow = pytest.mark.slow\n@eq(32, 33)\ndef test_a(): 0\n@slow(7)\ndef test_b(): 0"
    assert scan.marked_in(source) == {"test_a": {32, 33}}


def test_a_chapter_counts_if_it_lists_and_names_the_equation(tmp_path):
    src = tmp_path / "notebooks" / "src"
    src.mkdir(parents=True)
    front = "---\nkernelspec: {name: python3}\nnlbook:\n  number: 1\n  equations: [5, 6, '15-16', 57]\n---\n"
    (src / "01_memory.md").write_text(front + "The write of eq. 5 and eq. 16.\n\n`paper.equation(57)`\n\neq. 99\n")
    (src / "notes.md").write_text(front + "eq. 6")
    assert scan.scan_chapters(tmp_path) == {5: ("01_memory",), 16: ("01_memory",), 57: ("01_memory",)}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return scan.coverage()


def test_coverage_has_a_row_for_every_equation(rows):
    assert [r["number"] for r in rows] == list(range(1, 122))
    assert all(set(r) == {"number", "code", "tests", "chapter"} for r in rows)


def test_every_equation_has_a_test_and_code(rows):
    assert [r["number"] for r in rows if not r["tests"]] == []
    assert [r["number"] for r in rows if not r["code"]] == []


def test_every_place_that_coverage_names_exists(rows):
    trees: dict[str, set[str]] = {}
    for place in {p for r in rows for p in (*r["code"], *r["tests"])}:
        path, name = re.fullmatch(r"(.+?\.py):{1,2}(.+)", place).groups()
        if path not in trees:
            trees[path] = {n for n, _ in scan._definitions(ast.parse((ROOT / path).read_text()).body)}
        assert name.replace("::", ".") in trees[path], place
    for stem in {c for r in rows for c in r["chapter"]}:
        assert (ROOT / "notebooks" / "src" / f"{stem}.md").is_file()


def test_every_erratum_counts_as_a_test_of_its_equation(rows):
    for e in paper.errata():
        assert all(e.test in rows[n - 1]["tests"] for n in e.numbers)


def test_every_marked_number_is_one_of_the_papers():
    """A typing slip such as eq(570) would count for nothing, in silence."""
    for path in (ROOT / "tests").rglob("*.py"):
        for call in re.findall(r"^\s*@(?:pytest\.mark\.)?eq\(([^)*]*)\)", path.read_text(), re.MULTILINE):
            assert all(1 <= int(n) <= 121 for n in call.replace(",", " ").split()), (path.name, call)


def test_an_equation_has_its_code_and_tests():
    code, tests = scan.places(57)
    assert "tests/library/test_errata.py::test_the_rate_of_dgd_contains_the_length_of_the_input" in tests
    assert any(c.startswith("nlbook/memory/") for c in code)


def test_without_a_checkout_coverage_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(scan, "checkout", lambda: None)
    with pytest.raises(NLBookError, match="expected a checkout of the book"):
        scan.coverage()
    with pytest.raises(NLBookError, match="expected a checkout of the book"):
        scan.coverage(tmp_path)


# ---- the command -----------------------------------------------------------------------------------------------------
def test_the_command_looks_up_an_equation():
    result = CliRunner().invoke(command, ["57"])
    assert result.exit_code == 0 and "Delta Gradient Descent" in result.output and "test: tests/" in result.output
    facts = json.loads(CliRunner().invoke(command, ["57", "--json"]).output)
    assert facts["number"] == 57 and facts["correct_latex"] and facts["code"]


def test_the_command_lists_errata_and_coverage():
    assert CliRunner().invoke(command, ["--errata"]).output.count("shown by") == len(paper.errata())
    assert len(json.loads(CliRunner().invoke(command, ["--errata", "--json"]).output)) == len(paper.errata())
    assert "covered 121 of 121" in CliRunner().invoke(command, ["--coverage"]).output
    assert len(json.loads(CliRunner().invoke(command, ["--coverage", "--json"]).output)) == 121
    assert "write rate" in CliRunner().invoke(command, ["--notation"]).output
    assert {"letter", "code"} <= set(json.loads(CliRunner().invoke(command, ["--notation", "--json"]).output)[0])


@pytest.mark.parametrize("arguments", [[], ["57", "--errata"], ["--errata", "--coverage"], ["500"]])
def test_the_command_refuses_what_it_cannot_do(arguments):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code != 0 and "Error" in result.output
