"""Chapter 06's trained readers: what a memory writes (given, own, random values), and what training makes of it.

A reader turns each token of a story (`nlbook.book.data.stories`) into a key, a v, a query and a rate, writes one linear
memory and answers from it. Everything outside the memory is trained: embeddings, maps, rate, read-out and the
memory's start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.book.data.stories import SWITCHES, Stories, sample
from nlbook.errors import generator, need
from nlbook.numerics import unit
from nlbook.titans import BOXES, Gates, Rule, SelfModifyingTitans, Start

VALUES = ("fixed", "self", "detached", "random", "five")
RULES = {"hebb": Rule("dot", None), "delta": Rule("l2", None), "dgd": Rule("l2", "raw")}


class Reader(nn.Module):
    """A linear memory that reads stories (chunk size 1), no forgetting, read after write.

    values: what is written. "fixed": v = M_v x. "self": M v (eq. 84). "detached": M v as a constant of the *outer*
    graph too, the trap. "random": R v with a new random R for each story, so that no read-out can undo it. "five": the
    library's `SelfModifyingTitans` with all five memories moving. rule: "hebb" (eq. 92 without the DGD factor),
    "delta" (eq. 93 without it) or "dgd" (eq. 93).
    """

    def __init__(
        self, values: str, rule: str = "hebb", *, people: int = 6, cities: int = 6, dim: int = 32, seed: int = 0
    ) -> None:
        super().__init__()
        need(values in VALUES, "values", repr(values), f"one of {', '.join(VALUES)}")
        need(rule in RULES, "rule", repr(rule), f"one of {', '.join(RULES)}")
        self.values, self.rule, g = values, RULES[rule], generator(seed)
        self.embed = nn.ParameterList(0.7 * torch.randn(n, dim, generator=g) for n in (people, people + cities, people))
        # The same start for every source: a layer whose M_k, M_v and M_eta do not move, except for "five".
        self.layer = SelfModifyingTitans(
            dim,
            memory="linear",
            chunk=1,
            other_chunk=1,
            rule=replace(self.rule, read="after", self_values=values != "fixed"),
            gates=Gates(eta=0.5, eta_max=1.0, decay=False),
            start=Start(mem_std=0.1),
            conv=0,
            activation="none",
            adaptive=BOXES if values == "five" else ("mem",),
            seed=seed,
        )
        self.head = nn.Parameter(torch.randn(cities, dim, generator=g) / dim**0.5)

    def forward(self, story: Stories, seed: int = 0) -> Tensor:
        """Logits over cities (batch, length, cities). seed: of the random maps."""
        x = sum(e[i] for e, i in zip(self.embed, (story.subject, story.object, story.asked), strict=True))
        assert isinstance(x, Tensor)
        y = self.layer(x)[0] if self.values == "five" else self.read_stories(x, seed)
        return 4 * y @ self.head.mT

    def read_stories(self, x: Tensor, seed: int = 0) -> Tensor:
        """What the layer does when only M_mem moves, its value in plain sight; x (batch, length, dim) -> the same."""
        layer = self.layer
        k, v = (unit(x @ layer.initial["proj_W"][0, j].mT) for j in range(2))
        q = unit(x @ layer.W_q.mT)
        eta = layer.gates((x @ layer.initial["gate_W"][0, :, 0].mT).mT[:, None]).eta[:, 0, 0, :, None]
        if self.values == "random":
            R = torch.randn(len(x), x.shape[-1], x.shape[-1], generator=generator(seed)) / x.shape[-1] ** 0.5
            v = v @ R.mT
        M = layer.initial["mem_W"][0]
        erased = ((self.rule.objective == "l2") + (self.rule.factor == "raw")) * k

        def writes(asked: Tensor, given: Tensor | float) -> Tensor:
            """u_t = -eta_t (M_{t-1} asked_t - given_t) of all tokens, M_t = M_{t-1} + u_t k_t^T: one triangular system."""
            right = -eta * (asked @ M.mT - given)
            return torch.linalg.solve_triangular(eta * asked @ k.mT, right, upper=False, unitriangular=True)

        u = writes(erased, v) if self.values in ("fixed", "random") else writes(erased - v, 0.0)
        if self.values == "detached":
            u = writes(erased, (v @ M.mT + (v @ k.mT).tril(-1) @ u).detach())
        return q @ M.mT + (q @ k.mT).tril() @ u


@dataclass(frozen=True)
class Trained:
    """A trained reader and, for each switch, the share of right answers at each token, (length,)."""

    reader: Reader
    right: dict[str, Tensor]
    switch: int
    loss: float

    def after(self, switch: str, skip: int = 6) -> float:
        """Share right, from `skip` tokens after the switch on."""
        return float(self.right[switch][self.switch + skip :].mean())


def train_reader(
    values: str,
    rule: str = "hebb",
    *,
    seed: int = 0,
    steps: int = 200,
    batch: int = 32,
    lr: float = 5e-3,
    test: int = 500,
    dim: int = 32,
) -> Trained:
    """Train on stories of both kinds, test on new ones. Adam; its rate rises for 20 steps, falls in the last 40 %."""
    reader = Reader(values, rule, seed=seed, dim=dim)
    optimizer, last = torch.optim.Adam(reader.parameters(), lr=lr), 0.0
    for i in range(steps):
        story = sample("both", batch, 1_000_003 * seed + i)
        loss = F.cross_entropy(reader(story, seed=i).flatten(0, 1), story.answer.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (i + 1) / 20, (steps - i) / (0.4 * steps))
        optimizer.step()
        last = float(loss.detach())
    right = {}
    with torch.no_grad():
        for switch in SWITCHES:
            story = sample(switch, test, 77_777 + seed)
            right[switch] = (reader(story, seed=99_999).argmax(-1) == story.answer).double().mean(0)
    return Trained(reader, right, story.switch, last)


@lru_cache(maxsize=64)
def trained(values: str, rule: str = "hebb", seed: int = 0, steps: int = 200) -> Trained:
    """`train_reader`, once."""
    return train_reader(values, rule, seed=seed, steps=steps)


def compare(
    sources: tuple[str, ...], rule: str = "hebb", seeds: int = 1, steps: int = 200, seed: int = 0
) -> dict[str, dict[str, Tensor]]:
    """source -> switch -> share right at each token, (seeds, length)."""
    runs = {v: [trained(v, rule, s, steps) for s in range(seed, seed + seeds)] for v in sources}
    return {v: {switch: torch.stack([r.right[switch] for r in rs]) for switch in SWITCHES} for v, rs in runs.items()}
