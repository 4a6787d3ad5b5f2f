"""Every verdict rule of the ledger on made-up numbers, on both sides of each threshold."""

from __future__ import annotations

import pytest

from nlbook.book.data.mad import TASKS
from nlbook.book.ledger.rows import formal, language, needles, recall, theory
from nlbook.book.ledger.runs import identities

YES, PARTLY, NO = "reproduced at toy scale", "partly", "not reproduced"


def seeds(centre: float, width: float = 0.001) -> list[float]:
    return [centre - width, centre, centre + width]


def one(metric: str, **groups: float) -> dict:
    return {g.replace("_", " "): {metric: seeds(x)} for g, x in groups.items()}


# ---- language --------------------------------------------------------------------------------------------------------
OTHERS = {"Transformer": 0.10, "linear_attention": 0.30, "gated_delta": 0.20, "Titans": 0.25}


@pytest.mark.parametrize(("hope", "word"), [(0.09, YES), (0.0995, PARTLY), (0.15, PARTLY), (0.25, NO), (0.40, NO)])
def test_table2(hope, word):
    """Best of all; level with the best; worse but ahead of Titans; level with Titans; behind."""
    assert language.judge_table2(one("excess", Hope=hope, **OTHERS)).word == word


def falling(first: float, last: float, cut: float) -> dict[str, list[float]]:
    return {"nats 1": seeds(first), "nats 4": seeds(last), "cut 4": seeds(cut), "optimum 4": seeds(0.1)}


def test_fig10():
    good, flat, no_memory = falling(1.0, 0.5, 1.0), falling(1.0, 1.0005, 1.2), falling(1.0, 0.5, 0.4995)
    assert language.judge_fig10({"Hope": good, "Titans": good}).word == YES
    assert language.judge_fig10({"Hope": good, "Titans": flat}).word == PARTLY
    assert language.judge_fig10({"Hope": good, "Titans": no_memory}).word == PARTLY
    assert language.judge_fig10({"Hope": flat, "Titans": good}).word == NO
    assert language.judge_fig10({"Hope": no_memory, "Titans": good}).word == NO
    one_seed = {**good, "nats 4": [0.5, 0.5, 1.1]}
    assert language.judge_fig10({"Hope": one_seed, "Titans": good}).word == NO, "every seed counts"


def ablated(helps: int, hurts: int) -> dict:
    """Hope at 0.1; the first `helps` parts save 0.05 nats, the next `hurts` cost 0.05, the rest make no difference."""
    r = one("excess", Hope=0.1)
    for i, variant in enumerate(language.PARTS.values()):
        without = 0.05 if i < helps else -0.05 if i < helps + hurts else 0.0002
        r[variant] = {"excess": seeds(0.1 + (-without if variant.startswith("with ") else without))}
    return r


@pytest.mark.parametrize(
    ("helps", "hurts", "word"),
    [(7, 0, YES), (6, 0, YES), (6, 1, PARTLY), (5, 0, PARTLY), (3, 2, PARTLY), (3, 3, NO), (2, 0, NO), (0, 7, NO)],
)
def test_table6(helps, hurts, word):
    found = language.effects(ablated(helps, hurts))
    assert [e for _, e in found.values()].count("helps") == helps
    assert [e for _, e in found.values()].count("hurts") == hurts
    assert language.judge_table6(ablated(helps, hurts)).word == word


def test_what_the_rows_say_of_the_race():
    from nlbook.book.chapters.hope.hope_race import recorded

    over = {n: entry.excess["all"] for n, entry in recorded().items()}
    assert round(sum(over["Hope"]) / 5, 2) == 0.03 and round(sum(over["gated delta"]) / 5, 2) == 0.01
    assert all(a < b for a, b in zip(over["self-modifying, no CMS"], over["Hope"], strict=True))


# ---- recall ----------------------------------------------------------------------------------------------------------
def recalled(hope: float, titans: float, free: float, transformer: float, task: str = "recall") -> dict:
    names = {"Hope": hope, "Titans": titans, "linear attention": free, "gated delta": free, "Transformer": transformer}
    return {f"{m}: {task}": {"accuracy": seeds(x)} for m, x in names.items()}


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((0.8, 0.7, 0.6, 0.9), YES),
        ((0.8, 0.7, 0.6, 0.805), PARTLY),
        ((0.805, 0.8, 0.6, 0.7), PARTLY),
        ((0.7, 0.6, 0.8, 0.7), PARTLY),
        ((0.7, 0.8, 0.8, 0.9), PARTLY),
        ((0.7, 0.8, 0.8, 0.8), NO),
    ],
)
def test_table3(numbers, word):
    """All of it; the Transformer level; Hope level with Titans; behind others but ahead of Titans; only the Transformer's
    part; nothing.
    """
    assert recall.judge_table3(recalled(*numbers)).word == word


