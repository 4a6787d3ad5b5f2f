"""A reader of real text that remembers: how surprised it is, which level knew, sleep, and its memory as a file.

mine = Reader()                        # the reader that comes with the book, with an empty memory
reading = mine.read("Any English text")
reading.bits_per_byte; colours(reading)    # a number, and the text coloured by surprise as HTML
mine.sleep(); mine.save("memory.safetensors")
friend = Reader(); friend.load("memory.safetensors"); friend.continue_text("Then Paul", 40)
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book import data
from nlbook.book.data.pieces import Pieces
from nlbook.errors import generator
from nlbook.hope import Hope, HopeConfig, HopeState

FILE = "reader.safetensors"


def shipped() -> tuple[Hope, Pieces]:
    """The trained reader and its pieces from data/reader.safetensors, which data/README.md is the card of."""
    from safetensors import safe_open

    with safe_open(str(data.path(FILE)), framework="pt") as file:
        config = HopeConfig.from_json(file.metadata()["config"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    merges = weights.pop("pieces")
    model = Hope(config)
    model.load_state_dict({name: w.float() for name, w in weights.items()})
    return model.eval(), Pieces(merges.tolist())


class Span(NamedTuple):
    """A few letters of what was read: surprise in bits, and how many more it would be with each level at its start."""

    text: str
    bits: float
    knew: dict[str, float]


@dataclass(frozen=True)
class Reading:
    """What happened while a text was read, piece by piece."""

    spans: list[Span]

    @property
    def bytes(self) -> int:
        return sum(len(s.text.encode()) for s in self.spans)

    @property
    def bits_per_byte(self) -> float:
        return sum(s.bits for s in self.spans) / max(1, self.bytes)

    @property
    def knew(self) -> dict[str, float]:
        """Bits a byte that each level saved."""
        names = self.spans[0].knew if self.spans else {}
        return {n: sum(s.knew[n] for s in self.spans) / max(1, self.bytes) for n in names}


class Reader:
    """A Hope that reads text in pages of at most `page` pieces. The mixer forgets with each page, levels live on."""

    def __init__(self, model: Hope | None = None, pieces: Pieces | None = None, page: int = 128) -> None:
        if model is None or pieces is None:
            model, pieces = shipped()
        self.model, self.pieces, self.page = model, pieces, page
        self.forget()

    def forget(self) -> None:
        """An empty memory and a new page."""
        self.state = self.model.initial_state(1)
        self.waiting, self.room = self.model.config.vocabulary - 1, self.page - 1

    @torch.no_grad()
    def read(self, text: str) -> Reading:
        """Read on, and learn. What the text says is learned; nothing else is kept of it."""
        ids, bits = [], []
        knew: dict[str, list[float]] = {}
        for part in self._pages(self.pieces.encode(text)):
            tokens = torch.tensor([[self.waiting, *part]])
            before, known = self.state, part[0] < self.model.config.vocabulary - 1
            paid, self.state = self._paid(tokens, before)
            for name, held in self._held(tokens, before):
                knew.setdefault(name, []).extend((held - paid)[not known :].tolist())
            bits += paid[not known :].tolist()
            ids += part[not known :]
            self.waiting = part[-1]
        return Reading(list(self._spans(ids, bits, knew)))

    @torch.no_grad()
    def sleep(self) -> None:
        """The page ends: what the mixer holds is forgotten at the next word, and the levels keep what they gathered."""
        if self.waiting != self.model.config.vocabulary - 1:
            _, self.state = self.model(torch.tensor([[self.waiting]]), self.state)
            self.waiting, self.room = self.model.config.vocabulary - 1, self.page - 1

    def save(self, path: str | Path) -> None:
        """Sleep, and write what the memories hold as one file; whoever has the same weights can read on from it."""
        self.sleep()
        self.model.save_memory(path, self.state)

    def load(self, path: str | Path) -> None:
        """Go on from the memory that `save` wrote, on a new page; a memory of other weights is refused."""
        state = self.model.load_memory(path)
        self.forget()
        self.state = state

    @torch.no_grad()
    def continue_text(self, text: str = "", length: int = 60, temperature: float = 0.7, seed: int = 0) -> str:
        """How it would go on after `text`, in `length` pieces. It is a dream: the memory stays as it was."""
        kept, g, out = (self.state, self.waiting, self.room), generator(seed), []
        self.read(text)
        for _ in range(length):
            if not self.room:
                self.sleep()
            logits, self.state = self.model(torch.tensor([[self.waiting]]), self.state)
            p = torch.softmax(logits[0, -1, :-1] / max(temperature, 1e-6), -1)
            self.waiting, self.room = int(torch.multinomial(p, 1, generator=g)), self.room - 1
            out.append(self.waiting)
        self.state, self.waiting, self.room = kept
        return self.pieces.decode(out)

    # ------------------------------------------------------------------ inside
    def _pages(self, ids: list[int]) -> Iterator[list[int]]:
        """The pieces cut where a page is full; what begins a page has its token before it."""
        while ids:
            begin = [] if self.room else [self.model.config.vocabulary - 1]
            self.room = self.room or self.page - 1
            part, ids = ids[: self.room], ids[self.room :]
            self.room -= len(part)
            yield begin + part

    def _paid(self, tokens: Tensor, state: HopeState) -> tuple[Tensor, HopeState]:
        """Bits for each token but the first, and the state in which the last one waits to be read."""
        logits, state = self.model(tokens[:, :-1], state)
        return F.cross_entropy(logits[0], tokens[0, 1:], reduction="none") / math.log(2), state

    def _held(self, tokens: Tensor, state: HopeState) -> Iterator[tuple[str, Tensor]]:
        """The same bits with one level at its start, for each level."""
        fresh = self.model.initial_state(1)
        for i, block in enumerate(self.model.blocks):
            for j, name in enumerate(getattr(block.mlp, "names", ())):
                levels = list(state.blocks[i].levels.levels)
                levels[j] = replace(levels[j], weights=fresh.blocks[i].levels.levels[j].weights)
                blocks = list(state.blocks)
                blocks[i] = replace(blocks[i], levels=replace(blocks[i].levels, levels=levels))
                kept, block.mlp.held = block.mlp.held, {j, *block.mlp.held}
                paid, _ = self._paid(tokens, replace(state, blocks=blocks))
                block.mlp.held = kept
                yield name if len(self.model.blocks) == 1 else f"block {i}, {name}", paid

    def _spans(self, ids: list[int], bits: list[float], knew: dict[str, list[float]]) -> Iterator[Span]:
        """Pieces as text; those that share a letter of several bytes stand together."""
        first = 0
        for last in range(1, len(ids) + 1):
            raw = b"".join(self.pieces.bytes[i] for i in ids[first:last])
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                continue
            yield Span(text, sum(bits[first:last]), {n: sum(b[first:last]) for n, b in knew.items()})
            first = last


def colours(reading: Reading, most: float = 8.0) -> str:
    """The text as HTML: the deeper the ground and the line below, the more bits a piece cost (`most`: full colour).

    Each piece says its number when the mouse rests on it. The colours are laid over the page's own, light or dark.
    """
    parts = []
    for text, bits, knew in reading.spans:
        share = min(1.0, max(0.0, bits / most))
        told = f"{bits:.1f} bits" + "".join(f"; {n} saved {b:+.1f}" for n, b in knew.items())
        style = f"background:rgba(230,159,0,{0.6 * share:.2f})"
        if share > 0.5:
            style += f";border-bottom:{2 if share > 0.75 else 1}px solid currentColor"
        parts.append(f'<span title="{html.escape(told)}" style="{style}">{html.escape(text)}</span>')
    legend = (
        f"{reading.bits_per_byte:.2f} bits a byte. No ground: expected; full ground and a line below: {most:.0f} bits "
        "a piece or more. Rest on a piece to see its number."
    )
    alt = f"A text of {len(reading.spans)} pieces, coloured by surprise: {reading.bits_per_byte:.2f} bits a byte."
    return (
        f'<figure role="group" aria-label="{alt}" style="margin:0"><p style="white-space:pre-wrap;line-height:1.6">'
        f"{''.join(parts)}</p><figcaption>{legend}</figcaption></figure>"
    )
