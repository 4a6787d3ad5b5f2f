"""Pieces of words: byte pairs that were joined because they are frequent (BPE), for readers of real text.

Pieces 0 .. 255 are bytes; piece 256 + i is the pair `merges[i]`. Nothing is lost: decode(encode(text)) == text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s+")
Pair = tuple[int, int]


def learn(texts: Iterable[str], size: int) -> list[Pair]:
    """The `size` most frequent pairs, one after the other, each counted after those before it were joined."""
    counts = Counter(word for text in texts for word in WORD.findall(text))
    words = [(list(word.encode()), n) for word, n in sorted(counts.items())]
    merges: list[Pair] = []
    while len(merges) < size:
        pairs: Counter[Pair] = Counter()
        for word, n in words:
            for pair in pairwise(word):
                pairs[pair] += n
        best = max(sorted(pairs), key=pairs.__getitem__)
        words = [(_joined(word, best, 256 + len(merges)), n) for word, n in words]
        merges.append(best)
    return merges


def _joined(word: list[int], pair: Pair, new: int) -> list[int]:
    out: list[int] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] = new
        else:
            out.append(piece)
    return out


class Pieces:
    """Text to pieces and back.

    >>> Pieces([(104, 105)]).encode("hi, hi")
    [256, 44, 32, 256]
    """

    def __init__(self, merges: Iterable[Pair]) -> None:
        self.merges = [(int(a), int(b)) for a, b in merges]
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        self.bytes = [bytes([i]) for i in range(256)]
        for a, b in self.merges:
            self.bytes.append(self.bytes[a] + self.bytes[b])
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        return [piece for word in WORD.findall(text) for piece in self._word(word)]

    def decode(self, pieces: Iterable[int]) -> str:
        return b"".join(self.bytes[piece] for piece in pieces).decode("utf-8", "replace")

    def _word(self, word: str) -> list[int]:
        if word not in self.known:
            pieces = list(word.encode())
            while len(pieces) > 1:
                best = min(pairwise(pieces), key=lambda pair: self.rank.get(pair, len(self.rank)))
                if best not in self.rank:
                    break
                pieces = _joined(pieces, best, 256 + self.rank[best])
            self.known[word] = pieces
        return self.known[word]
