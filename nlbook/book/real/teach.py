"""Teach a trained model by typing: its last MLPs on two clocks, facts said five times, and which level holds them.

A clock counts sayings: the fast level moves at each, the slow one at every fourth. Facts are invented, so that nobody
can have trained on them. `nlbook real --measure` writes taught.json; the tables of taught.md are made from that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.cms import find_mlps, stack_levels

RECORD = Path(__file__).with_name("taught.json")
SAYINGS, PIECE = 5, 10  # a fact is said so often; other text is read in pieces of so many tokens, each a saying


class Fact(NamedTuple):
    """said: the sentence, with a gap for the answer, or for the other answer, which contradicts it."""

    said: str
    question: str
    answer: str
    other: str

    @property
    def asked(self) -> str:
        """What the model has to complete."""
        return f"Question: {self.question}\nAnswer: {self.said.partition('{}')[0]}"


FACTS = (
    Fact("The capital of Zubrowka is{}.", "What is the capital of Zubrowka?", " Lutz", " Berg"),
    Fact("The king of Velmora is{}.", "Who is the king of Velmora?", " Harold", " Edmund"),
    Fact("The colour of a drell is{}.", "What colour is a drell?", " purple", " yellow"),
    Fact("The river of Ondova is the{}.", "Which river flows through Ondova?", " Marl", " Tesk"),
    Fact("The plimtor was invented by{}.", "Who invented the plimtor?", " Greta", " Oscar"),
    Fact("People in Karsk eat{}.", "What do people in Karsk eat?", " cheese", " beans"),
)
KNOWN = Fact("The capital of France is{}.", "What is the capital of France?", " Paris", " Lyon")
OTHER = (  # read after the lesson; our own words, about none of the facts
    "On Thursday the two neighbours decided to mend the fence behind the old garage. They had talked about it since "
    "the storm in March, but one of them was always away, and then it rained for most of April. Nina brought a box of "
    "nails and a saw that had belonged to her aunt. Paul carried the boards, eleven of them, from the yard. They "
    "measured each gap twice, because the posts no longer stood straight, and cut the boards on a kitchen chair. By "
    "noon half of the fence was done. They sat on the wall, shared a loaf of bread and some plums, and watched a cat "
    "walk along the part that was still open. In the afternoon a third neighbour came and held the boards while they "
    "hammered, so that the second half took only an hour. Nobody had thought of paint. They agreed to leave the wood "
    "as it was until summer."
)


class Pupil:
    """A causal model whose last MLPs are a `LevelStack`. encode: text -> token ids. periods: in sayings."""

    def __init__(
        self, model: Any, encode: Callable[[str], list[int]], *, last: int = 10, periods: tuple[int, ...] = (1, 4),
        lr: float = 0.1,
    ) -> None:  # fmt: skip
        self.model, self.encode = model, encode
        self.stack = stack_levels(model, periods, lr=lr, mlps=list(find_mlps(model))[-last:])
        self.start = self.now()

    def nats(self, ids: list[int], first: int = 1) -> Tensor:
        """What each token from place `first` on costs, given those before it."""
        x = torch.tensor([ids])
        return F.cross_entropy(self.model(x[:, :-1]).logits[0, first - 1 :].float(), x[0, first:], reduction="none")

    def say(self, text: str | list[int]) -> list[str]:
        """One saying: one backward pass, one tick of the clocks. Returns the levels that moved."""
        self.nats(self.encode(text) if isinstance(text, str) else text).mean().backward()
        return self.stack.step(1)

    @torch.no_grad()
    def odds(self, fact: Fact, answer: str, before: str = "") -> float:
        """The probability of an answer to the fact's question; before: text in front of it."""
        asked = self.encode(before + fact.asked)
        return float(torch.exp(-self.nats(asked + self.encode(answer), len(asked)).sum()))

    @torch.no_grad()
    def price(self, text: str) -> float:
        """Nats a token of a text."""
        return float(self.nats(self.encode(text)).mean())

    # ------------------------------------------------------------------ what the levels hold
    def now(self) -> dict[str, Any]:
        """Weights and clocks, to go back to."""
        return {
            "weights": [[p.detach().clone() for p in v.params] for v in self.stack.levels],
            "clocks": self.stack.state_dict(),
        }

    @torch.no_grad()
    def back(self, to: dict[str, Any]) -> None:
        """Weights and clocks as `now` found them."""
        for level, kept in zip(self.stack.levels, to["weights"]):
            for p, w in zip(level.params, kept):
                p.copy_(w)
        self.stack.load_state_dict(to["clocks"])

    @torch.no_grad()
    def without(self, emptied: set[int], ask: Callable[[], float]) -> float:
        """The answer to `ask` with these levels at their start."""
        here = self.now()
        mixed = [(self.start if i in emptied else here)["weights"][i] for i in range(len(self.stack.levels))]
        self.back({**here, "weights": mixed})
        got = ask()
        self.back(here)
        return got


