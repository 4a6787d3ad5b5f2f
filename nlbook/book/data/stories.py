"""Who lives where? Facts ("Ada moved to Rome") and references ("Ada moved in with Ben"), with a switch of the rule.

A token has a subject, an object and a question. Before the switch every object is a city. After it the rule is either
"facts" (objects are cities again, other ones) or "references" (objects are people: the subject now lives where that
person lives at this moment). Only a memory that can write what it already holds can follow a reference. Chapter 06.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.book.data.recall import unit
from nlbook.book.data.sequences import sizes
from nlbook.errors import generator, need

SWITCHES = ("facts", "references")
SOURCES = ("fixed", "self", "random")


@dataclass(frozen=True)
class Stories:
    """subject, object, asked, answer: (batch, length), int64. object < people: a person, else people + city.

    asked: a person whose home is known by then, told in this very token perhaps. answer: the city, after this token.
    """

    subject: Tensor
    object: Tensor
    asked: Tensor
    answer: Tensor
    people: int
    cities: int
    switch: int


def sample(
    switch: str, batch: int, seed: int, *, people: int = 6, cities: int = 6, before: int = 12, after: int = 12
) -> Stories:
    """A batch of stories: `before` tokens with facts, each person in the first `people` of them, then `after` tokens.

    switch: what the objects are after the switch, "facts", "references", or "both" (each story one of them, by lot).
    """
    need(switch in (*SWITCHES, "both"), "switch", repr(switch), "'facts', 'references' or 'both'")
    sizes(batch=batch, people=people, cities=cities)
    need(people >= 2, "people", people, "an int >= 2: a reference needs somebody else")
    need(before >= people and after >= 0, "before, after", (before, after), f"before >= {people} (people), after >= 0")
    g, row = generator(seed), torch.arange(batch)
    refer = (
        torch.randint(2, (batch,), generator=g).bool() if switch == "both" else torch.full((batch,), switch != "facts")
    )
    home = torch.full((batch, people), -1)
    out: list[list[Tensor]] = [[], [], [], []]
    for t in range(before + after):
        told = min(t + 1, people)
        who = torch.full((batch,), t) if t < people else torch.randint(people, (batch,), generator=g)
        city = torch.randint(cities, (batch,), generator=g)
        other = torch.randint(people - 1, (batch,), generator=g)
        other = other + (other >= who)
        follows = refer & (t >= before)
        home = home.clone()
        home[row, who] = torch.where(follows, home[row, other.clamp_max(people - 1)], city)
        asked = torch.randint(told, (batch,), generator=g)
        for rows, new in zip(
            out, (who, torch.where(follows, other, people + city), asked, home[row, asked]), strict=True
        ):
            rows.append(new)
    subject, obj, asked, answer = (torch.stack(rows, 1) for rows in out)
    return Stories(subject, obj, asked, answer, people, cities, before)


def words(people: int, cities: int, d: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors for people (people, d) and cities (cities, d), float64; random, or for d = None at right angles."""
    n = people + cities
    x = torch.randn(n, d or n, generator=generator(seed), dtype=torch.float64)
    x = torch.linalg.qr(x.mT)[0].mT if d is None else unit(x)
    return x[:people], x[people:]


def read_by_hand(
    story: Stories, source: str, *, start: str = "identity", d: int | None = 32, eta: float = 1.0, seed: int = 0
) -> Tensor:
    """Share of *all* people whose home is right after each token, (batch, length): a delta memory, nothing is learned.

    The key is the subject's vector, v the object's. What is written under the key:
    source "fixed": v. "self": M v, what the memory answers for v (eq. 84). "random": R v with one random rotation R.
    start: M_0, "identity" (a word means itself) or "zero". Each story has words of its own; before all people have been
    told, only those told count.
    """
    need(source in SOURCES, "source", repr(source), f"one of {', '.join(SOURCES)}")
    need(start in ("identity", "zero"), "start", repr(start), "'identity' or 'zero'")
    batch, length = story.subject.shape
    drawn = [words(story.people, story.cities, d, 10_000 * seed + b) for b in range(batch)]
    people, cities = (torch.stack(x) for x in zip(*drawn, strict=True))
    size, row = people.shape[-1], torch.arange(batch)
    lexicon = torch.cat([people, cities], 1)
    turn, r = torch.linalg.qr(torch.randn(batch, size, size, generator=generator(seed), dtype=torch.float64))
    turn = turn * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # qr alone turns words away from themselves
    M = torch.eye(size, dtype=torch.float64).expand(batch, -1, -1) * (start == "identity")
    home, right = torch.full((batch, story.people), -1), []
    for t in range(length):
        who, what = story.subject[:, t], story.object[:, t]
        k, v = lexicon[row, who], lexicon[row, what]
        value = {"fixed": v, "self": (M @ v[..., None])[..., 0], "random": (turn @ v[..., None])[..., 0]}[source]
        M = M + eta * (value - (M @ k[..., None])[..., 0])[..., None] * k[:, None]
        home = home.clone()
        home[row, who] = torch.where(
            what < story.people, home[row, what.clamp_max(story.people - 1)], what - story.people
        )
        said = (people @ M.mT @ cities.mT).argmax(-1)
        right.append(((said == home) & (home >= 0)).sum(-1) / (home >= 0).sum(-1))
    return torch.stack(right, 1)
