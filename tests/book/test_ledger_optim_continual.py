"""The rows on optimizers, continual learning, real text and diagrams: each rule on both sides, each run once."""

from __future__ import annotations

import math

import pytest
import torch
from kit import refuses

from nlbook.book.chapters.optimizers import race
from nlbook.book.data.languages import TwoLanguages
from nlbook.book.ledger import find
from nlbook.book.ledger.rows import continual, diagrams, optimizers, text
from nlbook.book.ledger.runs import continual as continual_runs
from nlbook.book.ledger.runs import diagrams as diagram_runs
from nlbook.book.ledger.runs import optimizers as optimizer_runs
from nlbook.hope import Hope

YES, PARTLY, NO = "reproduced at toy scale", "partly", "not reproduced"


def near(x: float) -> list[float]:
    return [x - 0.001, x, x + 0.001]


# ---- Fig. 4 ----------------------------------------------------------------------------------------------------------
def fig4(**faster: list[float]):
    rules = (optimizers.PRINTED, *optimizers.MENDED, *optimizers.STABLE)
    return {
        rule: {"arrives": [20.0] * 3, "faster": faster.get(rule, [2.0] * 3), "heavy ball arrives": [22.0] * 3}
        for rule in rules
    }


@pytest.mark.parametrize(
    ("faster", "word"),
    [
        ({"printed": [14.0, 20.0, 14.0]}, YES),
        ({"printed": [13.0, 27.0, 27.0]}, NO),
        ({"column": [14.0] * 3}, PARTLY),
        ({"bounded": [22.0, 23.0, 14.0]}, PARTLY),
        ({"bounded": [13.0] * 3}, NO),
        ({}, NO),
    ],
)
def test_rule_of_fig_4(faster, word):
    assert optimizers.judge_fig4(fig4(**faster)).word == word


# ---- Fig. 11 ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("m3", "muon", "adamw", "fast", "word"),
    [
        (0.10, 0.20, 0.30, 0.15, YES),
        (0.10, 0.20, 0.30, 0.105, PARTLY),
        (0.10, 0.20, 0.30, 0.05, PARTLY),
        (0.20, 0.20, 0.30, 0.25, PARTLY),
        (0.30, 0.20, 0.30, 0.4, NO),
        (0.4, 0.2, 0.3, 0.4, NO),
    ],
)
def test_rule_of_fig_11(m3, muon, adamw, fast, word):
    r = {"M3": m3, "Muon": muon, "AdamW": adamw, "M3, fast memory only": fast, "M3 as printed": 1.0}
    assert optimizers.judge_fig11({k: {"held": near(v)} for k, v in r.items()}).word == word


def test_a_wide_spread_is_no_win():
    r = {
        "M3": [0.1, 0.3, 0.5],
        "Muon": [0.35, 0.36, 0.37],
        "AdamW": [0.4, 0.41, 0.42],
        "M3, fast memory only": [0.4, 0.41, 0.42],
        "M3 as printed": [1.0] * 3,
    }
    assert optimizers.judge_fig11({k: {"held": v} for k, v in r.items()}).word == NO


# ---- Fig. 12 ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("muon", "ada", "word"),
    [
        ([1.2, 1.2, 1.21], 1.10, YES),
        ([1.2, 1.2, 1.21], 1.16, PARTLY),
        ([1.2, 1.2, 1.21], 0.80, PARTLY),
        ([0.9, 0.9, 0.91], 1.0, NO),
        ([0.8, 1.3, 1.0], 1.0, NO),
    ],
)
def test_rule_of_fig_12(muon, ada, word):
    r = {"ratios of CPU time": {"M3 / Muon": muon, "M3 / AdaMuon": near(ada)}}
    assert optimizers.judge_fig12(r).word == word


# ---- Fig. 6, Section 7.1 ---------------------------------------------------------------------------------------------
def scores(**percent: float):
    return {k: {"average": near(v)} for k, v in percent.items()}


@pytest.mark.parametrize(
    ("cms", "mlp", "steps", "ewc", "word"),
    [
        (80, 70, 75, 76, YES),
        (80, 70, 79.5, 76, PARTLY),
        (80, 70, 85, 76, PARTLY),
        (80, 70, 75, 82, PARTLY),
        (80, 79.5, 75, 82, NO),
        (70, 80, 60, 60, NO),
    ],
)
def test_rule_of_fig_6(cms, mlp, steps, ewc, word):
    r = scores(**{"CMS": cms, "one MLP": mlp, "same steps, no periods": steps, "EWC": ewc, "replay of 100": 95})
    assert continual.judge_fig6(r).word == word