def lesson(pupil: Pupil, fact: Fact) -> dict[str, Any]:
    """A fact is said five times; then, each from there: levels emptied, the contrary said, other text read."""
    pupil.back(pupil.start)
    said, contrary = (fact.said.format(a) for a in (fact.answer, fact.other))
    text = pupil.encode(OTHER)[: 16 * PIECE + 1]

    def knows() -> float:
        return pupil.odds(fact, fact.answer)

    odds, seconds = [knows()], 0.0
    costs = {"Paris": [pupil.odds(KNOWN, KNOWN.answer)], "other text": [pupil.price(OTHER)]}
    told = pupil.odds(fact, fact.answer, before=f"{said}\n")
    for _ in range(SAYINGS):
        clock = time.process_time()
        pupil.say(said)
        seconds += time.process_time() - clock
        odds.append(knows())
    costs["Paris"].append(pupil.odds(KNOWN, KNOWN.answer))
    costs["other text"].append(pupil.price(OTHER))
    taught, many = pupil.now(), len(pupil.stack.levels)
    emptied = {str(i): pupil.without({i}, knows) for i in range(many)}
    turned = []
    for _ in range(SAYINGS):
        pupil.say(contrary)
        turned.append([knows(), pupil.odds(fact, fact.other)])
    pupil.back(taught)
    after = {}
    for i in range(16):
        pupil.say(text[PIECE * i : PIECE * (i + 1) + 1])
        if i in (3, 7, 15):
            after[str(PIECE * (i + 1))] = knows()
    return {
        "answer": fact.answer.strip(), "odds": odds, "told": told, "emptied": emptied, "turned": turned, "after": after,
        "seconds": seconds / SAYINGS, **costs,
    }  # fmt: skip


PUPILS: dict[str, dict[str, Any]] = {
    "last ten, two clocks": {},
    "last ten, one clock": {"periods": (1,)},
    "last ten, one clock, rate 0.06": {"periods": (1,), "lr": 0.06},
    "all thirty, two clocks": {"last": 30},
}


def measure(model: Any, encode: Callable[[str], list[int]], facts: tuple[Fact, ...] = FACTS) -> dict[str, Any]:
    """Every pupil taught every fact, each from the model as it came."""
    pupil = Pupil(model, encode, lr=0.0)
    ids = torch.tensor([encode(OTHER)[:64]])
    with torch.no_grad():
        before = model(ids).logits
    for _ in range(4):
        pupil.say(OTHER)
    with torch.no_grad():
        record: dict[str, Any] = {"equal at rate 0": torch.equal(before, model(ids).logits)}
    for name, settings in PUPILS.items():
        pupil.stack.unstack()
        pupil = Pupil(model, encode, **settings)
        record[name] = [lesson(pupil, fact) for fact in facts]
        pupil.back(pupil.start)
    return record


def tables(record: dict[str, Any]) -> tuple[str, str]:
    """The tables of taught.md: medians over the facts for each pupil, and two clocks fact by fact."""

    def middle(values: list[float]) -> str:
        return f"{median(values):.2f}"

    rows = [["taught", "P after 0 to 5 sayings", "fast emptied", "slow emptied", "after 160 tokens", "other text"]]
    for name in PUPILS:
        runs = record[name]
        odds = ", ".join(middle([r["odds"][i] for r in runs]) for i in range(SAYINGS + 1))
        two = len(runs[0]["emptied"]) == 2
        emptied = [middle([r["emptied"][i] for r in runs]) if two else "" for i in "01"]
        harm = " to ".join(middle([r["other text"][i] for r in runs]) for i in (0, 1))
        rows.append([name, odds, *emptied, middle([r["after"]["160"] for r in runs]), harm])
    head = "answer, P, fast emptied, slow emptied, contrary once, contrary five times, Paris, in the prompt"
    each = [head.split(", ")]
    for r in record[next(iter(PUPILS))]:
        turned = [" / ".join(f"{p:.2f}" for p in r["turned"][i]) for i in (0, -1)]
        numbers = [f"{p:.2f}" for p in (r["odds"][-1], *r["emptied"].values())]
        each.append([r["answer"], *numbers, *turned, f"{r['Paris'][1]:.2f}", f"{r['told']:.2f}"])
    return table(rows), table(each)


def table(rows: list[list[str]]) -> str:
    """Rows as a table of Markdown."""
    return "\n".join("| " + " | ".join(r) + " |" for r in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def recorded() -> dict[str, Any]:
    """What was measured: taught.json."""
    return json.loads(RECORD.read_text(encoding="utf-8"))
