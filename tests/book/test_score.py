"""The score of updates: what its picture says, on the numbers behind it, and a run of one's own that it plays."""

import json

import pytest
import torch
from kit import in_node

from nlbook.book import viz
from nlbook.book.viz.live import JS, Played
from nlbook.cms.additive import Clock, additive
from nlbook.errors import NLBookError
from nlbook.levels import Trace

CODE = """
const { run, knows, LENGTH, SWITCH } = S.model;
const at = Array.from({ length: LENGTH + 1 }, (_, t) => t);
return input.map((periods) => {
  const { lanes, pairs } = run(periods);
  return { pairs, SWITCH, lanes: lanes.map((l) => ({ ...l, knows: at.map((t) => knows(l, t)) })) };
});
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The two scores that the picture shows: with levels between the ends, and a Transformer."""
    return in_node(CODE, [[1, 16, 64], []], tmp_path_factory.mktemp("score"), S=JS / "score.js")


@pytest.mark.eq(71)
def test_a_lane_is_the_librarys_level(played):
    levels, k, v = played[0], torch.eye(6), torch.eye(12)
    keys, values = (torch.stack([eye[p[n]] for p in levels["pairs"]]).double() for n, eye in (("k", k), ("v", v)))
    for lane, C in zip(levels["lanes"][1:4], (1, 16, 64), strict=True):
        assert lane["updates"] == list(range(C, 145, C))
        _, (M,) = additive([Clock(6 / (6 + C), period=C)], keys, values, torch.zeros(144, dtype=torch.bool))
        assert torch.allclose(torch.tensor(lane["weights"][-1], dtype=torch.float64), M, atol=1e-12)


def test_the_notes_that_the_text_asks_for(played):
    slow = played[0]["lanes"][3]["updates"]
    assert [sum(u <= t for u in slow) for t in (50, 120, 128)] == [0, 1, 2]


def test_only_the_slowest_level_still_knows_french_and_its_next_note_takes_it(played):
    _, one, sixteen, slow, frozen = (lane["knows"] for lane in played[0]["lanes"])
    assert slow[120][0] > 0.9 > 0.2 > max(one[120][0], sixteen[120][0])
    assert slow[120][1] < 0.2 and min(one[120][1], sixteen[120][1]) > 0.9
    assert slow[128][0] < 0.5 < slow[128][1]
    assert frozen[120] == [1, 0]


def test_a_transformer_keeps_every_pair_and_mixes_the_languages(played):
    attention, frozen = played[1]["lanes"]
    assert len(attention["updates"]) == 144 and frozen["updates"] == []
    assert all(0.6 < x < 0.8 for x in attention["knows"][120])  # half French, half German: a cosine of 0.71


def test_periods_are_whole():
    with pytest.raises(NLBookError, match="periods"):
        viz.score(periods=(0,))


def test_a_model_of_ones_own_is_followed_while_it_trains():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    often, seldom = (torch.optim.SGD(net[i].parameters(), lr=0.1) for i in (0, 2))
    said = []
    with Trace(net, [often, seldom]) as trace:
        score = viz.score(trace)
        assert isinstance(score, Played)
        trace.listeners.append(lambda: said.append(data(score)))
        for step in range(1, 17):
            net(torch.ones(1, 4)).square().mean().backward()
            for optimizer in (often, seldom)[: 2 if step % 8 == 0 else 1]:
                optimizer.step()
    assert [d["live"] for d in (said[0], said[-2], said[-1])] == [True, True, False]
    assert said[0]["length"] < said[-1]["length"] == 16
    lanes = said[-1]["lanes"]
    assert [(x["name"], x["words"], x["updates"][-2:]) for x in lanes] == [
        ("0", "every step", [15, 16]),
        ("2", "every 8 steps", [8, 16]),
    ]
    assert all(len(x["state"]) == len(x["change"]) == len(x["updates"]) for x in lanes)


def data(score):
    script = score.data()
    return json.loads(script.partition("] = ")[2].partition(";dispatchEvent")[0])


def test_a_score_is_one_piece_of_html_and_its_data_another():
    assert "no writes" not in repr(viz.score()) and "http" not in viz.score()._repr_html_()
    net = torch.nn.Linear(1, 1)
    with Trace(net, torch.optim.SGD(net.parameters(), lr=0.1)) as trace:
        trace._note("weight", 1, net.weight, net.weight, "</script>")
    found = viz.score(trace)
    assert data(found)["lanes"][0]["why"] == ["</script>"] and "weight 1" in repr(found)
    assert found.data().count("</script>") == 1
