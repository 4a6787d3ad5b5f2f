"""Five memories while they read: what each writes, what it loses and how far it gets. No outer training. Chapter 06.

One layer of self-modifying Titans (d = 16, 32 hidden units) reads a text of four words that repeat (A); at the switch
four other words come (B). Each `case` leaves out one of the things that the paper does not mention and that it needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nlbook.errors import generator, need
from nlbook.numerics import unit
from nlbook.titans import BOXES, Gates, Rule, SelfModifyingTitans, Start
from nlbook.titans.rules import layer_io, read

CASES = ("usual", "k-is-v", "free-v", "zero", "given-v")
"""M_k and M_v near the identity; v not at length one; linear memories, M_mem from zero; v itself instead of M v."""
LENGTH, WORDS, DIM, HIDDEN = 64, 4, 16, 32
EXPLODED = 1e3


@dataclass(frozen=True)
class Five:
    """All (length, boxes) but eta (length,): boxes in the order of BOXES.

    moved: |M_t - M_{t-1}|. written: |eta grad|, the part of it that the value pulls; the rest is what forgetting and
    the DGD factor take away. away: |M_t - M_0|. error: |M(k) - v^|. eta: the rates. cosine: mean k . v / |v|. exploded: the first token after which some memory is larger than 1000 (or no number at all), else None; nothing is recorded from it on (nan).
    """

    moved: Tensor
    written: Tensor
    away: Tensor
    error: Tensor
    eta: Tensor
    cosine: float
    exploded: int | None


def layer(case: str, chunk: int, seed: int) -> SelfModifyingTitans:
    need(case in CASES, "case", repr(case), f"one of {', '.join(map(repr, CASES))}")
    made = SelfModifyingTitans(
        DIM,
        hidden=HIDDEN,
        chunk=chunk,
        other_chunk=chunk,
        memory="linear" if case == "zero" else "mlp",
        rule=Rule(self_values=case != "given-v", normalise_v=case != "free-v"),
        gates=Gates(eta=0.3, horizon=256),
        start=Start(gate_std=1.0, proj_std=0.02 if case == "k-is-v" else 2.0),
        conv=0,
        activation="none",
        seed=seed,
    ).double()
    if case == "zero":
        made.initial["mem_W"].data.zero_()
    return made


def text(switch: int, seed: int, length: int = LENGTH) -> Tensor:
    """(length, 16): words of length sqrt(16); the first four repeat up to the switch, then four others."""
    w = torch.randn(2 * WORDS, DIM, generator=generator(seed), dtype=torch.float64)
    i = torch.arange(length)
    return 4 * unit(w)[torch.where(i < switch, i % WORDS, WORDS + (i - switch) % WORDS)]


@lru_cache(maxsize=32)
def record(case: str = "usual", chunk: int = 1, switch: int = 32, seed: int = 0) -> Five:
    """Read the text token by token and write everything down."""
    made, x = layer(case, chunk, seed), text(switch, seed)
    places = {b: (g, j) for g, group in made.groups.items() for j, b in enumerate(group.names)}

    def weights(state: Any, box: str) -> dict[str, Tensor]:
        g, j = places[box]
        return {n: w[:, :, j : j + 1] for n, w in state.now[g].items()}

    def norm(parts: dict[str, Tensor]) -> float:
        return math.sqrt(sum(float(p.square().sum()) for p in parts.values()))

    state, rows, etas, cosines, exploded = made.initial_state(1), [], [], [], None
    first = {b: weights(state, b) for b in BOXES}
    with torch.no_grad():
        for t in range(len(x)):
            S, token = state.start, x[t].expand(1, 1, 1, 1, -1)
            z = read(S["proj"], token, made.groups["proj"].residual)
            k, v = unit(z[:, :, :1]), z[:, :, 1:]
            v = unit(v) if made.rule.normalise_v else v
            eta = made.gates(read(S["gate"], token, False)[..., 0]).eta
            push, errors = {}, {}
            for g, group in made.groups.items():
                value = read(S[g], v, group.residual) if made.rule.self_values or g == "gate" else v
                for n, (a, e) in layer_io(S[g], k, value, made.rule.objective, group.residual).items():
                    push[g, n] = -eta[..., None] * e.mT @ a  # (1, head, box, out, in)
                    if n != "W2":
                        errors[g] = e.norm(dim=-1)[0, 0, :, 0]  # of the answer, (box,)
            _, after = made(x[t][None, None], state)
            row = []
            for b in BOXES:
                (g, j), old, new = places[b], weights(state, b), weights(after, b)
                wrote = {n: push[g, n][:, :, j : j + 1] for n in old}
                row.append(
                    (
                        norm({n: new[n] - old[n] for n in old}),
                        norm(wrote),
                        norm({n: new[n] - first[b][n] for n in old}),
                        float(errors[g][j]),
                        norm(new),
                    )
                )
            if not all(math.isfinite(r) and r < EXPLODED for *_, r in row):
                exploded = t + 1
                break
            rows.append(row)
            etas.append(float(eta))
            cosines.append(float((k * unit(v)).sum()))
            state = after
    short = LENGTH - len(rows)
    out = torch.full((LENGTH, len(BOXES), 4), math.nan, dtype=torch.float64)
    if rows:
        out[: len(rows)] = torch.tensor([[r[:4] for r in row] for row in rows], dtype=torch.float64)
    moved, written, away, error = out.unbind(-1)
    eta = torch.tensor([*etas, *[math.nan] * short])
    return Five(moved, written, away, error, eta, sum(cosines) / max(1, len(cosines)), exploded)