@pytest.mark.parametrize(
    ("better", "worse", "word"),
    [(5, 0, YES), (3, 0, YES), (4, 1, PARTLY), (2, 0, PARTLY), (0, 2, PARTLY), (2, 3, NO), (0, 3, NO), (0, 5, NO)],
)
def test_table4(better, worse, word):
    r = {}
    for i, task in enumerate(TASKS):
        hope = 0.8 if i < better else 0.6 if i < better + worse else 0.705
        r |= recalled(hope, 0.7, 0.7, 0.7, task)
    assert recall.judge_table4(r).word == word


# ---- formal languages ------------------------------------------------------------------------------------------------
def recognised(hope0: int, hope1: int, regular: int) -> dict:
    """Hope knows the first hope0 (hope1) languages in Bin0 (Bin1), the Transformer the first `regular` regular ones."""
    r = {f"{m}: {x}": {"bin0": seeds(0.5), "bin1": seeds(0.2)} for m in formal.METHODS for x in formal.LANGUAGES}
    for i, x in enumerate(formal.LANGUAGES):
        r[f"{formal.HOPE}: {x}"] = {
            "bin0": seeds(0.96 if i < hope0 else 0.94),
            "bin1": seeds(0.96 if i < hope1 else 0.94),
        }
        r[f"Transformer: {x}"]["bin1"] = seeds(0.96 if i < regular else 0.94)
    return r


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((6, 6, 0), YES),
        ((6, 5, 0), PARTLY),
        ((5, 6, 0), PARTLY),
        ((6, 6, 1), PARTLY),
        ((1, 1, 0), PARTLY),
        ((6, 1, 1), NO),
        ((6, 0, 0), NO),
    ],
)
def test_table5(numbers, word):
    assert formal.judge(recognised(*numbers)).word == word


def test_table5_in_the_papers_layout():
    head, rows = formal.our_rows(recognised(6, 3, 0))
    assert len(head) == 13 and [r[0] for r in rows] == list(formal.METHODS)
    assert rows[4][:3] == [formal.HOPE, "96.0 ± 0.1", "96.0 ± 0.1"] and rows[4][-1] == "94.0 ± 0.1"


# ---- facts in long texts ---------------------------------------------------------------------------------------------
def found(hope: float, titans: float, gated: float, attention: float, transformer: float) -> dict:
    return {
        m: {"mean": seeds(x)}
        for m, x in {
            "Hope": hope,
            "Titans": titans,
            "gated delta": gated,
            "Hope-Attention": attention,
            "Transformer": transformer,
        }.items()
    }


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((0.9, 0.8, 0.8, 1.0, 1.0), YES),
        ((0.9, 0.8, 0.8, 1.0, 0.9), YES),
        ((0.9, 0.8, 0.8, 0.9, 1.0), PARTLY),
        ((0.8, 0.805, 0.7, 1.0, 1.0), PARTLY),
        ((0.8, 0.7, 0.9, 1.0, 1.0), PARTLY),
        ((0.7, 0.8, 0.8, 1.0, 0.9), NO),
    ],
)
def test_table1(numbers, word):
    assert needles.judge_table1(found(*numbers)).word == word


@pytest.mark.parametrize(
    ("none", "one_level", "three", "fast", "slow", "word"),
    [
        (0.5, 0.6, 0.7, 0.6, 0.7, YES),
        (0.5, 0.6, 0.7, 0.7, 0.705, PARTLY),
        (0.5, 0.695, 0.7, 0.6, 0.7, PARTLY),
        (0.695, 0.6, 0.7, 0.7, 0.7, NO),
        (0.7, 0.7, 0.6, 0.7, 0.6, NO),
    ],
)
def test_fig7(none, one_level, three, fast, slow, word):
    r = {
        "no level": none,
        "1 level, slowest 48": one_level,
        "3 levels, slowest 48": three,
        "2 levels, slowest 16": fast,
        "2 levels, slowest 48": slow,
    }
    assert set(r) == set(needles.LEVELS)
    assert needles.judge_fig7({k: {"mean": seeds(x)} for k, x in r.items()}).word == word


