"""Every claim of chapter C under a figure or in a sentence with a number; the card, the ledger and its picture."""

from __future__ import annotations

import json
import math

import pytest
import torch
from click.testing import CliRunner

from nlbook import paper
from nlbook.book import viz
from nlbook.book.chapters.referee import card, referee, ten_equations
from nlbook.book.chapters.referee import exercises as exercises
from nlbook.book.chapters.referee import figures as ch12
from nlbook.book.chapters.referee import ledger as explorer
from nlbook.book.ledger.tables import gap
from nlbook.book.ledger.verdicts import WORDS, Verdicts, verdicts
from nlbook.errors import NLBookError


# ---- referees --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tables():
    return {n: referee.measure(n, seeds=8) for n in ("AdamW", "Muon")}


def test_one_table_two_headlines(tables):
    best = {n: float(t.test[t.valid.mean(1).argmin()].mean()) for n, t in tables.items()}
    usual = {n: float(t.test[t.rates.index(1e-3)].mean()) for n, t in tables.items()}
    assert all(b < 0.3 for b in best.values()) and all(u > 1.8 for u in usual.values())
    assert all(len(t.rates) == 7 and t.valid.shape == (7, 3) and t.test.shape == (7, 8) for t in tables.values())


@pytest.mark.parametrize("seed", range(3))
def test_the_search_decides(tables, seed):
    a, b = tables["AdamW"], tables["Muon"]
    more, equal, fewer = (referee.flips(a, b, *k, referees=400, seed=seed) for k in ((7, 1), (7, 7), (1, 7)))
    assert more["better"] > 0.75 and fewer["worse"] > 0.75 and equal["level"] > 0.7
    assert more["worse"] < 0.05 and fewer["better"] < 0.1
    itself = [referee.flips(a, a, *k, referees=400, seed=seed) for k in ((7, 1), (7, 7), (1, 7))]
    assert itself[0]["better"] > 0.75 and itself[1]["level"] > 0.82 and itself[2]["worse"] > 0.75
    assert all(math.isclose(sum(f.values()), 1) for f in (more, equal, fewer, *itself))


def test_the_two_methods_share_no_seed():
    same = torch.arange(8.0, dtype=torch.float64)[None]  # the loss is the seed's number: means tell who drew what
    t = referee.Losses("x", (0.1,), torch.zeros(1, 3, dtype=torch.float64), same)
    seen = set()
    original = referee.outcome

    def spy(a, b):
        seen.add((frozenset(a.tolist()), frozenset(b.tolist())))
        return original(a, b)

    referee.outcome, kept = spy, referee.outcome
    try:
        referee.flips(t, t, 1, 1, referees=20)
    finally:
        referee.outcome = kept
    assert all(not a & b and len(a) == len(b) == 4 for a, b in seen)


def test_a_spoiled_validation_spoils_the_choice(tables):
    """Choosing is by validation: with its table turned round the worst rate is reported."""
    a = tables["AdamW"]
    turned = referee.Losses(a.name, a.rates, -a.valid, a.test)
    assert referee.flips(turned, a, 7, 7, referees=50)["worse"] == 1


@pytest.mark.parametrize(("n", "low", "high"), [(2, 0.15, 0.22), (3, 0.10, 0.135), (4, 0.07, 0.11), (40, 0.04, 0.06)])
def test_how_often_the_rule_is_fooled(n, low, high):
    for seed in range(3):
        assert low < referee.power(0.0, 1.0, [n], seed=seed)[0] < high


def test_what_three_seeds_see():
    small, large = (referee.power(g, 1.0, [3, 40])[0] for g in (0.67, 2.0))
    assert 0.16 < small < 0.24 and large > 0.6  # "one time in five", "most of the time"
    assert referee.power(2.0, 1.0, [40])[0] > 0.999
    assert referee.power(0.02, 0.03, [10], seed=1) == referee.power(2, 3, [10], seed=1)  # only the ratio counts


