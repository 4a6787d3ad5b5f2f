"""The race of the levels: where slow knowledge is a rule, do they earn what a memory of the same size does not?

This page is the rule and the protocol, committed before any run that counts.

Language: `Speakers()`. Some speakers lie; what one says of a fact that nobody heard from him follows from two things, so
a memory that is linear in what it reads cannot know it. It was chosen because prototypes found a lead of levels there.
Everybody: width 32, one block unless named, the same convolution and key shift, STEPS steps of BATCH streams, AdamW on
a cosine. Models with levels end their mixer with each document and move the level then. The level reads the token and
the one before, because who speaks stands before what is spoken of; gradients go through its updates. All others read the whole stream with whatever memory they have, and have at least as many
parameters as the largest model with levels, as far as the width of their MLP can make it so.
"behind the mixer" is the level as eq. 97 prints it, without the token before.
Tuning: each of RATES once, on the seed TUNING, half the steps; the rate with the lower excess runs on SEEDS, which no
run touched before. No other setting is tuned here (width 48 and rate 0.1 of the level are the prototypes'). (Before, on seed 200 alone, gated delta + level at rate 0.04:
0.242 behind the mixer after 200 steps, 0.200 reading both tokens after 300.) "x3" has three times the steps: what time
would bring to the baseline that could reason in two.
Reported: excess, nats per bit above the Bayes reader on TEST fresh streams (the same for all contestants of a seed),
mean and standard error over SEEDS; parameters, floats in the state, CPU seconds.
Verdict: a leads b when its mean is lower by more than two standard errors of the difference (`lead`); else "cannot
tell". Levels are the reason when the same model with its level held (it gathers and never moves) does not lead b.
A contestant whose seeds are not all there has no verdict.

To run it (it goes on where it stopped; what is finished is in levels_race.json), and to print what there is:

    python -m nlbook.book.chapters.hope.levels_race [race.json]
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.book.data.speakers import Speakers
from nlbook.errors import generator
from nlbook.hope import Hope, HopeConfig, LinearMixer
from nlbook.numerics import rms
from nlbook.paper.show import table
from nlbook.train import adamw, train
from nlbook.tree import tensors

LANGUAGE = Speakers()
STEPS, BATCH, TEST = 400, 4, 64
RATES, TUNING, SEEDS = (0.02, 0.04), 200, (30, 31, 32, 33, 34)
RECORD = Path(__file__).with_suffix(".json")
HOPE = HopeConfig(
    LANGUAGE.vocabulary,
    dim=32,
    layers=1,
    hidden=48,
    periods=(LANGUAGE.document_length,),
    cms={"lr": 0.1, "first_order": False},
)


class EachDocument(nn.Module):
    """A mixer that begins anew with each document. All are equally long, so it reads them side by side."""

    def __init__(self, mixer: Any, length: int) -> None:
        super().__init__()
        self.mixer, self.initial_state, self.length = mixer, mixer.initial_state, length

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        rows = x.unflatten(1, (-1, self.length)).flatten(0, 1)
        return self.mixer(rows, self.initial_state(len(rows)))[0].reshape(x.shape), state


def with_level(mixer: str, seed: int, hope: HopeConfig = HOPE, pair: bool = True, **fields: Any) -> Hope:
    """A block whose level moves once a document. pair: it reads the token and the one before."""
    net = Hope(replace(hope, mixer=mixer, seed=seed, **fields))
    block: Any = net.blocks[0]
    block.mixer = EachDocument(block.mixer, hope.periods[0])
    if not pair:
        return net
    block.before = nn.Parameter(torch.ones(hope.dim))

    def source(x: Tensor) -> Tensor:
        n = rms(x)
        return n + block.before * F.pad(n, (0, 0, 1, 0))[:, :-1]

    block._source = source
    return net


def without(mixer: str, seed: int, hope: HopeConfig = HOPE, pair: bool = True, wide: int = 0, **fields: Any) -> Hope:
    """A baseline as large as Hope, without levels, on the whole stream. wide: heads as wide as the model."""

    def make(hidden: int) -> Hope:
        plain = replace(hope, mixer=mixer, mlp="static", periods=(1,), ends=(), reset_token=None, cms={}, seed=seed)
        net = Hope(replace(plain, hidden=hidden, **fields))
        return widen(net, wide, seed) if wide else net

    size = with_level("self_modifying", seed, hope, pair).parameter_count()
    one, two = (make(h).parameter_count() for h in (1, 2))
    return make(max(1, 1 + math.ceil((size - one) / (two - one))))


def widen(net: Hope, heads: int, seed: int) -> Hope:
    """Gated delta whose heads are each as wide as the model: more keys, values, gates, and a wider read-out."""
    block, dim, g = net.blocks[0], net.config.dim, generator(seed + 7)
    block.mixer = LinearMixer(heads * dim, heads, conv_noise=net.config.conv_noise, seed=seed + 8)
    shift = block.mixer.qkv.taps.data[:, 1]
    shift.copy_(shift.roll(-1, -2))
    shift[:, -1] = 0
    q, v = (torch.randn(heads * dim, dim, generator=g) / dim**0.5 for _ in "qv")
    block.mixer.qkv.weight = nn.Parameter(torch.cat([q, q, v]))
    gate, block.mixer.gate = block.mixer.gate, nn.Linear(dim, 2 * heads)
    block.mixer.gate.weight.data.zero_()
    block.mixer.gate.bias = gate.bias
    block.W_g = nn.Parameter(torch.randn(heads * dim, dim, generator=g) / dim**0.5)
    block.W_o = nn.Parameter(torch.randn(dim, heads * dim, generator=g) / (heads * dim) ** 0.5)
    return net


CONTESTANTS: dict[str, Callable[[int], Hope]] = {  # in the order in which they run
    "gated delta + level": lambda seed: with_level("gated_delta", seed),
    "gated delta, 2 full heads": lambda seed: without("gated_delta", seed, wide=2),
    "attention": lambda seed: without("attention", seed),
    "gated delta, two blocks": lambda seed: without("gated_delta", seed, layers=2),
    "Hope-Attention": lambda seed: with_level("attention", seed),
    "gated delta, 4 full heads": lambda seed: without("gated_delta", seed, wide=4),
    "Hope": lambda seed: with_level("self_modifying", seed),
    "attention, two blocks": lambda seed: without("attention", seed, layers=2),
    "gated delta, two blocks, x3": lambda seed: without("gated_delta", seed, layers=2),
    "gated delta, 4 narrow heads": lambda seed: without("gated_delta", seed, heads=4),
    "gated delta": lambda seed: without("gated_delta", seed),
    "gated delta + level behind the mixer": lambda seed: with_level(
        "gated_delta", seed, pair=False, cms={**HOPE.cms, "variant": "sequential"}
    ),
}


def steps_of(model: str) -> int:
    """How long a contestant trains."""
    return STEPS * (3 if model.endswith(", x3") else 1)


def run(model: str, lr: float, seed: int, steps: int = STEPS, test: int = TEST) -> dict[str, float]:
    """Train one contestant and grade it."""
    return graded(CONTESTANTS[model](seed), LANGUAGE, BATCH, lr, seed, steps, test)


def graded(net: Hope, language: Any, batch: int, lr: float, seed: int, steps: int, test: int) -> dict[str, float]:
    """Train and grade: excess ("all", each kind, "held" where there are levels), size and cost."""
    began = time.process_time()
    history = train(
        net,
        lambda step: language.sample(batch, 10**6 * (seed + 1) + step, priced=False),
        steps,
        optimizer=adamw(net, lr),
        seed=seed,
    )
    seconds = time.process_time() - began
    data = language.sample(test, 10**9 + seed)
    with torch.no_grad():
        found = data.excess(net(data.tokens)[0])
        if net.config.mlp == "cms":
            net.blocks[0].mlp.held.update(range(len(net.config.periods)))
            found["held"] = data.excess(net(data.tokens)[0])["all"]
        state = net(data.tokens[:1])[1]
    sixths = {f"loss {i + 1}/6": sum(part) / len(part) for i, part in enumerate(_sixths(history.loss))}
    floats = sum(t.numel() for t in tensors(state.blocks).values())
    return found | sixths | {"parameters": net.parameter_count(), "floats": floats, "seconds": seconds}


def _sixths(x: list[float]) -> list[list[float]]:
    return [x[len(x) * i // 6 : len(x) * (i + 1) // 6] or x for i in range(6)]


class Record:
    """Finished runs, kept in a file after each one. work: makes a run that is missing; None: it is told as None."""

    def __init__(self, path: Path = RECORD, work: Callable[..., dict[str, float]] | None = None) -> None:
        self.path, self.work = path, work
        self.runs: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, model: str, lr: float, seed: int, steps: int) -> dict[str, float] | None:
        key = f"{model} | lr {lr:g} | seed {seed} | {steps} steps"
        if key not in self.runs and self.work:
            self.runs[key] = {k: round(v, 5) for k, v in self.work(model, lr, seed, steps).items()}
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.runs, indent=0) + "\n")
            os.replace(part, self.path)
            print(time.strftime("%H:%M:%S"), key, self.runs[key], flush=True)
        return self.runs.get(key)

    def rate(self, model: str) -> float | None:
        """The better rate of the tuning seed."""
        tried = [self(model, lr, TUNING, steps_of(model) // 2) for lr in RATES]
        done = [(t["all"], lr) for t, lr in zip(tried, RATES, strict=True) if t is not None]
        return min(done)[1] if len(done) == len(RATES) else None

    def seeds(self, model: str) -> list[dict[str, float]]:
        """The runs on fresh seeds, as many as there are."""
        lr = self.rate(model)
        return [] if lr is None else [r for s in SEEDS if (r := self(model, lr, s, steps_of(model))) is not None]


def without_speakers(seed: int) -> dict[str, float]:
    """Excess of the best reader that does not ask who lies, on the streams that grade this seed."""
    a, b, bit = LANGUAGE.draw(TEST, 10**9 + seed)
    data = LANGUAGE.sample(TEST, 10**9 + seed)
    more = LANGUAGE.pay_without_speakers(a, b, bit).flatten() - data.optimum[data.graded]
    return {"all": float(more.mean()), "new late": float(more[data.kind[data.graded] == 1].mean())}


def mean_se(x: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    t = torch.tensor(x, dtype=torch.float64)
    return float(t.mean()), float(t.std() / len(x) ** 0.5)


def lead(a: list[float], b: list[float]) -> str:
    """The rule: "leads", "trails" or "cannot tell", of the excesses of a against those of b."""
    (x, s), (y, t) = mean_se(a), mean_se(b)
    return "cannot tell" if abs(x - y) <= 2 * math.hypot(s, t) else "leads" if x < y else "trails"


def told(record: Record, against: str = "gated delta + level") -> str:
    """The table of what is finished, and the verdicts of one contestant against each other one."""
    first = [r["all"] for r in record.seeds(against)]
    rows = []
    for model in CONTESTANTS:
        runs = record.seeds(model)
        if len(runs) < 2:
            rows.append((model, f"{len(runs)} of {len(SEEDS)} seeds", *[""] * 8))
            continue
        whole = len(runs) == len(first) == len(SEEDS)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in (mean_se([r[k] for r in runs]) for k in ("all", "new late"))]
        held = f"{mean_se([r['held'] for r in runs])[0]:.3f}" if "held" in runs[0] else ""
        verdict = lead(first, [r["all"] for r in runs]) if whole and model != against else ""
        cost = (f"{runs[0]['parameters']:,.0f}", f"{runs[0]['floats']:,.0f}", f"{min(r['seconds'] for r in runs):.0f}")
        rows.append((model, f"{len(runs)}", *cells, held, f"{record.rate(model):g}", *cost, verdict))
    head = ("", "seeds", "excess", "new pairs, late", "level held", "rate", "parameters", "floats", "CPU s")
    return table((*head, f"{against} ..."), rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(told(Record(Path(sys.argv[1]), work=run) if sys.argv[1:] else Record()))