@pytest.mark.parametrize(
    ("permuted", "rotated", "word"),
    [
        ((60, 50, 55), (60, 50, 55), YES),
        ((60, 50, 60), (60, 50, 55), PARTLY),
        ((60, 50, 60), (50, 50, 50), PARTLY),
        ((60, 50, 55), (45, 50, 40), NO),
        ((50, 50, 50), (50, 50, 50), NO),
    ],
)
def test_rule_of_section_7_1(permuted, rotated, word):
    r = {}
    for kind, numbers in (("permuted", permuted), ("rotated", rotated)):
        r |= scores(**{f"{m}, {kind}": n for m, n in zip(("CMS", "one MLP", "same steps, no periods"), numbers)})
    assert continual.judge_forgetting(r).word == word


# ---- Fig. 8 ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("icl", "static", "one", "three", "lost", "word"),
    [
        (50, 60, 70, 90, 20, YES),
        (50, 60, 70, 90, 9, PARTLY),
        (50, 90, 70, 90, 20, PARTLY),
        (50, 60, 90, 90, 20, PARTLY),
        (90, 60, 70, 90, 20, NO),
        (95, 60, 70, 90, 20, NO),
    ],
)
def test_rule_of_fig_8(icl, static, one, three, lost, word):
    right = {"ICL": icl, "static-3": static, "Hope-1": one, "Hope-2": 80, "Hope-3": three}
    r = {k: {"A": near(v), "lost": near(lost if k == "ICL" else 1)} for k, v in right.items()}
    assert continual.judge_fig8(r).word == word


# ---- Table 2 on text, the diagrams -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("hope", "word"), [(3.0, YES), (3.2, PARTLY), (3.3, NO)])
def test_rule_of_table_2_on_text(hope, word):
    r = {"Hope": near(hope), "gated delta": near(3.2), "Transformer": near(3.25), "pairs of bytes": near(3.6)}
    assert text.judge({k: {"bits": v, "bits 1": v, "bits 4": v} for k, v in r.items()}).word == word


def test_rules_of_the_diagrams():
    assert diagrams.judge_fig1({}).word == "out of reach"
    five = {"models": [5.0], "diagrams": [4715.0], "models with one": [5.0]}
    assert diagrams.judge_fig2({"five models": five}).word == "proved"
    assert diagrams.judge_fig2({"five models": five | {"models with one": [4.0]}}).word == NO
    block = {"empty context": [0.0], "loop": [1e-15], "written": [2.0]}
    for change in ({"loop": [1e-9]}, {"written": [0.0]}, {"empty context": [1e-3]}):
        assert diagrams.judge_fig3({"block": block | change}).word == NO
    for change, word in (({}, "proved"), ({"loop": [1e-13]}, "proved")):
        assert diagrams.judge_fig3({"block": block | change}).word == word
    lanes = {"spread": [1.0], "wrong": [0.0], "lanes": [8.0]}
    for change, word in (({}, "proved"), ({"spread": [2.0]}, NO), ({"wrong": [1.0]}, NO), ({"lanes": [0.0]}, NO)):
        assert diagrams.judge_fig5({"Hope": lanes | change}).word == word


@pytest.mark.parametrize("id", ["fig4", "fig6", "fig8", "fig11", "cms-forgetting", "table2-text"])
def test_the_picture_of_a_row_shows_its_groups(id):
    row, metric = find(id), {"fig4": "faster", "fig8": "A", "fig11": "held", "table2-text": "bits"}
    groups = {c.group for c in row.cells("quick", {})}
    values = {g: {metric.get(id, "average"): near(float(i)), "other": [1.0]} for i, g in enumerate(sorted(groups))}
    picture, alt = row.figure(values)
    labels = {t.get_text() for t in picture.axes[0].get_yticklabels()}
    assert labels == groups and all(g in alt for g in groups) and len(picture.axes[0].lines) == 2 * len(groups)
    assert row.figure({"only": {"other": [1.0]}} | values)[1] == alt  # a group without the metric is left out


# ---- the runs --------------------------------------------------------------------------------------------------------
def test_valleys_start_where_the_figure_does_and_near_it():
    a, b = (optimizer_runs.valleys(rule="clipped", seed=s, length=300) for s in (0, 1))
    assert a == optimizer_runs.valleys(rule="clipped", seed=0, length=300) and a != b
    assert 0 < a["faster"] <= a["arrives"] <= a["valleys"] == 27
    printed = optimizer_runs.valleys(rule="printed", seed=0, length=300)
    assert printed["arrives"] == 0 and "ratio" not in printed
    with refuses("rule"):
        optimizer_runs.valleys(rule="nesterov", seed=0)