def test_seeds_that_are_needed():
    assert referee.seeds_needed(0.02, 0.03) == pytest.approx(18) == exercises.seeds_for_a_small_gap()
    n = referee.seeds_needed(0.05, 0.1)
    assert 2 * 0.1 * math.sqrt(2 / n) == pytest.approx(0.05)


def test_one_rule_in_three_rooms():
    """The chapter's, the referee's and the ledger's are the same function of numbers."""
    g = torch.Generator().manual_seed(0)
    said = set()
    for _ in range(200):
        a, b = torch.randn(4, generator=g, dtype=torch.float64), torch.randn(3, generator=g, dtype=torch.float64) + 1
        by, error = gap({"a": {"y": a.tolist()}, "b": {"y": b.tolist()}}, "a", "b", "y")
        word = "level" if abs(by) <= 2 * error else "better" if by < 0 else "worse"
        assert referee.outcome(a, b) == word == exercises.verdict(a.tolist(), b.tolist())
        said.add(word)
    assert said == {"level", "better", "worse"} or said == {"level", "better"}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: referee.measure("SGD"), "name: got 'SGD'"),
        (lambda: referee.measure("AdamW", seeds=2), "seeds: got 2"),
        (lambda: referee.seeds_needed(0, 1), "gap, sd"),
        (lambda: ten_equations.slip(7), "equation: got 7"),
    ],
)
def test_errors_name_the_argument(call, match):
    with pytest.raises(NLBookError, match=match):
        call()


# ---- slips -----------------------------------------------------------------------------------------------------------
@pytest.mark.eq(19, 28, 42, 45, 49, 57, 65, 71, 75, 120)
@pytest.mark.parametrize("seed", range(5))
def test_ten_printed_forms_are_off_and_the_mended_are_not(seed):
    found = list(ten_equations.ten(seed))
    assert [s.equation for s in found] == list(ten_equations.TEN) and len(found) == 10
    for s in found:
        assert s.holds < 1e-12 < 1e-4 < s.printed, s
    assert all(paper.equation(s.equation).errata is not None for s in found)  # each is in the errata
    assert "Ten equations" in ch12.slip_alt(found) and ch12.slip_dots(found).axes


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


# ---- the card --------------------------------------------------------------------------------------------------------
def good() -> dict:
    return {
        "claim": "Many levels forget less than one.",
        "source": "Section 7.1",
        "prediction": "They are level, I think.",
        "metric": {"name": "accuracy", "better": "higher"},
        "ours": "CMS",
        "baseline": {"MLP": "one block, same size"},
        "control": {"equal periods": "must be level with one"},
        "budget": {"CMS": 5, "MLP": 5},
        "seeds": {"tuning": [9], "test": [0, 1, 2]},
        "rule": {"partly": "by 1 point", "not reproduced": "by less"},
        "result": {"CMS": [0.5, 0.6, 0.7], "MLP": [0.4, 0.5, 0.6]},
        "verdict": "partly",
        "limits": ["Only digits were looked at.", "Only one learning rate schedule."],
    }


