"""Every claim of appendix C under a figure or in a sentence with a number; the ledger and its picture."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from nlbook import paper
from nlbook.book import viz
from nlbook.book.chapters.errata import exercises, ten_equations
from nlbook.book.chapters.errata import figures as fig
from nlbook.book.chapters.errata import ledger as explorer
from nlbook.book.ledger.verdicts import WORDS, Verdicts, verdicts
from nlbook.errors import NLBookError


# ---- slips -----------------------------------------------------------------------------------------------------------
@pytest.mark.eq(19, 28, 42, 45, 49, 57, 65, 71, 75, 120)
@pytest.mark.parametrize("seed", range(5))
def test_ten_printed_forms_are_off_and_the_mended_are_not(seed):
    found = list(ten_equations.ten(seed))
    assert [s.equation for s in found] == list(ten_equations.TEN) and len(found) == 10
    for s in found:
        assert s.holds < 1e-12 < 1e-4 < s.printed, s
    assert all(paper.equation(s.equation).errata is not None for s in found)  # each is in the errata
    assert "Ten equations" in fig.slip_alt(found) and fig.slip_dots(found).axes


def test_an_equation_that_is_none_of_the_ten_is_named():
    with pytest.raises(NLBookError, match="equation: got 7"):
        ten_equations.slip(7)


def test_the_counts_of_slips():
    assert sum(e.status == "slip" for e in paper.equations()) == 39
    assert sum(e.status == "text" for e in paper.equations()) == 4


def test_a_factor_that_does_nothing():
    def read(beta, decay):
        m, out = 0.0, []
        for g in (1, 1, -1):
            m = decay * m + beta * g
            out.append(round(m / abs(m)))
        return out

    assert [read(b, 1) for b in (0.9, 0.001)] == [[1, 1, 1]] * 2
    assert read(0.9, 0.1) == [1, 1, -1] and read(0.001, 0.999) == [1, 1, 1]


@pytest.mark.eq(75)
def test_m3_of_the_exercise_is_the_librarys():
    from nlbook.optim import M3

    g = torch.Generator().manual_seed(1)
    grads = torch.randn(9, 4, 3, generator=g, dtype=torch.float64)
    p = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    optimizer = M3([p], lr=1e-3, betas=(0.9, 0.95, 0.7), period=4)
    for x in grads:
        p.grad = x.clone()
        optimizer.step()
    fast, slow = exercises.m3_memories(grads, 0.1, 0.3, 4)
    held = [v for v in optimizer.state[p].values() if isinstance(v, torch.Tensor) and v.shape == p.shape]
    assert any(torch.allclose(v, fast) for v in held) and any(torch.allclose(v, slow) for v in held)


@pytest.mark.eq(67)
def test_the_printed_brace_of_eq_67_does_not_even_fit():
    M, k, v = torch.ones(2, 3), torch.ones(3), torch.ones(2)
    assert (M.T @ v).shape == (3,) and torch.outer(v, k).shape == (2, 3)


def test_table_6_and_the_word_all():
    rows = {r[0]: r[1] for r in paper.table(6)}
    assert rows["w/o inner-projection q"] == 12.19 < rows["Hope"] == 12.24
    assert all(v > rows["Hope"] for k, v in rows.items() if k not in ("Hope", "w/o inner-projection q"))


# ---- the ledger, read ------------------------------------------------------------------------------------------------
def entry(id: str, word: str, **more):
    return {
        "id": id,
        "title": f"title of {id}",
        "source": "Fig. 9",
        "verdict": {"word": word, "because": "0.1 and 0.2"},
        "rule": "by two",
        "command": f"nlbook ledger --only {id}",
        "cpu_seconds": 30.0,
        "results": {"Hope": {"y": [1.0, 2.0]}, "MLP": {"y": [1.0, 2.0, 3.0]}},
    } | more


@pytest.fixture
def ledger(tmp_path):
    rows = [
        entry("a", "proved", claim="All is one.", look=["A", "tests/x.py"]),
        entry("b", "partly"),
        entry("c", "partly", results={}),
        entry("d", "", results={}),
        entry("e", "not reproduced", limits="Small."),
    ]
    file = tmp_path / "ledger.json"
    file.write_text(json.dumps({"profile": "quick", "rows": rows}))
    return file


def test_a_ledger_is_read_as_it_stands(ledger):
    rows = verdicts(ledger)
    assert rows.count() == {"proved": 1, "partly": 2, "not reproduced": 1, "": 1} and rows.count("partly") == 2
    assert [r.id for r in rows.only("partly")] == ["b", "c"] and isinstance(rows.only("partly"), Verdicts)
    a = rows.find("a")
    assert (a.seeds, a.groups, a.look, a.minutes) == (3, ("Hope", "MLP"), ("chapter A", "tests/x.py"), 0.5)
    assert "All is one." in a.markdown() and "nlbook ledger --only a" in a.markdown()
    assert "| Fig. 9 |" in rows.markdown()
    assert "no verdict" in rows.find("d").markdown() and "Small." in rows.find("e").markdown()


def test_a_ledger_that_is_none_says_so(ledger, tmp_path, monkeypatch):
    with pytest.raises(NLBookError, match="verdict: got 'true', expected one of proved"):
        verdicts(ledger).only("true")
    with pytest.raises(NLBookError, match="id: got 'z', expected one of a, b"):
        verdicts(ledger).find("z")
    bad = tmp_path / "bad.json"
    bad.write_text('{"rows": [{}]}')
    with pytest.raises(NLBookError, match=r"file: got 'bad.json', expected a ledger .*KeyError"):
        verdicts(bad)
    monkeypatch.setattr("nlbook.book.coverage.checkout", lambda: None)
    assert len(verdicts()) == 0 and verdicts().count() == {}


def test_the_committed_ledger_is_the_ledgers_own_list():
    from nlbook.book.ledger import all_rows

    known = {r.id: r for r in all_rows()}
    for row in verdicts():
        assert row.id in known and row.verdict in WORDS and row.claim == known[row.id].claim
        assert row.rule == known[row.id].rule and row.limits == known[row.id].limits


# ---- the ledger's picture --------------------------------------------------------------------------------------------
@pytest.fixture
def board(ledger, monkeypatch):
    rows = verdicts(ledger)
    monkeypatch.setattr(explorer, "rows", lambda: rows)
    return rows


class At(dict):
    """A state with any ids, for a ledger that is not the committed one."""

    __getattr__ = dict.__getitem__

    def replace(self, **values):
        return At({**self, **values})


def test_ledger_filters_and_counts(board):
    f = explorer.facts(At(show="partly", row="a"))
    assert f == {"rows": 5, "shown": 2, "proved": 1, "toy": 0, "partly": 2, "not": 1, "out": 0}
    assert [r.id for r in explorer.shown(At(show="partly", row="a"))] == ["b", "c"]
    assert explorer.chosen(At(show="partly", row="a")).id == "b"  # the chosen row is hidden: the first shown
    assert explorer.chosen(At(show="all", row="c")).id == "c" and explorer.chosen(At(show="out", row="a")) is None
    for state in (At(show="all", row="a"), At(show="out", row="a"), At(show="all", row="d")):
        assert viz.png(explorer.draw._draw(state)) and len(explorer.alt(state, explorer.facts(state)).split()) > 8


def test_ledger_board_moves_as_the_browser_moves_it(board):
    state = At(show="all", row="a")
    live = explorer.Board(state)
    assert [r["source"] for r in live.rows] == ["Fig. 9"] * 5 and live.at == 0 and live.head[1].endswith("proved")
    assert [c[:2] for c in live.counts] == [["proved", 1], ["partly", 2], ["not reproduced", 1]]
    live.chosen = [1, 4]
    after = live.picked(state)
    live.show_state(after)
    assert after.row == "e" and live.at == 4 and ["Does not show", "Small."] in live.card
    live.chosen = [2, 99]
    assert live.picked(after) == after  # a place that is not there changes nothing
    live.show_state(At(show="out", row="a"))
    assert live.rows == [] and live.at == -1 and live.head == [] and live.card == [["", "No row has this verdict."]]


def test_ledger_draws_the_committed_ledger():
    v = viz.find("ledger")
    f = v.facts()
    assert f["rows"] == max(1, len(verdicts()))
    assert sum(f[k] for k in ("proved", "toy", "partly", "not", "out")) in (f["rows"], 0)
    assert len(v.landmarks) == max(1, sum(f[k] > 0 for k in ("proved", "toy", "partly", "not", "out")))


def test_the_command_that_the_chapter_ends_with():
    from nlbook_tools.commands.ledger import command

    shown = CliRunner().invoke(command, ["--list"])
    assert shown.exit_code == 0 and "fig11" in shown.output