def test_digits_are_learned_by_a_small_vit_and_a_diverging_run_counts():
    good = optimizer_runs.digits(optimizer="Muon", model="vit", lr=1e-2, seed=1, steps=40)
    assert good["held"] < 2 and good["accuracy"] > 0.3
    bad = optimizer_runs.digits(optimizer="SGD momentum", model="vit", lr=1e6, seed=1, steps=5)
    assert bad["held"] == optimizer_runs.WORST
    with refuses("model"):
        optimizer_runs.digits(optimizer="Muon", model="resnet", lr=1e-2, seed=1, steps=5)


def test_every_patch_of_the_vit_counts_and_a_seed_is_a_model():
    net = race.DigitViT(seed=3)
    assert torch.equal(net(torch.ones(1, 64)), race.DigitViT(seed=3)(torch.ones(1, 64)))
    x = torch.zeros(1, 64, requires_grad=True)
    net(x)[0, 0].backward()
    assert int((x.grad != 0).sum()) == 64
    image = torch.arange(64.0).view(8, 8)
    patches = image.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
    assert patches[0, 0].tolist() == [0, 1, 8, 9] and patches[0, 5].tolist() == [18, 19, 26, 27]
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(17_000, rel=0.1)


def test_step_times_are_ratios_of_whole_steps():
    r = optimizer_runs.step_times(seed=0, width=64, rounds=20)
    assert all(math.isfinite(v) and v > 0 for v in r.values()) and set(r) >= {"M3 / Muon", "M3 / AdaMuon"}


def test_a_stream_of_digits_is_a_percentage():
    tried = continual_runs.accuracy_by_rate(method="MLP", kind="class", lrs=[1e-3, 0.05], seed=7, steps=20)
    assert set(tried) == {"0.001", "0.05"}
    one = continual_runs.stream(method="MLP", kind="class", lr=1e-3, seed=7, steps=20)
    assert one["average"] == pytest.approx(100 * tried["0.001"], abs=1e-4) and 0 <= one["average"] <= 100


def test_two_languages_ask_what_they_taught():
    task = TwoLanguages(words=5, meanings=4, rounds=2)
    data = task.sample(3, seed=1)
    triples = data.tokens.view(3, -1, 3)
    assert triples.shape[1] == 5 * 6 and int(data.tokens.max()) < task.vocabulary
    for row in triples.tolist():
        book = {}
        for i, (tag, word, meaning) in enumerate(row):
            assert tag == (0 if i < 10 or 20 <= i < 25 else 1)
            assert book.setdefault((tag, word), meaning) == meaning  # a word keeps its meaning in its language
        assert len(book) == 10
    kinds = data.kind.view(3, -1, 3)
    assert bool((kinds[:, :, :2] == -1).all()) and kinds[0, :, 2].tolist() == (
        [-1] * 5 + [0] * 5 + [-1] * 5 + [0] * 5 + [1] * 5 + [2] * 5
    )
    perfect = torch.nn.functional.one_hot(data.tokens.roll(-1, 1), task.vocabulary).double()
    assert task.right(data, perfect) == {"again": 1.0, "A": 1.0, "B": 1.0}
    alone = task.sample(40, seed=2, single=True)
    assert alone.tokens.shape == (40, 45) and {int(t) for t in alone.tokens[:, 0]} == {0, 1}
    assert torch.equal(alone.tokens, task.sample(40, seed=2, single=True).tokens)


def test_readers_have_one_size_and_the_levels_that_their_names_say():
    sizes = {}
    for m in continual.READERS:
        c = continual_runs.reader(m, 18, 0)
        sizes[m] = Hope(c).parameter_count()
        assert (c.mlp == "cms") == m.startswith("Hope") and (c.mlp == "static" or len(c.periods) == int(m[-1]))
    assert max(sizes.values()) - min(sizes.values()) < 0.01 * max(sizes.values())
    with refuses("method"):
        continual_runs.reader("Hope-9", 18, 0)


def test_a_reader_of_languages_returns_percent():
    r = continual_runs.two_languages(method="ICL", lr=0.02, seed=0, steps=4, readers=8)
    assert r["lost"] == pytest.approx(r["single"] - r["A"]) and 0 <= r["single"] <= 100
    assert continual.both({"single": [80.0], "A": [40.0], "B": [60.0]}) == 65.0


def test_diagrams_are_computed():
    assert diagram_runs.levels() == {"models": 5, "diagrams": 4715, "accepted": 5, "models with one": 5}
    r = diagram_runs.recurrent_mlp(seed=4)
    assert r["empty context"] == 0 and r["loop"] < 1e-12 and r["written"] > 0.1
    assert diagram_runs.hope_lanes()["wrong"] == 0 and diagram_runs.hope_lanes()["lanes"] >= 8
