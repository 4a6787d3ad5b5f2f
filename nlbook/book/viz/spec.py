"""A view: everything about one picture that is not a widget. Parameters, drawing, facts, alt text, task and landmarks.

    @view("interference", title=..., task=..., answer=..., params=[...], landmarks={...}, alt=alt, facts=facts)
    def draw(state) -> Figure: ...

`draw` is pure: the same state gives the same picture. `facts(state)` holds every number that the picture claims; `draw`
uses it, the alt text uses it, and the tests assert it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from nlbook.book.viz.state import Param, State
from nlbook.book.viz.style import book_style
from nlbook.errors import NLBookError

Facts = Mapping[str, float]
AT_FIRST = 3  # controls in sight before the fold
ALT_WORDS = 8  # an alt text shorter than this says nothing
_VIEWS: dict[str, View] = {}
BOOK = {
    "first_look": "chapters.welcome.first_look",
    "interference": "chapters.memory.interference",
    "weight": "chapters.writing.weight",
    "horizon": "chapters.writing.horizon",
    "dial": "chapters.attention.dial",
    "detective": "chapters.levels.detective",
    "start": "chapters.levels.start_dial",
    "stability": "chapters.clocks.stability",
    "memories": "chapters.selfmod.memories",
    "reading": "chapters.hope.reading",
    "theatre": "chapters.speed.theatre",
    "ledger": "chapters.errata.ledger",
}
"""Key -> where nlbook/book draws it, in the order of the book: imported by name, when it is asked for."""


def checked_alt(text: str) -> str:
    """`text` on one line; an error if it is too short to stand for a picture."""
    words = str(text).split()
    if len(words) < ALT_WORDS:
        raise NLBookError(f"alt: got {len(words)} words ({text!r}), expected at least {ALT_WORDS} on what is seen")
    return " ".join(words)


class View:
    """One picture of the book. Call it with a state (a string, a State or a mapping) to draw it.

    params:    Int, Float, Choice, Bool, Ints; the first three are in sight, the others in a fold (`more=` overrides).
    landmarks: name -> state string; each becomes a button that sets defaults plus these values.
    alt:       (state, facts) -> at least 8 words. facts: state -> {name: number}.
    describe:  (state, facts) -> what a long description begins with, in place of the alt text.
    live:      state -> an anywidget with a `show_state(state)` method, shown instead of the still picture.
    """

    def __init__(
        self,
        key: str,
        draw: Callable[[Any], Figure],
        *,
        title: str,
        task: str,
        answer: str,
        params: Sequence[Param],
        alt: Callable[[Any, Facts], str],
        facts: Callable[[Any], Facts],
        landmarks: Mapping[str, str] | None = None,
        describe: Callable[[Any, Facts], str] | None = None,
        live: Callable[[State], Any] | None = None,
    ) -> None:
        self.key, self.title, self.task, self.answer = key, title, task, answer
        self.params = tuple(params)
        self._draw, self._alt, self._describe, self.live = draw, alt, describe, live
        self._facts = functools.lru_cache(maxsize=64)(facts)
        names = [p.name for p in self.params]
        if not names or len(set(names)) != len(names):
            raise NLBookError(f"params: got {names}, expected at least one, each name once")
        self.landmarks = {name: self.state(text) for name, text in (landmarks or {}).items()}
        self.__doc__ = f"{title}\n\n{draw.__doc__ or ''}"

    def state(self, state: str | Mapping[str, Any] | None = None, **values: Any) -> State:
        """A checked state: from a string, another state or a mapping; `values` go over it; the rest are defaults."""
        if isinstance(state, str):
            state = State.parse(state, self.key, self.params)
        return State(self.key, self.params, {**(state or {}), **values})

    def facts(self, state: str | Mapping[str, Any] | None = None) -> Facts:
        """Every number that the picture claims in this state."""
        return MappingProxyType(dict(self._facts(self.state(state))))

    def figure(self, state: str | Mapping[str, Any] | None = None) -> Figure:
        """The picture as a matplotlib Figure."""
        with book_style():
            return self._draw(self.state(state))

    __call__ = figure

    def alt(self, state: str | Mapping[str, Any] | None = None) -> str:
        """One or two sentences that stand for the picture."""
        state = self.state(state)
        return checked_alt(self._alt(state, self.facts(state)))

    def describe(self, state: str | Mapping[str, Any] | None = None) -> str:
        """The long description: what the alt text says, then the settings and every number of the picture."""
        state = self.state(state)
        facts = self.facts(state)
        seen = self._describe(state, facts) if self._describe else self.alt(state)
        lines = [self.title + "." * (self.title[-1] not in "?!."), seen]
        settings = ", ".join(f"{p.label or p.name} {p.spell(state[p.name])}" for p in self.params)
        lines.append(f"Settings: {settings}.")
        lines.append("Numbers: " + ", ".join(f"{name} {value:.4g}" for name, value in facts.items()) + ".")
        return "\n".join(lines)

    def extremes(self) -> list[State]:
        """The default, every parameter alone at its ends, all together at their ends, and the landmarks: for tests."""
        states = [self.state()]
        states += [self.state({p.name: v}) for p in self.params if p.name != "seed" for v in p.extremes()]
        states += [self.state({p.name: p.extremes()[i] for p in self.params}) for i in (0, -1)]
        states += self.landmarks.values()
        return list(dict.fromkeys(states))

    def __repr__(self) -> str:
        return f"View({self.key!r}: {self.title})"


def view(key: str, **said: Any) -> Callable[[Callable[[Any], Figure]], View]:
    """Register `draw(state) -> Figure` as the view `key`; `said` are the arguments of View."""

    def register(draw: Callable[[Any], Figure]) -> View:
        _VIEWS[key] = View(key, draw, **said)
        return _VIEWS[key]

    return register


def find(key: str) -> View:
    """The view of this key; its module is imported on first use."""
    if key not in _VIEWS and key in BOOK:
        importlib.import_module(f"nlbook.book.{BOOK[key]}")
    if key not in _VIEWS:
        known = ", ".join(dict.fromkeys([*BOOK, *_VIEWS]))
        raise NLBookError(f"state: got view {key!r}, expected one of {known}")
    return _VIEWS[key]


def load_state(text: str) -> tuple[View, State]:
    """A state string, with the view that it names."""
    if not isinstance(text, str) or not text.strip():
        raise NLBookError(f"state: got {text!r}, expected a string such as 'interference:n=32,rho=0.5'")
    spec = find(text.partition(":")[0].strip())
    return spec, spec.state(text)


def all_views() -> list[View]:
    """Every view, those of the book and those registered since."""
    return [find(key) for key in dict.fromkeys([*BOOK, *_VIEWS])]
