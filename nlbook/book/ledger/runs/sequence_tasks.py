"""Trials of the ledger: one model, one task, one seed; what comes back is a dict of numbers.

    numbers = language(method="Hope", lr=0.02, seed=3, steps=300)

Every method is the same language model (`nlbook.hope`) with the same convolution, gate and norms and as many
parameters; only what mixes the sequence, and whether MLPs learn in context, differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nlbook.book.data.haystack import Facts
from nlbook.book.data.language import TimescaleLanguage
from nlbook.book.data.mad import MAD
from nlbook.book.data.sequences import Sequences
from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.train import train

SIZE: dict[str, Any] = {"dim": 32, "layers": 1, "hidden": 48, "periods": (16, 48)}
"""Size of every model of a trial: 15 to 20 thousand parameters."""

MEMORY: dict[str, Any] = {
    "memory": "linear",
    "chunk": 32,
    "other_chunk": 32,
    "read": "after",
    "eta": 0.5,
    "eta_max": 1.0,
    "horizon": 150.0,
}
"""Hope's memories in a trial: matrices, which a few hundred steps can train; Titans has the same."""

MIXER = {"Transformer": "attention", "linear attention": "linear", "gated delta": "gated_delta", "Titans": "titans"}

WITHOUT: dict[str, dict[str, Any]] = {
    "w/o DGD": {"factor": None},
    "w/o weight decay": {"decay": False},
    "w/o inner-projection k": {"adaptive": ["mem", "v", "eta", "alpha"]},
    "w/o inner-projection v": {"adaptive": ["mem", "k", "eta", "alpha"]},
    "with momentum": {"momentum": True},
    "with inner-projection q": {"adaptive_q": True},
}
"""Hope with one option of its self-modifying memory changed (Table 6). Equations 83-97 have neither momentum nor a
memory for q, so these two are added, not taken away."""

ABLATIONS = (*WITHOUT, "w/o CMS")


def config(method: str, vocabulary: int, seed: int, **changes: Any) -> HopeConfig:
    """The settings of a method. Baselines have one static MLP, as wide as makes them as large as Hope.

    method: "Hope", "Hope-Attention" (as large as Hope; "Hope-Attention, as given": of the given width), a key of MIXER,
        or one of ABLATIONS. changes: fields of HopeConfig.
    """
    hope = HopeConfig.first_edition(vocabulary=vocabulary, seed=seed, options=dict(MEMORY), **{**SIZE, **changes})
    if method == "Hope":
        return hope
    if method in WITHOUT:
        return replace(hope, options={**MEMORY, **WITHOUT[method]})
    if method == "w/o CMS":  # the same MLPs, none of which learns in context
        return replace(hope, mlp="static")
    if method == "Hope-Attention, as given":
        return replace(hope, mixer="attention", options={})
    if method == "Hope-Attention":  # its levels are widened to Hope's size
        return replace(hope, mixer="attention", options={}).as_large_as(hope)
    known = ["Hope", "Hope-Attention", "Hope-Attention, as given", *MIXER, *ABLATIONS]
    need(method in MIXER, "method", repr(method), f"one of {', '.join(known)}")
    own = {k: v for k, v in MEMORY.items() if k != "other_chunk"} | {"radius": None} if method == "Titans" else {}
    return hope.baseline(MIXER[method], options=own)


def fit(c: HopeConfig, batches: Callable[[int], Any], *, steps: int, lr: float, seed: int) -> Hope:
    """A model of these settings, trained; deterministic in its arguments."""
    model = Hope(c)
    train(model, batches, steps, lr=lr, seed=seed)
    return model


def batch_seed(seed: int, step: int) -> int:
    """The seed of one batch of training."""
    return 10**5 * seed + step


def held_out(seed: int) -> int:
    """The seed of test data, far from that of every batch of training."""
    return 10**9 + seed


@torch.no_grad()
def logits_of(model: Hope, tokens: Tensor, batch: int = 64) -> Tensor:
    """Logits for many sequences, a part at a time."""
    return torch.cat([model(t)[0] for t in tokens.split(batch)])


# ---------------------------------------------------------------------- Table 2, Fig. 10, Table 6
LANGUAGE = TimescaleLanguage(static=4, document=4, fast=2, values=8)