@pytest.mark.parametrize(
    ("short", "far", "rival", "word"),
    [
        (1.0, 0.95, 0.9, YES),
        (1.0, 0.91, 0.7, YES),
        (1.0, 0.89, 0.7, PARTLY),
        (1.0, 0.95, 0.945, PARTLY),
        (1.0, 0.8, 0.9, NO),
        (0.49, 0.48, 0.1, NO),
    ],
)
def test_fig9(short, far, rival, word):
    r = {
        m: {"6 in 48": seeds(short), "6 in 96": seeds(x), "6 in 768": seeds(x)}
        for m, x in {"Hope": far, "Titans": rival}.items()
    }
    assert needles.lengths(r) == [48, 96, 768]
    assert needles.judge_fig9(r).word == word


# ---- theory ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("holds", "printed", "word"), [(1e-10, 1e-10, "proved"), (1e-10, 1e-8, PARTLY), (1e-8, 1e-10, NO)]
)
def test_identities(holds, printed, word):
    r = {"float64": {"holds": [1e-16, holds], "printed": [1e-16, printed], "control": [0.5, 0.002]}}
    assert theory.judge_identity(r).word == word
    assert theory.judge_control("control")(r).word == word
    r["float64"]["control"] = [0.5, 0.0005]
    assert theory.judge_control("control")(r).word == NO, "a control that does not differ"


@pytest.mark.parametrize(("six", "many", "word"), [(0.5, 0.99, "proved"), (0.49, 0.99, PARTLY), (0.5, 0.98, PARTLY)])
def test_horizon(six, many, word):
    r = {"momentum 0.9": {"last 6": [six], "last 7": [0.52], "last 43": [many], "last 44": [0.991]}}
    assert theory.judge_horizon(r).word == word
    r["momentum 0.9"]["last 44"] = [0.98]
    assert theory.judge_horizon(r).word == ("proved" if word == "proved" else NO)


@pytest.mark.parametrize(
    ("slip", "formless", "untested", "word"), [(0, 0, 0, "proved"), (3, 0, 0, PARTLY), (3, 1, 0, NO), (0, 0, 1, NO)]
)
def test_equations(slip, formless, untested, word):
    r = {
        "all": {
            "equations": [121.0],
            "ok": [100.0],
            "conv": [10.0],
            "open": [5.0],
            "text": [3.0],
            "slip": [float(slip)],
            "without a corrected form": [float(formless)],
            "without a test": [float(untested)],
        }
    }
    assert theory.judge_equations(r).word == word


@pytest.mark.parametrize(
    "row", [r for r in theory.ROWS if r.cells("quick", {})[0].group == "float64"], ids=lambda r: r.id
)
def test_identities_hold(row):
    """The cells themselves take no time: they run here, and the row is judged."""
    from nlbook.book.ledger.engine import do
    from nlbook.book.ledger.row import gather

    cells = row.cells("quick", {})
    found = {c.name: do(c) for c in cells}
    assert not [o.error for o in found.values() if o.error]
    assert row.judge(gather(cells, {k: o.numbers for k, o in found.items()})).word in ("proved", PARTLY)


def test_every_equation_has_its_test_and_its_form():
    n = identities.equations()
    assert n["equations"] == 121 == sum(n[s] for s in ("ok", "conv", "open", "text", "slip"))
    assert n["without a test"] == n["without a corrected form"] == 0
    assert identities.horizon()["last 44"] > 0.99 > identities.horizon()["last 43"]


def test_pictures_draw_what_they_are_given():
    r = {m: {f"6 in {n}": seeds(0.5) for n in (48, 96)} for m in ("Hope", "Titans", "another")}
    picture, alt = needles.figure9(r)
    axes = picture.axes[0]
    assert [line.get_label() for line in axes.lines] == list(r) and "Titans 0.50 at 48 tokens" in alt
    assert all(list(line.get_ydata()) == [0.5, 0.5] for line in axes.lines)
    r = {m: {f"{k} {i}": seeds(0.5) for k in ("nats", "optimum") for i in (1, 2, 3, 4)} for m in ("Hope", "Titans")}
    picture, alt = language.figure10(r)
    assert [line.get_label() for line in picture.axes[0].lines] == [
        "Hope",
        "Titans",
        "ideal reader",
    ] and "0.50 to 0.50" in alt
