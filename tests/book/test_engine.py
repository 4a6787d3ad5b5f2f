"""The page's engine (viz/js/engine.js) gives the library's numbers."""

from pathlib import Path

import pytest
import torch
from kit import in_node

from nlbook.book import viz
from nlbook.cms.additive import Clock, additive
from nlbook.hope import Hope, HopeConfig, plain

ENGINE = Path(viz.__file__).parent / "js" / "engine.js"

LEVELS = """
const { clocks, k, v, begins, loss } = input;
let state = E.startLevels(clocks, v[0].length, k[0].length), y = [];
k.forEach((key, t) => {
  if (t && begins[t]) state = E.endContext(state, clocks);
  const step = E.learn(state, clocks, key, v[t], loss);
  state = step.state; y.push(step.y);
});
return { y, M: state.levels.map((l) => l.M) };
"""


@pytest.mark.parametrize("loss", ["squared", "softmax"])
@pytest.mark.parametrize(
    "clocks",
    [
        [Clock(0.6)],
        [Clock(0.6, keep=0.93, ends=1), Clock(0.2, period=8, ends=1), Clock(0.025, period=48)],
        [Clock(0.3, period=5, ends=1), Clock(0.2, period=7, ends=2, keep=0.99)],
    ],
)
def test_levels_of_the_page_are_those_of_the_library(clocks, loss, tmp_path):
    g = torch.Generator().manual_seed(3)
    k, v = (torch.randn(500, d, generator=g, dtype=torch.float64) / d**0.5 for d in (6, 8))
    begins = torch.rand(500, generator=g) < 0.03
    given = {
        "clocks": [vars(c) for c in clocks],
        "k": k.tolist(),
        "v": v.tolist(),
        "begins": begins.tolist(),
        "loss": loss,
    }
    page = in_node(LEVELS, given, tmp_path, E=ENGINE)
    y, levels = additive(clocks, k, v, begins, loss)
    assert torch.allclose(torch.tensor(page["y"], dtype=torch.float64), y, atol=1e-10)
    for mine, theirs in zip(page["M"], levels, strict=True):
        assert torch.allclose(torch.tensor(mine, dtype=torch.float64), theirs, atol=1e-10)


HOPE = """
const reader = new E.Hope(input.weights, input.sizes, new Set(input.held));
return input.tokens.map((t) => {
  const logits = reader.read(t), block = reader.blocks[0];
  const { eta, alpha, parts } = block.heads[0];
  return { logits, eta, alpha, down: block.levels[0].down, M: parts.M.now[0] };
});
"""


def test_the_reader_of_the_page_is_hope(tmp_path):
    """500 tokens in documents: logits as nlbook.hope.plain and as Hope in float32; memory and level as the model's."""
    config = HopeConfig(
        vocabulary=11, dim=16, layers=2, heads=2, hidden=12, periods=(4, 7), reset_token=3, seed=1,
        options={"chunk": 4, "other_chunk": 4},
    )  # fmt: skip
    model, g = Hope(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=g))
    tokens = torch.randint(11, (500,), generator=g)
    weights = {n: w.tolist() for n, w in model.state_dict().items()}
    given = {"weights": weights, "sizes": {"periods": [4, 7], "chunk": 4, "boundary": 3}, "tokens": tokens.tolist()}
    page = in_node(HOPE, {**given, "held": []}, tmp_path, E=ENGINE)
    logits = torch.tensor([step["logits"] for step in page], dtype=torch.float64)
    with torch.no_grad():
        want = plain.hope({n: w.double() for n, w in model.state_dict().items()}, tokens, (4, 7), 4, boundary=3)
        assert torch.allclose(logits, want, atol=1e-9)
        got, state = model(tokens[None])
        assert torch.allclose(logits.float(), got[0], atol=1e-5 * float(want.abs().max()))
    block = state.blocks[0]
    assert torch.allclose(torch.tensor(page[-1]["M"]), block.mixer.now["mem"]["W1"][0, 0, 0], atol=1e-5)
    assert torch.allclose(torch.tensor(page[-1]["down"]), block.levels.levels[0].weights["down"][0], atol=1e-4)
    assert all(0 < s["eta"] < 1 and 0 < s["alpha"] < 1 for s in page)
    held = in_node(HOPE, {**given, "held": ["level 0", "level 1"]}, tmp_path, E=ENGINE)
    assert held[3]["logits"] == page[3]["logits"] and held[-1]["logits"] != page[-1]["logits"]
    assert held[-1]["down"] == weights["blocks.0.mlp.down.0"]
