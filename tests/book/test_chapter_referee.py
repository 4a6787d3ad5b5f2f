"""Every claim of chapter 08 under a figure or in a sentence with a number; the memory file, the race and the card."""

from __future__ import annotations

import math

import pytest
import torch

from nlbook.book.chapters.hope import levels_race, talker
from nlbook.book.chapters.referee import card, own_race, referee
from nlbook.book.chapters.referee import exercises as exercises
from nlbook.book.chapters.referee import figures as ch08
from nlbook.book.ledger.tables import gap
from nlbook.errors import NLBookError

WITH_LEVEL = ("Hope", "Hope-Attention", "gated delta + level")
NETWORKS = (*WITH_LEVEL, "gated delta, two blocks", "gated delta, 4 full heads", "attention")


# ---- the file --------------------------------------------------------------------------------------------------------
def test_a_file_carries_what_lives_on_and_the_level_is_what_carries_it(tmp_path):
    language, model = talker.LANGUAGE, talker.talker()
    told = language.tokens("| A3 B7 d5 x1 A3 e2 B7 x4 A3 d5 y6 B7 A3 x2 e2 B7")
    assert language.tokens(language.words(told)).tolist() == told.tolist()
    with pytest.raises(NLBookError, match="words"):
        language.tokens("| A9")

    @torch.no_grad()
    def knows(state, words="| {}"):
        heard = {k: model(language.tokens(words.format(k))[None], state)[0][0, -1].softmax(-1) for k in "ABdexy"}
        return {k: float(p[language.names.index(v)]) for (k, p), v in zip(heard.items(), "375226")}

    with torch.no_grad():
        _, memory = model(told[None])
    model.save_memory(tmp_path / "memory.safetensors", memory)
    received = talker.talker().load_memory(tmp_path / "memory.safetensors")
    assert (tmp_path / "memory.safetensors").stat().st_size < 200_000
    before, after, without = knows(received, "{}"), knows(received), knows(None)
    assert all(before[k] > 0.9 for k in "ABde") and 0.4 < before["x"] < before["y"] < 0.7
    assert all(after[k] > 0.95 for k in "AB") and all(0.1 < after[k] < 0.15 for k in "dexy")
    assert all(p < 0.15 for p in without.values())
    for part, kept in (("levels", False), ("mixer", True)):
        spoiled = received.clone()
        for block, new in zip(spoiled.blocks, model.initial_state(1).blocks):
            setattr(block, part, getattr(new, part))
        assert (min(knows(spoiled)[k] for k in "AB") > 0.95) is kept
    cases = {"with": after, "without": without}
    assert memory.numel() == 25_057 and "with: A 0.96" in ch08.memory_alt(cases) and ch08.memory_bars(cases).axes


# ---- the race --------------------------------------------------------------------------------------------------------
def test_two_clocks_win_their_race_and_the_control_is_one_memory():
    race = {name: own_race.measure(name, 8) for name in own_race.CONTESTANTS}
    said = {n: referee.settle(t, race["one memory"]) for n, t in race.items()}
    assert [*said.values()] == ["level", "level", "level", "better", "level"]
    loss = {n: t.test[t.valid.mean(1).argmin()] for n, t in race.items()}
    assert 0.5 < float(loss["two clocks"].mean() / loss["one memory"].mean()) < 0.65
    torch.testing.assert_close(loss["two that never forget"], loss["one memory"], rtol=1e-5, atol=0)  # the law
    chosen = [race[n].settings[race[n].valid.mean(1).argmin()] for n in ("one memory", "two that never forget")]
    assert [sum(c.rate for c in clocks) for clocks in chosen] == pytest.approx([0.9, 0.9])
    assert {len(t.settings) for t in race.values()} == {9}
    assert referee.settle(race["two clocks"], race["one that fades"]) == "better"
    assert "two clocks 0.1" in ch08.race_alt(race) and ch08.race_dots(race).axes


def test_what_the_page_says_of_the_race_of_networks():
    record = levels_race.Record()
    loss = {m: [r["all"] for r in record.seeds(m)] for m in NETWORKS}
    for with_level in WITH_LEVEL:
        held = [r["held"] for r in record.seeds(with_level)]
        for other in NETWORKS[3:]:
            assert levels_race.lead(loss[with_level], loss[other]) == "leads"
            assert all(a < b for a, b in zip(loss[with_level], loss[other], strict=True))
            assert levels_race.lead(held, loss[other]) == "trails"
            assert record.seeds(with_level)[0]["parameters"] < record.seeds(other)[0]["parameters"]


def test_without_exceptions_two_clocks_are_no_better(monkeypatch):
    """The control from the other side: facts of one life time only."""
    stream = own_race.stream
    monkeypatch.setattr(own_race, "stream", lambda seed: stream(seed, exceptions=0.0))
    two, one = own_race.measure("two clocks", 8), own_race.measure("one memory", 8)
    assert referee.settle(two, one) != "better"


# ---- referees --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tables():
    return {n: referee.measure(n, seeds=8) for n in ("AdamW", "Muon")}


def test_one_table_two_headlines(tables):
    best = {n: float(t.test[t.valid.mean(1).argmin()].mean()) for n, t in tables.items()}
    usual = {n: float(t.test[t.settings.index(1e-3)].mean()) for n, t in tables.items()}
    assert all(b < 0.3 for b in best.values()) and all(u > 1.8 for u in usual.values())
    assert all(len(t.settings) == 7 and t.valid.shape == (7, 3) and t.test.shape == (7, 8) for t in tables.values())


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
    turned = referee.Losses(a.name, a.settings, -a.valid, a.test)
    assert referee.flips(turned, a, 7, 7, referees=50)["worse"] == 1
    assert referee.settle(a, a) == "level" and referee.settle(turned, a) == "worse"


@pytest.mark.parametrize(("n", "low", "high"), [(2, 0.15, 0.22), (3, 0.10, 0.135), (4, 0.07, 0.11), (40, 0.04, 0.06)])
def test_how_often_the_rule_is_fooled(n, low, high):
    for seed in range(3):
        assert low < referee.power(0.0, 1.0, [n], seed=seed)[0] < high


def test_with_the_seeds_of_two_standard_errors_a_gap_is_seen_half_the_time():
    few, many = (referee.power(2 / 3, 1.0, [n])[0] for n in (18, 36))
    assert 0.42 < few < 0.58 and many > 0.75


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
    ],
)
def test_errors_name_the_argument(call, match):
    with pytest.raises(NLBookError, match=match):
        call()


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


# ---- figures, command ------------------------------------------------------------------------------------------------
def test_figures_say_what_they_show():
    found = {
        "equal": {"better": 0.1, "level": 0.8, "worse": 0.1},
        "unequal": {"better": 1.0, "level": 0.0, "worse": 0.0},
    }
    assert ch08.verdict_bars(found, "x").axes
    assert "equal: 10 % better, 80 % level, 10 % worse; unequal: 100 % better" in ch08.verdict_alt(found, "x")
    curves = ((2, 40), (0.2, 0.05), {"a gap": (0.3, 0.9)})
    assert ch08.power_curves(*curves).axes and "from 20 % at 2 seeds to 5 % at 40" in ch08.power_alt(*curves)
