"""The state of a picture: named values that are checked, never change, and can be written as a short string.

    interference:n=32,rho=0.5        the view, then the values that differ from its defaults
    toy:C=1,16,256;keep=1            a list of numbers goes on until the next `name=`; `;` may stand for `,`

A teacher hands such a string out; `viz.load` shows that very picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlbook.errors import NLBookError

Value = int | float | str | bool | tuple[int, ...]


@dataclass(frozen=True)
class Param:
    """One value that the reader may move. `more=True` puts its control into the fold."""

    name: str
    default: Any
    label: str = field(default="", kw_only=True)
    more: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name.startswith("_"):
            raise NLBookError(f"name: got {self.name!r}, expected an identifier such as 'n' or 'rho'")
        object.__setattr__(self, "default", self.check(self.default))

    @property
    def choices(self) -> str:
        """What may stand here, in words."""
        raise NotImplementedError

    def check(self, value: Any) -> Any:
        """`value` in its normal form; an error that names the parameter and its choices if it is not allowed."""
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """What `text` spells, not yet checked; a ValueError if it spells nothing."""
        raise NotImplementedError

    def parse(self, text: str) -> Any:
        """The value that `text` spells."""
        try:
            value = self.read(text)
        except ValueError:
            raise self.refuse(text) from None
        return self.check(value)

    def spell(self, value: Any) -> str:
        """The text that `parse` reads back."""
        return f"{value:.10g}" if isinstance(value, float) else str(value)

    def extremes(self) -> list[Any]:
        """The values at the ends of the range: every picture is tested there."""
        raise NotImplementedError

    def refuse(self, came: Any) -> NLBookError:
        return NLBookError(f"{self.name}: got {came!r}, expected {self.choices}")


@dataclass(frozen=True)
class Int(Param):
    """A whole number in [low, high], a multiple of `step` above `low`."""

    low: int = 0
    high: int = 100
    step: int = field(default=1, kw_only=True)

    @property
    def choices(self) -> str:
        steps = f" in steps of {self.step}" if self.step != 1 else ""
        return f"a whole number from {self.low} to {self.high}{steps}"

    def check(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise self.refuse(value)
        if not self.low <= value <= self.high or (value - self.low) % self.step:
            raise self.refuse(value)
        return int(value)

    def read(self, text: str) -> int:
        return int(text)

    def extremes(self) -> list[int]:
        return [self.low, self.high - (self.high - self.low) % self.step]


@dataclass(frozen=True)
class Float(Param):
    """A number in [low, high] on the grid low, low + step, ...: what a slider can show."""

    low: float = 0.0
    high: float = 1.0
    step: float = field(default=0.05, kw_only=True)

    @property
    def choices(self) -> str:
        return f"a number from {self.low:g} to {self.high:g} in steps of {self.step:g}"

    def check(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(value)
        k = round((value - self.low) / self.step) if value == value and abs(value) != float("inf") else -1
        snapped = float(f"{self.low + k * self.step:.10g}")
        if k < 0 or snapped > self.high + 1e-9 or abs(snapped - value) > 1e-6 * self.step:
            raise self.refuse(value)
        return snapped

    def read(self, text: str) -> float:
        return float(text)

    def extremes(self) -> list[float]:
        return [self.check(self.low), self.check(self.low + int((self.high - self.low) / self.step + 1e-9) * self.step)]


@dataclass(frozen=True)
class Choice(Param):
    """One of a few words or numbers. `slider=True` shows a slider over them (for scales such as 1, 4, 16, 64)."""

    options: Sequence[str | int | float] = ()
    slider: bool = field(default=False, kw_only=True)

    @property
    def choices(self) -> str:
        return "one of " + ", ".join(map(self.spell, self.options))

    def check(self, value: Any) -> str | int | float:
        for option in self.options:
            if isinstance(value, str) == isinstance(option, str) and not isinstance(value, bool) and value == option:
                return option
        raise self.refuse(value)

    def read(self, text: str) -> str | float:
        return text if text in self.options else float(text)

    def extremes(self) -> list[str | int | float]:
        return [self.options[0], self.options[-1]] if self.slider else list(self.options)


@dataclass(frozen=True)
class Bool(Param):
    """Yes or no; `1` and `0` in a state string."""

    @property
    def choices(self) -> str:
        return "1 or 0 (yes or no)"

    def check(self, value: Any) -> bool:
        if value not in (0, 1, True, False) or isinstance(value, (str, float)):
            raise self.refuse(value)
        return bool(value)

    def read(self, text: str) -> bool | str:
        return {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}.get(text.lower(), text)

    def spell(self, value: bool) -> str:
        return str(int(value))

    def extremes(self) -> list[bool]:
        return [False, True]


@dataclass(frozen=True)
class Ints(Param):
    """A short list of whole numbers in [low, high], such as the periods 1, 16, 256; `least` to `most` of them.

    least=0 allows the empty list, spelled `none`.
    """

    low: int = 1
    high: int = 4096
    least: int = field(default=1, kw_only=True)
    most: int = field(default=6, kw_only=True)

    @property
    def choices(self) -> str:
        none = "none, or " if self.least == 0 else ""
        count = f"{max(1, self.least)} to {self.most}"
        return f"{none}{count} whole numbers from {self.low} to {self.high}, such as 1,16,256"

    def check(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence) or not self.least <= len(value) <= self.most:
            raise self.refuse(value)
        if not all(isinstance(v, int) and not isinstance(v, bool) and self.low <= v <= self.high for v in value):
            raise self.refuse(value)
        return tuple(value)

    def read(self, text: str) -> list[int]:
        return [int(t) for t in text.split(",")] if text.strip() != "none" else []

    def spell(self, value: tuple[int, ...]) -> str:
        return ",".join(map(str, value)) or "none"

    def extremes(self) -> list[tuple[int, ...]]:
        return [(self.low,) * self.least, (self.low,), (self.high,)]


class State(Mapping[str, Any]):
    """The values of one picture, by name (`state.n`, `state["n"]`); checked, hashable, never changed in place."""

    __slots__ = ("_params", "_values", "_view")

    def __init__(self, view: str, params: Sequence[Param], values: Mapping[str, Any] | None = None) -> None:
        values = dict(values or {})
        known = {p.name: p for p in params}
        for name in values:
            if name not in known:
                raise NLBookError(f"{name}: view {view!r} has no such value, expected one of {', '.join(known)}")
        checked = {p.name: p.check(values[p.name]) if p.name in values else p.default for p in params}
        object.__setattr__(self, "_view", view)
        object.__setattr__(self, "_params", tuple(params))
        object.__setattr__(self, "_values", checked)

    @classmethod
    def parse(cls, text: str, view: str, params: Sequence[Param]) -> State:
        """The state that `text` spells: `dial:window=4`, `window=4`, or `dial` for the defaults.

        Raises NLBookError naming the value and what it may be.
        """
        body = text.strip()
        head, colon, rest = body.partition(":")
        if colon or body == view:
            if head.strip() != view:
                raise NLBookError(f"state: got {text!r}, expected a state of view {view!r}, such as '{view}:…'")
            body = rest
        known = {p.name: p for p in params}
        spelled: dict[str, str] = {}
        name = ""
        for piece in filter(None, (p.strip() for p in re.split("[;,]", body))):
            before, equals, after = (s.strip() for s in piece.partition("="))
            if equals:
                if before not in known:
                    raise NLBookError(f"{before}: view {view!r} has no such value, expected one of {', '.join(known)}")
                if before in spelled:
                    raise NLBookError(f"{before}: got it twice in {text!r}, expected it once")
                name = before
                spelled[name] = after
            elif name:
                spelled[name] += "," + before  # a list goes on
            else:
                raise NLBookError(
                    f"state: got {text!r}, expected name=value pairs, such as '{view}:{params[0].name}="
                    f"{params[0].spell(params[0].default)}'"
                )
        return cls(view, params, {n: known[n].parse(t) for n, t in spelled.items()})

    def replace(self, **values: Any) -> State:
        """A copy with other values."""
        return State(self._view, self._params, {**self._values, **values})

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_values")[name]
        except KeyError:
            raise AttributeError(f"state of {self._view!r} has no {name!r}; it has {', '.join(self._values)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a state never changes; use state.replace({name}={value!r})")

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash((self._view, *self._values.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and (self._view, self._values) == (other._view, other._values)

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self._view, self._params, self._values)

    def __str__(self) -> str:
        said = [(p.name, p.spell(self._values[p.name])) for p in self._params if self._values[p.name] != p.default]
        between = ";" if any("," in text for _, text in said) else ","
        return f"{self._view}:{between.join(f'{n}={t}' for n, t in said)}" if said else self._view

    def __repr__(self) -> str:
        return f"State({str(self)!r})"
