"""The settings of a model: plain values that go into a JSON file and come back the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nlbook.errors import NLBookError, need

MIXERS = ("self_modifying", "titans", "attention", "linear", "delta", "gated_delta")


@dataclass(frozen=True)
class HopeConfig:
    """A language model of `layers` blocks: a sequence mixer, then MLP levels. The defaults are Hope.

    mixer: "self_modifying" (Hope), "attention" (with mlp="cms": Hope-Attention), "titans", "linear", "delta",
    "gated_delta".
    options: keyword arguments of the mixer's class (nlbook.titans, nlbook.hope.mixers), on top of conv, conv_noise and
        activation, which all mixers share: `conv` taps of the short convolution on q, k, v (0: none), `conv_noise`
        uniform noise on them at the start, `activation` after it.
    mlp: "cms": MLP levels that learn in context, one for each of `periods` (tokens per update, fast to slow); "static":
        the same chain of MLPs without updates, as many as `periods` has entries. hidden: width of each.
    cms: keyword arguments of nlbook.cms.CMS on top of objective="local", lr=0.01, learn_lr=True. Keys of a local
        objective have length sqrt(dim), so a step counts dim times: at dim 32, lr = 0.1 blew the fast weights up.
    reset_token: a token that begins a new document: all fast states restart there (None: never).
    """

    vocabulary: int
    dim: int = 64
    layers: int = 2
    heads: int = 1
    mixer: str = "self_modifying"
    options: dict[str, Any] = field(default_factory=dict)
    mlp: str = "cms"
    hidden: int = 64
    periods: tuple[int, ...] = (16, 64, 256)
    cms: dict[str, Any] = field(default_factory=dict)
    conv: int = 4
    conv_noise: float = 0.5
    activation: str = "silu"
    reset_token: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "dim", "layers", "heads", "hidden"):
            n = getattr(self, name)
            need(isinstance(n, int) and not isinstance(n, bool) and n >= 1, name, repr(n), "an int >= 1")
        need(self.mixer in MIXERS, "mixer", repr(self.mixer), f"one of {', '.join(MIXERS)}")
        need(self.mlp in ("cms", "static"), "mlp", repr(self.mlp), "'cms' or 'static'")
        need(len(self.periods) >= 1, "periods", self.periods, "at least one level")
        need(
            self.reset_token is None or 0 <= self.reset_token < self.vocabulary,
            "reset_token",
            self.reset_token,
            f"a token below vocabulary = {self.vocabulary}, or None",
        )
        object.__setattr__(self, "periods", tuple(self.periods))

    def baseline(self, mixer: str, **changes: Any) -> HopeConfig:
        """The same model with another mixer and one static MLP, whose width is chosen so that the parameter counts
        agree.

        The search is over `hidden`, so counts agree to within 2 * dim per layer. `changes` replaces other fields.
        """
        from nlbook.hope.model import Hope

        want = Hope(self).parameter_count()
        plain = replace(self, mixer=mixer, mlp="static", periods=(1,), options={}, cms={}, hidden=1)
        plain = replace(plain, **changes)
        small = Hope(plain).parameter_count()
        per_unit = 2 * self.dim * plain.layers * len(plain.periods)
        return replace(plain, hidden=max(1, 1 + round((want - small) / per_unit)))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | Path) -> HopeConfig:
        """From a JSON text, or a file that holds one."""
        raw = text.read_text() if isinstance(text, Path) else text
        try:
            fields = json.loads(raw)
            return cls(**{**fields, "periods": tuple(fields.get("periods", (16, 64, 256)))})
        except (TypeError, ValueError, AttributeError) as e:
            raise NLBookError(f"config: got {raw[:80]!r}, expected the JSON of a HopeConfig ({e})") from e
