"""The level detective: the verdict is Definition 2's, at every state; the board moves as the browser moves it."""

from __future__ import annotations

from itertools import product

import pytest

from nlbook.book import viz
from nlbook.book.chapters.levels import detective
from nlbook.book.chapters.levels.detective import LANES, SYSTEMS, judge, solution, system

TRUE = {
    "pair": [["W_k"], ["M_t"]],
    "layer": [["W_k", "MLP", "W_init"], ["m_t", "v_t"], ["M_t"], ["attention"]],
    "deployed": [["W_k", "MLP", "W_init"], ["M_t"], ["attention"]],
    "momentum": [["W", "b"], ["m_t"]],
    "M3": [["m2"], ["W"], ["m1", "v"]],
}


def at(name: str, *lanes: int) -> viz.State:
    return viz.find("detective").state(system=name, lanes=lanes or (0,))


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_solution_is_the_order_of_definition_2_and_is_accepted(name: str) -> None:
    s = system(name)
    assert [sorted(g) for g in s.levels] == [sorted(g) for g in TRUE[name]]
    case = judge(at(name, *solution(name)))
    assert case.solved and case.verdict().startswith(f"Solved: {len(TRUE[name])} levels, no arrow broken.")
    steps = list(SYSTEMS)
    following = [*steps[1:], None][steps.index(name)]
    assert case.verdict().endswith("broken." if following is None else f"Go on with {SYSTEMS[following]}.")
    assert viz.find("detective").landmarks[SYSTEMS[name]] == viz.find("detective").state(system=name)
    higher = judge(at(name, *(lane + 1 for lane in solution(name))))  # an empty lane below changes nothing
    assert higher.solved and higher.label(1) == "empty lane" and higher.label(2) == "level 1"


@pytest.mark.parametrize("name", ["pair", "momentum", "M3"])
def test_of_all_placements_only_the_true_order_is_accepted(name: str) -> None:
    """Every placement of every part, the tray included; those accepted are the true order, shifted or with gaps."""
    parts = [c.name for c in system(name).components]
    for lanes in product(range(LANES + 1), repeat=len(parts)):
        case = judge(at(name, *lanes))
        assert case.solved == ([sorted(g) for g in case.levels] == [sorted(g) for g in TRUE[name]] and not case.tray)
        assert case.solved or case.violations or case.tray


def test_momentum_below_the_weights_is_refused_with_the_arrow() -> None:
    case = judge(at("layer", 2, 3, 1, 1, 4, 2, 2))
    assert len(case.violations) == 6 and not case.solved
    assert str(case.violations[0]).startswith(
        "m_t > W_k is violated: both are updated once per sequence of 512 tokens and W_k at time t needs m_t at time t"
    )
    beside = judge(at("layer", 1, 3, 1, 1, 4, 1, 1))
    assert "not of one level" in str(beside.violations[0])
    tie = judge(at("momentum", 1, 2, 2))
    assert [v.kind for v in tie.violations] == ["tie"] and "deeper than it has to" in tie.verdict()


def test_facts_count_what_the_answer_says() -> None:
    v = viz.find("detective")
    f = v.facts("detective:lanes=1,1,1,1,1,1,1")
    assert f["arrows"] == f["broken"] == 17 and f["levels"] == 1 and f["true_levels"] == 4
    assert (
        v.facts("detective")["placed"] == 0
        and v.facts("detective")["broken"] == 0
        and not v.facts("detective")["solved"]
    )
    assert v.facts(v.landmarks["the layer, solved"])["solved"] == 1
    assert v.facts("detective:system=deployed;lanes=1,2,3,1,1")["solved"] == 1
    assert v.facts("detective:system=M3;lanes=1,2,2,2")["broken"] == 3
    assert v.facts("detective:system=M3;lanes=2,3,3,1")["solved"] == 1
    assert "four levels" in v.answer.lower()


def test_a_list_that_does_not_fit_the_model_leaves_all_in_the_tray() -> None:
    assert judge(at("M3", 1, 2, 3)).tray == ["W", "m1", "v", "m2"]
    assert "4 parts still in the tray" in viz.find("detective").alt("detective:system=M3;lanes=5,5,5")


def test_the_board_moves_the_picture_and_gets_the_verdict_back() -> None:
    p = viz.load("detective")
    assert p.live.verdict.startswith("7 parts still in the tray") and p.state_string == "detective"
    p.live.set_state({"chosen": [1, 1, 3, 2, 2, 4, 1, 1]})  # what the browser sends
    assert p.live.solved and p.state_string == "detective:lanes=1,3,2,2,4,1,1" and p.screen.state == p.state_string
    p.live.set_state({"chosen": [2, 1, 3, 1, 2, 4, 1, 1]})
    assert not p.live.solved and ["W_k", "m_t"] in p.live.arrows and "m_t > W_k" in p.live.messages[0]
    assert {x["name"] for x in p.live.parts if x["trouble"]} == {"W_k", "MLP", "W_init", "m_t"}
    p.set(system="M3")
    assert len(p.live.parts) == 4 and not any(x["lane"] for x in p.live.parts) and p.live.unit == "optimizer step"
    p.live.set_state({"chosen": [3, 1, 2, 9, 0]})  # nonsense from a page is answered, not obeyed
    assert "expected" in p.message.value and p.state.system == "M3"


def test_the_twin_says_all_that_the_board_says() -> None:
    p = viz.load("detective:lanes=2,3,1,1,4,2,2")
    words = p.describe()
    for c in system("layer").components:
        assert c.name in words and c.note in words
    assert words.count("is violated") >= 6


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("lane", [0, 1, LANES])
def test_all_parts_in_one_lane_draw(name: str, lane: int) -> None:
    state = at(name, *[lane] * len(system(name).components))
    fig = detective.paint(judge(state))
    boxes = [t.get_text() for t in fig.axes[0].texts]
    assert len(fig.axes[0].patches) >= len(system(name).components) and any("slow (unit" in b for b in boxes)
    assert len(viz.find("detective").alt(state).split()) >= 8
