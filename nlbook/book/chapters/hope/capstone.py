"""Chapter 07's experiments: a small Hope, its baselines and its ablations on the language whose entropy is known.

Everything is pinned here, so that the chapter's numbers do not move when a default does. A run is a pure function of
(name, seed, steps): the same configuration, the same documents, the same budget for everybody.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nlbook.book import data
from nlbook.book.data.language import TimescaleLanguage
from nlbook.book.data.sequences import Sequences
from nlbook.errors import generator, need
from nlbook.hope import Hope, HopeConfig
from nlbook.train import Watch, train

LANGUAGE = TimescaleLanguage(static=2, document=2, fast=2, values=5)
BATCH, PAIRS, STEPS = 16, 24, 200
# outer learning rates, tuned on seed 100 in steps of two; Hope's parts take Hope's, the hybrid takes the Transformer's
RATES = {"Hope": 0.02, "gated delta": 0.04, "Transformer + conv": 0.04, "Hope-Attention": 0.04}
KINDS = ("static", "document", "fast")
OPTIONS: dict[str, Any] = {
    "chunk": 16,
    "other_chunk": 16,
    "objective": "l2",
    "factor": "raw",
    "read": "after",
    "eta": 0.1,
    "eta_max": 0.5,
    "horizon": 512.0,
    "mem_gain": 3.0,
}
HOPE = HopeConfig.first_edition(
    vocabulary=LANGUAGE.vocabulary,
    dim=32,
    layers=1,
    hidden=32,
    periods=(8, 32),
    options=OPTIONS,
    cms={"lr": 0.01},
    conv=4,
    conv_noise=0.5,
)
MOVING = ("mem", "k", "v", "eta", "alpha")
BASELINES = {"gated delta": "gated_delta", "Transformer + conv": "attention"}
HYBRID = "Hope-Attention"
TABLE_6 = {
    "without DGD": "w/o DGD",
    "without decay": "w/o weight decay",
    "without CMS": "w/o CMS",
    "M_k fixed": "w/o inner-projection k",
    "M_v fixed": "w/o inner-projection v",
    "with momentum": "w/o Momentum",
    "with M_q": "w/o inner-projection q",
}  # the last two are turned round
ABLATIONS: dict[str, dict[str, Any]] = {
    "without DGD": {"factor": None},
    "without decay": {"decay": False},
    "without CMS": {},
    "without self-made values": {"self_values": False},
    "M_k fixed": {"adaptive": [b for b in MOVING if b != "k"]},
    "M_v fixed": {"adaptive": [b for b in MOVING if b != "v"]},
    "with momentum": {"momentum": True},
    "with M_q": {"adaptive_q": True},
    "without convolution": {},
    "nothing moves": {"adaptive": []},
}
NAMES = ("Hope", *BASELINES, HYBRID, *ABLATIONS)


def config(name: str, seed: int = 0) -> HopeConfig:
    """The configuration of a contestant: "Hope", a baseline of the same size, or Hope with one part changed."""
    need(name in NAMES, "name", repr(name), f"one of {', '.join(NAMES)}")
    base = replace(HOPE, seed=seed)
    if name in BASELINES:
        return base.baseline(BASELINES[name])
    if name == HYBRID:  # attention, then the same moving chain
        return replace(base, mixer="attention", options={})
    changed = replace(base, options={**HOPE.options, **ABLATIONS.get(name, {})})
    if name in ("without CMS", "nothing moves"):  # a chain that does not move: as wide as keys and values cost
        changed = replace(changed, mlp="static", cms={}, hidden=2 * base.hidden)
    return replace(changed, conv=0) if name == "without convolution" else changed


def unseen(documents: int = 128, pairs: int = PAIRS, seed: int = 10**6) -> Sequences:
    """Documents that no training run sees."""
    return LANGUAGE.sample(documents, pairs, seed)


@torch.no_grad()
def excess(model: Hope, documents: Sequences | None = None) -> dict[str, float]:
    """Nats above the optimum per value: "all", and for each kind of key."""
    documents = unseen() if documents is None else documents
    return documents.excess(model(documents.tokens)[0])


@dataclass(frozen=True)
class Run:
    """A trained contestant: nats above the optimum at the end, and during training by step."""

    name: str
    seed: int
    model: Hope
    excess: dict[str, float]
    curve: dict[int, float]

    @property
    def parameters(self) -> int:
        return self.model.parameter_count()


def run(name: str, seed: int = 0, steps: int = STEPS, every: int = 25, lr: float | None = None) -> Run:
    """Train a contestant on fresh documents, the same ones for everybody. lr: default, the rate that suited it best on
    seed 100.
    """
    lr = RATES.get(name, RATES["Hope"]) if lr is None else lr
    model, watch = Hope(config(name, seed)), unseen()

    def check(m: Any) -> float:
        return excess(m, watch)["all"]

    def batch(step: int) -> Sequences:
        return LANGUAGE.sample(BATCH, PAIRS, 10**5 * (seed + 1) + step)

    history = train(model, batch, steps, lr=lr, seed=seed, watch=Watch(check, every), label=f"{name}, seed {seed}")
    return Run(name, seed, model, excess(model, watch), history.marks)


# ---------------------------------------------------------------------- what is kept in data/
READER_SEED, READER_STEPS = 0, 300


def trained() -> Hope:
    """Hope after READER_STEPS steps, from data/hope_reader.safetensors (made by data/make_hope.py)."""
    from safetensors.torch import load_file

    model = Hope(config("Hope", READER_SEED))
    model.load_state_dict(load_file(str(data.path("hope_reader.safetensors"))))
    return model.eval()


def recorded() -> dict[str, dict[str, Tensor]]:
    """The full run of the ablation from data/hope_ablation.json: name -> kind or "all" -> excess (seeds,)."""
    raw = json.loads(data.path("hope_ablation.json").read_text(encoding="utf-8"))
    return {
        name: {k: torch.tensor(v, dtype=torch.float64) for k, v in row.items()} for name, row in raw["rows"].items()
    }


def ablation(
    names: Sequence[str] = NAMES, seeds: Sequence[int] = (0, 1, 2), steps: int = STEPS
) -> dict[str, dict[str, Tensor]]:
    """The same table, trained now: some ten CPU minutes for all names."""
    found = {name: [run(name, seed, steps).excess for seed in seeds] for name in names}
    return {
        name: {k: torch.tensor([e[k] for e in rows], dtype=torch.float64) for k in rows[0]}
        for name, rows in found.items()
    }


def verdict(base: Tensor, changed: Tensor) -> str:
    """What a paired comparison of excesses (seeds,) says: worse or better on every seed, or neither."""
    gap = changed - base
    return "worse" if bool((gap > 0).all()) else "better" if bool((gap < 0).all()) else "cannot tell"


# ---------------------------------------------------------------------- a control: the same pairs in another order
def shuffled(documents: Sequences, seed: int = 0) -> Sequences:
    """The pairs of each document in random order. Counts stay, time is gone: what was true last means nothing now.

    The optimum of the ordered document is kept beside each pair, so `nats` may be compared and `excess` may not.
    """
    n, length = documents.tokens.shape
    g = generator(seed)
    order = torch.rand(n, length // 2, generator=g).argsort(1)
    at = torch.stack([2 * order, 2 * order + 1], -1).flatten(1)
    moved = [t.gather(1, at) for t in (documents.tokens, documents.graded, documents.optimum, documents.kind)]
    return Sequences(moved[0], moved[1], moved[2], moved[3], documents.kinds)


@torch.no_grad()
def nats(model: Hope, documents: Sequences) -> dict[str, float]:
    """Nats per value by kind of key."""
    paid = documents.nats(model(documents.tokens)[0])
    return {name: float(paid[documents.kind == i].mean()) for i, name in enumerate(documents.kinds)}
