"""Trials of the ledger about the paper's diagrams: what a picture of levels says that can be computed."""

from __future__ import annotations

import torch

from nlbook.attention import AdaTransformerBlock
from nlbook.book.chapters.levels.diagrams import five_systems, judge_all
from nlbook.errors import generator
from nlbook.hope import Hope, HopeConfig
from nlbook.levels import Trace

FIG_5 = ((16, 1_000_000), (1_000_000, 16), (16_000_000, 1))
"""(chunk, frequency) of the first and the last two kinds of lane of Hope in Fig. 5, as printed."""


def levels() -> dict[str, float]:
    """Five models drawn up by Definition 2: how many ordered level diagrams their components have ("diagrams"), how
    many pass ("accepted"), for how many models exactly one does ("models with one").
    """
    judged = [judge_all(system) for system in five_systems().values()]
    return {
        "models": float(len(judged)),
        "diagrams": float(sum(j.total for j in judged)),
        "accepted": float(sum(len(j.accepted) for j in judged)),
        "models with one": float(sum(len(j.accepted) == 1 for j in judged)),
    }


def recurrent_mlp(*, seed: int, dim: int = 8, length: int = 12) -> dict[str, float]:
    """Fig. 3 (eq. 21, 69): a linear memory with a learned start, in float64.

    "empty context": distance of its first read, before any write, from the MLP layer whose weights are its start;
    "loop": distance of the token loop from the parallel form; "written": how far the writes move the output.
    """
    block = AdaTransformerBlock(dim, seed=seed).double()
    x = torch.randn(1, length, dim, generator=generator(seed), dtype=torch.float64)
    with torch.no_grad():
        y, _, _ = block.attend(x)
        mlp, whole = block.start(y), block(x)
        nothing = AdaTransformerBlock(dim, seed=seed, lr=0.0).double()
        return {
            "empty context": float((nothing(x) - mlp).abs().max()),
            "loop": float((block.by_token(x) - whole).abs().max()),
            "written": float((whole - mlp).abs().max()),
        }


def hope_lanes(*, length: int = 64) -> dict[str, float]:
    """Fig. 5: "spread" of chunk x frequency over the printed lanes (1: the same for all), and, of a live Hope model,
    "wrong": memories whose recorded writes are not floor(length / period), and "lanes": how many were looked at.
    """
    products = [chunk * frequency for chunk, frequency in FIG_5]
    config = HopeConfig.first_edition(
        vocabulary=11, dim=8, hidden=8, layers=1, periods=(4, 16, 32), options={"chunk": 8, "other_chunk": 2}
    )
    model = Hope(config)
    tokens = torch.randint(11, (1, length), generator=generator(0))
    system = model.levels()
    with Trace(model) as trace, torch.no_grad():
        model(tokens)
    want = {c.name: length // int(c.period) for c in system.components if c.kind == "fast state" and c.period}
    wrong = sum(len(trace.updates.get(name, [])) != n for name, n in want.items())
    return {"spread": max(products) / min(products), "lanes": float(len(want)), "wrong": float(wrong)}