def test_a_good_card_passes_and_a_blank_one_lists_its_fields():
    assert card.review(good()) and card.review(good(), lambda r: "partly").ok
    blank = card.review(card.blank())
    assert not blank and len(blank.missing) == 13 and not blank.problems and "13 fields to fill" in blank.text()
    assert "A blank card" in blank.html() and "complete and consistent" in card.review(good()).text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"claim": "Yes."}, "claim: got 'Yes.', expected a sentence of at least 5 words"),
        ({"source": "the paper"}, "source: got 'the paper', expected a place such as"),
        ({"metric": {"name": "loss"}}, "metric: 'better' is None, expected 'lower' or 'higher'"),
        ({"metric": "loss"}, "metric: got 'loss'"),
        ({"baseline": {"MLP": "simple"}}, "baseline: 'MLP' has 'simple'"),
        ({"baseline": {"CMS": "the very same method"}}, "baseline: 'CMS' is the method itself, expected a rival"),
        ({"control": "shuffle"}, "control: got 'shuffle', expected names with a reason"),
        ({"budget": {"CMS": 20, "MLP": 1}}, "budget: CMS was tried with 20 settings and MLP with 1"),
        ({"budget": {"CMS": 5}}, "budget: has no MLP"),
        ({"budget": {"CMS": 5.0, "MLP": 5}}, "budget: got"),
        ({"seeds": {"tuning": [0], "test": [0, 1, 2]}}, "seeds: seed 0 is used for tuning and for the test"),
        ({"seeds": {"tuning": [9], "test": [0, 1]}}, "seeds: got 2 seeds to test with, expected at least 3"),
        ({"seeds": [0, 1, 2]}, "seeds: got [0, 1, 2]"),
        ({"rule": {"partly": "if it is 2 better"}}, "rule: got one outcome"),
        ({"rule": {"partly": "a bit", "proved": "much"}}, "rule: says nothing of 'not reproduced'"),
        ({"rule": {"partly": "a bit", "not reproduced": "else"}}, "rule: has no number, expected a threshold"),
        ({"rule": {"true": "by 1", "partly": "by 1", "not reproduced": "else"}}, "rule: 'true' is no verdict"),
        ({"result": {"CMS": [0.5, 0.6, math.nan], "MLP": [0.4, 0.5, 0.6]}}, "result: CMS has nan"),
        ({"result": {"CMS": [0.5], "MLP": [0.4, 0.5, 0.6]}}, "result: CMS has 1 numbers, expected 3"),
        ({"result": {"CMS": [0.5, 0.6, 0.7]}}, "result: has no MLP"),
        ({"verdict": "yes"}, "verdict: got 'yes'"),
        ({"verdict": "proved"}, "verdict: 'proved' has no line in the rule"),
        ({"limits": ["Only digits were used."]}, "limits: got 1"),
        ({"limits": ["Only digits were used.", "small"]}, "limits: 'small' is too short"),
        ({"limit": 1}, "'limit' is no field"),
    ],
)
def test_a_spoiled_card_names_the_field(change, said):
    review = card.review({**good(), **change})
    assert not review and any(said in p for p in review.problems), review.text()


def test_a_verdict_must_follow_from_the_numbers():
    assert "your rule says 'not reproduced'" in card.review(good(), lambda r: "not reproduced").text()
    assert "failed on your result with KeyError" in card.review(good(), lambda r: r["x"]).text()
    by_order = card.review(good(), lambda r: "partly" if next(iter(r)) == "CMS" else "proved")
    assert "when the methods stand in another order" in by_order.text()
    mine = good()
    card.review(mine, lambda r: r.clear() or "partly")
    assert mine == good()  # the rule cannot change the card
    with pytest.raises(NLBookError, match="card: got list"):
        card.review([1])
    with pytest.raises(NLBookError, match="decide: got str"):
        card.review(good(), "partly")


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


# ---- figures, command ------------------------------------------------------------------------------------------------
def test_figures_say_what_they_show():
    found = {
        "equal": {"better": 0.1, "level": 0.8, "worse": 0.1},
        "unequal": {"better": 1.0, "level": 0.0, "worse": 0.0},
    }
    assert ch12.verdict_bars(found, "x").axes
    assert "equal: 10 % better, 80 % level, 10 % worse; unequal: 100 % better" in ch12.verdict_alt(found, "x")
    curves = ((2, 40), (0.2, 0.05), {"a gap": (0.3, 0.9)})
    assert ch12.power_curves(*curves).axes and "from 20 % at 2 seeds to 5 % at 40" in ch12.power_alt(*curves)


def test_the_command_that_the_chapter_ends_with():
    from nlbook_tools.commands.ledger import command

    shown = CliRunner().invoke(command, ["--list"])
    assert shown.exit_code == 0 and "fig11" in shown.output
