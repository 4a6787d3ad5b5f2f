"""Formal languages (Table 5): after each prefix, which symbols may come next? Right only if every prefix of a word is
right.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.sequences import sizes
from nlbook.errors import need

END = 0  # token 0 begins a word in the input and ends it in the answer; symbols are 1 .. 4
VOCABULARY = 5
A, B, C, D = 1, 2, 3, 4


@dataclass(frozen=True)
class FormalLanguage:
    """A language as a machine: `start`, `step(state, symbol)`, `allowed(state)` -> symbols that may follow (END among
    them).

    draw(n, r): a random word of about n symbols (the nearest length that the language has).
    """

    name: str
    start: Any
    step: Callable[[Any, int], Any]
    allowed: Callable[[Any], set[int]]
    draw: Callable[[int, random.Random], list[int]]

    def follow(self, word: list[int]) -> list[set[int]]:
        """What may come after each prefix of `word`, the empty one first."""
        state, out = self.start, []
        for s in word:
            out.append(self.allowed(state))
            need(
                s in out[-1],
                "word",
                word,
                f"a word of {self.name}: after {word[: len(out) - 1]} only {out[-1]} may follow",
            )
            state = self.step(state, s)
        return [*out, self.allowed(state)]


def _repeat(n: int, block: list[int]) -> list[int]:
    return block * (n // len(block))


def _shuffle(n: int, r: random.Random) -> list[int]:
    """Two kinds of brackets, each balanced by itself: a random walk that is at zero at its end."""
    word, depth = [], [0, 0]
    for left in range(n - n % 2, 0, -1):
        opens = [(A, 0, 1), (C, 1, 1)] if sum(depth) < left else []
        closes = [(B + 2 * j, j, -1) for j in (0, 1) if depth[j]]
        s, j, d = r.choice(opens if opens and (not closes or r.random() < 0.5) else closes)
        depth[j] += d
        word.append(s)
    return word


def _counting(letters: int) -> FormalLanguage:
    """a^n b^n (c^n ...), n >= 1: state (letter of the run, how many so far, n)."""

    def step(state: tuple[int, int, int], s: int) -> tuple[int, int, int]:
        letter, count, n = state
        return (s, count + 1 if s == letter else 1, n + (s == A))

    def allowed(state: tuple[int, int, int]) -> set[int]:
        letter, count, n = state
        if n == 0:
            return {A}
        if letter == A:
            return {A, B}
        if count < n:
            return {letter}
        return {letter + 1} if letter < letters else {END}

    name = "".join("abcd"[i] + "^n" for i in range(letters))
    return FormalLanguage(
        name,
        (A, 0, 0),
        step,
        allowed,
        lambda n, r: [s for s in range(1, letters + 1) for _ in range(max(1, n // letters))],
    )


LANGUAGES: dict[str, FormalLanguage] = {
    "parity": FormalLanguage(
        "words over a, b with an even number of b",
        0,
        lambda c, s: c ^ (s == B),
        lambda c: {A, B} | (set() if c else {END}),
        lambda n, r: [r.choice((A, B)) for _ in range(n)],
    ),
    "aa": FormalLanguage(
        "(aa)*", 0, lambda c, s: 1 - c, lambda c: {A} | (set() if c else {END}), lambda n, r: _repeat(n, [A, A])
    ),
    "abab": FormalLanguage(
        "(abab)*",
        0,
        lambda c, s: (c + 1) % 4,
        lambda c: {A + c % 2} | (set() if c else {END}),
        lambda n, r: _repeat(max(4, n), [A, B, A, B]),
    ),
    "anbn": _counting(2),
    "anbncn": _counting(3),
    "shuffle2": FormalLanguage(
        "shuffle of two bracket languages",
        (0, 0),
        lambda d, s: tuple(d[j] + ((s - 1) // 2 == j) * (1 if s % 2 else -1) for j in (0, 1)),
        lambda d: {A, C} | ({B} if d[0] else set()) | ({D} if d[1] else set()) | (set() if any(d) else {END}),
        _shuffle,
    ),
}


@dataclass(frozen=True)
class Words:
    """tokens (batch, length): END, then the word, then padding. allowed (batch, length, 5), bool: what may follow the
    prefix that ends at this token. mask (batch, length), bool: real prefixes.
    """

    tokens: Tensor
    allowed: Tensor
    mask: Tensor

    def loss(self, logits: Tensor) -> Tensor:
        """Binary cross-entropy of "may this symbol follow", mean over real prefixes; logits (batch, length, 5)."""
        each = F.binary_cross_entropy_with_logits(logits.float(), self.allowed.float(), reduction="none").mean(-1)
        return (each * self.mask).sum() / self.mask.sum()

    def accuracy(self, logits: Tensor) -> float:
        """Share of words with the right set after *every* prefix."""
        right = ((logits > 0) == self.allowed).all(-1) | ~self.mask
        return float(right.all(-1).double().mean())


def words(language: str, low: int, high: int, batch: int, seed: int) -> Words:
    """A batch of random words with lengths drawn uniformly from low .. high (rounded to lengths that exist).

    A parity word need not be in the language (every word is a prefix of one), the others are.
    """
    need(language in LANGUAGES, "language", repr(language), f"one of {sorted(LANGUAGES)}")
    sizes(low=low, high=high, batch=batch)
    need(low <= high, "low", low, f"at most high = {high}")
    lang, r = LANGUAGES[language], random.Random(seed)
    drawn = [lang.draw(r.randint(low, high), r) for _ in range(batch)]
    length = 1 + max(map(len, drawn))
    tokens = torch.zeros(batch, length, dtype=torch.long)
    allowed, mask = (
        torch.zeros(batch, length, VOCABULARY, dtype=torch.bool),
        torch.zeros(batch, length, dtype=torch.bool),
    )
    for i, word in enumerate(drawn):
        tokens[i, 1 : len(word) + 1] = torch.tensor(word, dtype=torch.long)
        mask[i, : len(word) + 1] = True
        for t, after in enumerate(lang.follow(word)):
            allowed[i, t, list(after)] = True
    return Words(tokens, allowed, mask)