def language(
    *,
    method: str,
    lr: float,
    seed: int,
    steps: int,
    batch: int = 16,
    pairs: int = 48,
    documents: int = 192,
    **changes: Any,
) -> dict[str, float]:
    """Learn a language with static, document and fast facts; then read new documents.

    Returns nats per value above the entropy rate ("excess", "excess static", ...); nats per value by quarter of a
    document ("nats 1" ... "nats 4"), the ideal reader's ("optimum 1" ...), and what the last quarter costs when nothing
    before it was read ("cut 4").
    """
    task = LANGUAGE
    model = fit(
        config(method, task.vocabulary, seed, **changes),
        lambda step: task.sample(batch, pairs, batch_seed(seed, step)),
        steps=steps,
        lr=lr,
        seed=seed,
    )
    data = task.sample(documents, pairs, held_out(seed))
    logits = logits_of(model, data.tokens)
    out = {"excess" if k == "all" else f"excess {k}": v for k, v in data.excess(logits).items()}
    quarter = 2 * (pairs // 4)
    for i in range(4):
        part = slice(i * quarter, (i + 1) * quarter)
        out[f"nats {i + 1}"] = _mean(data.nats(logits)[:, part], data.graded[:, part])
        out[f"optimum {i + 1}"] = _mean(data.optimum[:, part], data.graded[:, part])
    last = slice(3 * quarter, 4 * quarter)
    alone = Sequences(data.tokens[:, last], data.graded[:, last], data.optimum[:, last], data.kind[:, last], data.kinds)
    out["cut 4"] = float(alone.loss(logits_of(model, alone.tokens)))
    return out | {"parameters": float(model.parameter_count())}


def _mean(x: Tensor, where: Tensor) -> float:
    return float(x.double()[where].mean())


# ---------------------------------------------------------------------- Table 1, Fig. 7, Fig. 9
def facts(
    *,
    method: str,
    lr: float,
    seed: int,
    steps: int,
    counts: list[int],
    length: int,
    tests: list[int],
    news: bool = False,
    keys: int = 8,
    batch: int = 32,
    texts: int = 128,
    **changes: Any,
) -> dict[str, float]:
    """Learn to answer for facts in texts of `length` tokens; then in texts of the lengths `tests`.

    counts: how many facts a text holds; a batch has one of these counts, in turn. Returns accuracies
    "1 in 48" (one fact, 48 tokens), ..., their "mean", and with news also "rewritten in 48".
    """
    tasks = [Facts(n, keys=keys, news=news) for n in counts]
    model = fit(
        config(method, tasks[0].vocabulary, seed, **changes),
        lambda step: tasks[step % len(tasks)].sample(batch, length, batch_seed(seed, step)),
        steps=steps,
        lr=lr,
        seed=seed,
    )
    out = {}
    for task in tasks:
        for n in tests:
            data = task.sample(texts if n <= 256 else texts // 2, n, held_out(seed) + n)
            logits = logits_of(model, data.tokens)
            out[f"{task.facts} in {n}"] = data.accuracy(logits)
            if news:
                right = (logits[:, :-1].argmax(-1) == data.tokens[:, 1:]).double()
                out[f"rewritten in {n}"] = _mean(right, data.kind[:, 1:] == 1)
    shares = [v for k, v in out.items() if not k.startswith("rewritten")]
    return out | {"mean": sum(shares) / len(shares), "parameters": float(model.parameter_count())}


# ---------------------------------------------------------------------- Tables 3 and 4
def mad(
    *,
    method: str,
    lr: float,
    seed: int,
    steps: int,
    task: str,
    length: int = 48,
    batch: int = 32,
    sequences: int = 256,
    **changes: Any,
) -> dict[str, float]:
    """Learn one task of MAD; accuracy and nats on new sequences."""
    made = MAD(task)
    model = fit(
        config(method, made.vocabulary, seed, **changes),
        lambda step: made.sample(batch, length, batch_seed(seed, step)),
        steps=steps,
        lr=lr,
        seed=seed,
    )
    data = made.sample(sequences, length, held_out(seed))
    logits = logits_of(model, data.tokens)
    return {
        "accuracy": data.accuracy(logits),
        "nats": data.excess(logits)["all"],
        "parameters": float(model.parameter_count()),
    }
