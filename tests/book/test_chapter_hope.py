"""Every claim of chapter 07 under a figure or in a sentence with a number: the build, and what each part carries."""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from nlbook.book import viz
from nlbook.book.chapters.hope import exercises, figures, parts, reading, rivals, talker
from nlbook.book.check import registry
from nlbook.book.check.define import Implement
from nlbook.errors import NLBookError
from nlbook.hope import Hope, HopeConfig, plain

PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "src" / "07_hope_whole.md"
GIVEN = ("read", "say", "unpack", "begin", "learn")
FOUR = ("M_k", "M_v", "M_eta", "M_alpha")


@lru_cache
def costs() -> dict[str, dict[str, float]]:
    streams = talker.LANGUAGE.sample(64, 10**6)
    return parts.cost(talker.talker(), streams, [("level",), ("M_mem",), *((n,) for n in FOUR), FOUR])


# ---- the build -------------------------------------------------------------------------------------------------------
def cells() -> list[str]:
    return re.findall(r"```\{code-cell\} ipython3\n(?::[^\n]*\n)*(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def functions(source: str) -> dict[str, ast.FunctionDef]:
    return {n.name: n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}


def test_what_the_page_gives_is_what_the_checks_use():
    page = functions("\n".join(cells()))
    module = functions(Path(exercises.__file__).read_text(encoding="utf-8"))
    for name in GIVEN:
        assert ast.unparse(page[name]) == ast.unparse(module[name]), name


@pytest.mark.eq(71, 74, 88, 90, 94, 95, 96)
def test_the_readers_pieces_compose_to_hope_in_110_lines():
    """The page's own cells, with the solutions in the place of the stubs, in a namespace of their own."""
    solutions = {
        i.solution.__name__: i.solution_source() for i in registry.chapter("07").values() if isinstance(i, Implement)
    }
    mine = "from __future__ import annotations\n"
    for cell in cells():
        if given := [f for name, f in functions(cell).items() if name in GIVEN]:
            mine += "\n".join(map(ast.unparse, given)) + "\n"
        elif "raise NotImplementedError" in cell:
            mine += "".join(solutions[name] for name in functions(cell))
    told = [n.body[0].end_lineno - n.body[0].lineno + 1 for n in functions(mine).values() if ast.get_docstring(n)]
    assert sum(bool(line.strip()) for line in mine.splitlines()) - sum(told) <= 110
    space = {
        "GATES": exercises.GATES,
        "torch": torch,
        "Tensor": torch.Tensor,
        "silu": exercises.silu,
        "rms": exercises.rms,
        "unit": exercises.unit,
    }
    exec(mine, space)
    config = HopeConfig(vocabulary=12, reset_token=11)
    model, g = Hope(config).double(), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for w in model.parameters():
            w += 0.1 * torch.randn(w.shape, generator=g, dtype=w.dtype)
        tokens = torch.randint(11, (300,), generator=g)
        tokens[[0, 270]] = 11
        whole = model(tokens[None])[0][0]
    weights = model.state_dict()
    yours = space["hope"](weights, tokens, config.periods, boundary=11)
    assert float((yours - plain.hope(weights, tokens, config.periods, boundary=11)).abs().max()) < 1e-9
    assert float((yours - whole).abs().max()) < 1e-9
    for block in model.blocks:
        block.mlp.held |= {0, 1, 2}
    with torch.no_grad():
        gap = (model(tokens[None])[0][0] - yours).abs().amax(1)
    assert int((gap > 1e-9).nonzero()[0, 0]) == 16  # the levels are in the equality


def test_by_hand_a_level_hears_the_next_token():
    w = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(-torch.log_softmax(torch.stack([w, -w]), 0)[0], w)
    assert float(slope) == -1 and float(torch.sigmoid(torch.tensor(2.0))) == pytest.approx(0.88, abs=0.005)


def test_erasing_alone_takes_no_more_than_is_there_and_a_whole_write_can_overshoot():
    one = torch.ones(1, dtype=torch.float64)
    W = (2 * one[:, None], 10 * one[:, None])
    (new, _), n = exercises.write(W, W, one, 0 * one, one[0], one[0], False), 10 * torch.sigmoid(10 * one)
    assert (W[0] @ n).item() == pytest.approx(20, abs=0.01) and (new @ n).item() == pytest.approx(-19.6, abs=0.05)
    kept = 1 - float(n @ n) / (1 + float(n @ n))
    assert 0 < kept < 1


# ---- what each part carries ------------------------------------------------------------------------------------------
def test_a_fact_told_once_outlives_its_document_in_the_level_alone():
    model, language = talker.talker(), talker.LANGUAGE
    still = parts.held(model, "level")
    assert next(iter(parts.answer(model, "|A3 d5 x1 |A", language).items())) == ("3", pytest.approx(0.9, abs=0.05))
    for text in ("|A3 d5 x1 |A", "|A3 d5 x1 |d"):
        assert max(parts.answer(still, text, language).values()) < 0.2
    assert max(parts.answer(model, "|A3 d5 x1 |d", language).values()) < 0.2


def test_the_level_carries_what_lasts_and_one_memory_the_document():
    level, memory, four = (costs()[n] for n in ("level", "M_mem", " and ".join(FOUR)))
    assert level["all"] == pytest.approx(0.208, abs=0.005) and level["for ever"] == pytest.approx(0.63, abs=0.02)
    assert abs(level["document"]) < 0.005 and abs(level["moment"]) < 0.005
    assert memory["document"] > 1 > 0.5 > memory["moment"] > 0.4 > 0.3 > memory["for ever"] > 0.15
    assert all(abs(nats) < 0.002 for name in (*FOUR, " and ".join(FOUR)) for nats in costs()[name].values())
    assert abs(four["all"]) < 0.002


def test_reading_facts_at_the_default_and_the_extremes():
    v = viz.find("reading")
    free, level, memory, others = (
        v.facts(f"reading:hold={h}") for h in ("nothing", "level", "M_mem", "the other four M")
    )
    assert free["known_for_ever"] > 0.9 and free["known_document"] > 0.88 and 0.55 < free["known_moment"] < 0.7
    assert level["known_for_ever"] == pytest.approx(0.63, abs=0.03)
    for kind in ("document", "moment"):
        assert abs(level[f"known_{kind}"] - free[f"known_{kind}"]) < 0.02 and memory[f"known_{kind}"] < 0.15
    assert 0.005 < free["known_for_ever"] - memory["known_for_ever"] < 0.05
    assert all(abs(others[n] - free[n]) < 0.01 for n in free if n.startswith("known"))
    assert [round(free[f"moved_{n}"], 2) for n in ("M_mem", "M_k", "M_eta")] == [0.30, 0.21, 0.14]
    assert others["moved_M_k"] == 0
    for stream in range(3):
        held = v.facts(f"reading:hold=level,stream={stream}")
        assert held["known_for_ever"] < v.facts(f"reading:stream={stream}")["known_for_ever"] - 0.1
    assert all(v.facts("reading:hold=all")[f"moved_{p}"] == 0 for p in parts.PARTS)


def test_a_held_part_does_not_move_and_the_others_do():
    r = reading.watched("M_v", 1)
    assert float(r.moved["M_v"].max()) == 0 and all(float(r.moved[n][-1]) > 0.001 for n in parts.PARTS if n != "M_v")
    assert all(float(x) >= 0 for x in r.known.flatten() if not math.isnan(x))
    moves = (r.step["level"] > 0).tolist()
    assert moves[4::4] == [True] * 7 and sum(moves) == 7  # at the end of each document but the last


def test_the_level_is_seen_to_move_only_after_the_documents_end():
    """With M memory held A and B are known by the level alone: not before the first end, and then they are."""
    r = reading.watched("M_mem", 0)
    before = r.known[r.times <= talker.LANGUAGE.document_length, :2]
    assert float(before[~before.isnan()].max()) < 0.25 and float(reading.later(r)[:, :2].nanmean()) > 0.9


def test_words_that_are_no_words_are_refused():
    with pytest.raises(NLBookError, match="text: got 'q'"):
        parts.encode("A3 q1", talker.LANGUAGE)
    with pytest.raises(NLBookError, match="names"):
        parts.held(talker.talker(), "M_q")
    with pytest.raises(NLBookError, match="every"):
        parts.watch(talker.talker(), talker.LANGUAGE, every=5)


# ---- figures, rivals -------------------------------------------------------------------------------------------------
def test_figures_and_their_words():
    curve = [dict.fromkeys(figures.KINDS, x) for x in (0.5, 0.05)]
    assert len(figures.learning((10, 20), curve).axes) == 1 and "A B from 0.50 to 0.050" in figures.learning_alt(
        (10, 20), curve
    )
    assert len(figures.held(costs()).axes) == 1 and "level: A B 0.6" in figures.held_alt(costs())
    assert "M k, M v, M η, M α: A B 0.00" in figures.held_alt(costs())
    found = {"Hope": {k: [0.01, 0.02] for k in figures.KINDS}}
    assert len(figures.rivals(found).axes) == 3 and "Hope: A B 0.015" in figures.rivals_alt(found)
    assert len(figures.anatomy().axes) == 1 and len(figures.ANATOMY.split()) > 8


def test_rivals_have_hopes_size_and_a_run_is_a_function_of_its_arguments():
    sizes = {n: Hope(make()).parameter_count() for n, make in rivals.RIVALS.items()}
    assert all(abs(n - sizes["Hope"]) <= 128 for n in sizes.values()), sizes
    a, b, c = (rivals.run("gated delta, the stream", 0.02, s, 2) for s in (0, 0, 1))
    assert a == b != c


def mean(name: str, kind: str = "all") -> float:
    return sum(rivals.judged(name, kind)) / len(rivals.SEEDS)


def test_what_the_rivals_say():
    assert mean("gated delta, a document") > 0.15 and mean("gated delta, a document", "for ever") > 0.5
    assert mean("gated delta, a document", "document") < 0.5 * mean("gated delta, two blocks", "document")
    hope = {kind: rivals.judged("Hope", kind) for kind in ("all", *figures.KINDS)}
    for name in ("gated delta, the stream", "gated delta, two blocks"):
        assert 0 < mean("Hope") - mean(name) < 0.01
        for kind, nearer in (("all", True), ("for ever", True), ("document", False), ("moment", True)):
            pairs = list(zip(rivals.judged(name, kind), hope[kind], strict=True))
            assert all((a < b) == nearer for a, b in pairs), (name, kind, pairs)
