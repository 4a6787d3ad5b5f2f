"""The page's engine (viz/js/engine.js) gives the library's numbers."""

import json
import subprocess
from pathlib import Path

import playwright
import pytest
import torch

from nlbook.book import viz
from nlbook.cms.additive import Clock, additive

ENGINE = Path(viz.__file__).parent / "js" / "engine.js"
NODE = Path(playwright.__file__).parent / "driver" / "node"  # the browser driver brings a node along

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


def run(body, given, tmp_path):
    """What `body` returns, a function of `input` and the engine `E`, run in node."""
    script = tmp_path / "run.mjs"
    script.write_text(
        f"import * as E from {json.dumps(ENGINE.as_uri())};\nimport {{ readFileSync }} from 'fs';\n"
        f"const main = (input) => {{ {body} }};\n"
        "console.log(JSON.stringify(main(JSON.parse(readFileSync(0, 'utf8')))));\n"
    )
    done = subprocess.run([NODE, script], input=json.dumps(given), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
    page = run(LEVELS, given, tmp_path)
    y, levels = additive(clocks, k, v, begins, loss)
    assert torch.allclose(torch.tensor(page["y"], dtype=torch.float64), y, atol=1e-10)
    for mine, theirs in zip(page["M"], levels, strict=True):
        assert torch.allclose(torch.tensor(mine, dtype=torch.float64), theirs, atol=1e-10)
