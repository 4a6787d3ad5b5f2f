"""Hope: self-modifying Titans followed by a continuum memory system, block by block (section 8.3, eq. 94-97)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.cms import CMS
from nlbook.errors import NLBookError, generator, need, need_shape
from nlbook.hope.mixers import MIXERS, StaticMLP, arguments, make_mixer
from nlbook.hope.state import HopeState
from nlbook.levels import NestedSystem, levels_of
from nlbook.numerics import rms
from nlbook.tree import restart


def full(logits: Tensor) -> Tensor:
    """At least float32: what autocast left in bfloat16 is no place for a logarithm."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


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
        plain = replace(self, mixer=mixer, mlp="static", periods=(1,), options={}, cms={}, hidden=1)
        return replace(plain, **changes).as_large_as(self)

    def as_large_as(self, other: HopeConfig) -> HopeConfig:
        """The same model with MLPs as wide as brings its number of parameters closest to that of `other`."""
        more = Hope(other).parameter_count() - Hope(self).parameter_count()
        per_unit = 2 * self.dim * self.layers * len(self.periods)
        return replace(self, hidden=max(1, self.hidden + round(more / per_unit)))

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


class HopeBlock(nn.Module):
    """Eq. 94-97 with the norms, gate and residuals that the paper leaves out:

    o = mixer(rms(x))                                   self-modifying Titans, or a baseline's mixer
    x <- x + W_o (rms(o) * silu(W_g rms(x)))            gated read-out
    y = MLP_slow(... MLP_fast(x))                       the continuum memory system; residuals inside
    """

    def __init__(self, c: HopeConfig, seed: int) -> None:
        super().__init__()
        g = generator(seed)
        shared = {"heads": c.heads, "conv": c.conv, "conv_noise": c.conv_noise, "activation": c.activation}
        self.mixer = make_mixer(c.mixer, c.dim, {**shared, "seed": seed + 1, **c.options})
        self.W_g = nn.Parameter(torch.randn(c.dim, c.dim, generator=g) / c.dim**0.5)
        self.W_o = nn.Parameter(torch.randn(c.dim, c.dim, generator=g) / c.dim**0.5)
        if c.mlp == "cms":
            levels = {"objective": "local", "lr": 0.01, "learn_lr": True, "seed": seed + 2, **c.cms}
            self.mlp: nn.Module = CMS(c.dim, c.hidden, c.periods, **arguments(CMS, levels, "cms"))
        else:
            self.mlp = StaticMLP(c.dim, c.hidden, len(c.periods), seed + 2)

    def initial_state(self, batch: int) -> tuple[Any, Any]:
        start: Any = self.mixer.initial_state
        return start(batch), self.mlp.initial_state(batch) if isinstance(self.mlp, CMS) else None

    def forward(self, x: Tensor, state: tuple[Any, Any]) -> tuple[Tensor, tuple[Any, Any]]:
        """x (batch, length, dim) -> (batch, length, dim), state."""
        n = rms(x)
        o, mixed = self.mixer(n, state[0])  # eq. 94-96
        x = x + F.linear(rms(o) * F.silu(F.linear(n, self.W_g)), self.W_o)
        if not isinstance(self.mlp, CMS):
            return self.mlp(x), (mixed, None)
        with torch.autocast(x.device.type, enabled=False):  # fast weights stay in full precision
            x, moved = self.mlp(x, state[1])  # eq. 97 (70-71)
        return x, (mixed, moved)


class Hope(nn.Module):
    """A language model whose blocks learn while they read. Everything is in `HopeConfig`; its defaults are Hope.

    model(tokens, state) -> (logits, state): tokens (batch, length), int64; logits (batch, length, vocabulary) at
    position t are about token t + 1. States are per sequence. The embedding is also the head. `torch.compile(model,
    fullgraph=True)` takes it as one graph; the range of tokens is then not checked.

    >>> model = Hope(HopeConfig(vocabulary=10, dim=8, hidden=8))
    >>> logits, state = model(torch.zeros(1, 5, dtype=torch.long))
    >>> logits.shape, state.position
    (torch.Size([1, 5, 10]), 5)
    """

    def __init__(self, config: HopeConfig) -> None:
        super().__init__()
        self.config = config
        g = generator(config.seed)
        self.embedding = nn.Parameter(0.5 * torch.randn(config.vocabulary, config.dim, generator=g))
        self.blocks = nn.ModuleList(HopeBlock(config, 1000 * config.seed + 10 * (i + 1)) for i in range(config.layers))

    # ------------------------------------------------------------------ reading
    def initial_state(self, batch: int) -> HopeState:
        """All memories at their learned starts."""
        return HopeState([b.initial_state(batch) for b in self.blocks])  # type: ignore[operator]

    def forward(
        self, tokens: Tensor, state: HopeState | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, HopeState]:
        """Read `tokens` on from `state`.

        reset (batch, length), bool: a document begins at this token, and nothing before it is remembered; the default
        comes from `config.reset_token`. When all sequences restart at once their clocks do too, as in a new call; else
        the clocks run on and the document's first chunk is shorter.
        """
        need(
            isinstance(tokens, Tensor) and tokens.ndim == 2 and tokens.dtype == torch.long,
            "tokens",
            f"{getattr(tokens, 'dtype', type(tokens).__name__)} {tuple(getattr(tokens, 'shape', ()))}",
            "int64 (batch, length)",
        )
        batch, length = tokens.shape
        looks = tokens.numel() and not torch.compiler.is_compiling()  # a compiled graph cannot branch on values
        if looks and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.config.vocabulary:
            raise NLBookError(
                f"tokens: got values in {int(tokens.min())} .. {int(tokens.max())}, expected "
                f"0 .. {self.config.vocabulary - 1}"
            )
        state = self.initial_state(batch) if state is None else state
        if reset is None and self.config.reset_token is not None:
            reset = tokens == self.config.reset_token
        if reset is not None:
            need_shape("reset", reset, batch, length)
        parts = []
        for first, last in _documents(reset, length):
            if reset is not None and first < length and (rows := reset[:, first]).any():
                fresh = self.initial_state(batch)
                state = fresh if rows.all() else restart(rows, state, fresh)
            logits, state = self._read(tokens[:, first:last], state)
            parts.append(logits)
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)), state

    def _read(self, tokens: Tensor, state: HopeState) -> tuple[Tensor, HopeState]:
        x = F.embedding(tokens, self.embedding)
        blocks = []
        for block, s in zip(self.blocks, state.blocks, strict=True):
            x, s = block(x, s)
            blocks.append(s)
        return F.linear(rms(x), self.embedding), HopeState(blocks, state.position + tokens.shape[1])

    def loss(self, tokens: Tensor, graded: Tensor | None = None, state: HopeState | None = None) -> Tensor:
        """Mean nats per predicted token: of all tokens but the first, or of those where `graded` (batch, length) is
        true.
        """
        logits, _ = self(tokens, state)
        paid = F.cross_entropy(full(logits[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        if graded is None:
            return paid.mean()
        need_shape("graded", graded, *tokens.shape)
        weight = graded[:, 1:].flatten().to(paid.dtype)
        return (paid * weight).sum() / weight.sum()

    @torch.no_grad()
    def generate(
        self, prompt: Tensor, length: int, *, state: HopeState | None = None, temperature: float = 1.0, seed: int = 0
    ) -> tuple[Tensor, HopeState]:
        """Go on from `prompt` (batch, n >= 1) for `length` tokens. Returns them (batch, length), and the state after
        the last one that was read (the newest token is not read yet). Each token costs the same time and memory,
        whatever came before (softmax attention without a window excepted: its cache grows). temperature 0: the most
        likely token.
        """
        need(prompt.ndim == 2 and prompt.shape[1] >= 1, "prompt", f"shape {tuple(prompt.shape)}", "(batch, n >= 1)")
        need(temperature >= 0, "temperature", temperature, "a number >= 0")
        out = list(self._sample(prompt, length, state, temperature, seed))
        if not out:
            return prompt[:, :0], self(prompt, state)[1]
        return torch.stack([t for t, _ in out], 1), out[-1][1]

    def _sample(
        self, prompt: Tensor, length: int, state: HopeState | None, temperature: float, seed: int
    ) -> Iterator[tuple[Tensor, HopeState]]:
        g = generator(seed, prompt.device)
        for _ in range(length):
            logits, state = self(prompt, state)
            last = full(logits[:, -1])
            new = (
                last.argmax(-1)
                if temperature == 0
                else torch.multinomial(torch.softmax(last / temperature, -1), 1, generator=g)[:, 0]
            )
            yield new, state
            prompt = new[:, None]

    # ------------------------------------------------------------------ accounts, disk
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def levels(self, optimizer: Any = None, tokens_per_step: int | None = None) -> NestedSystem:
        """The nested system that the model makes: see nlbook.levels.levels_of."""
        return levels_of(self, optimizer, tokens_per_step=tokens_per_step)

    def save(self, folder: str | Path) -> None:
        """config.json and model.safetensors; nothing is pickled."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.config.to_json() + "\n")
        save_file({k: v.detach().contiguous() for k, v in self.state_dict().items()}, str(folder / "model.safetensors"))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model that `save` wrote, on the CPU."""
        from safetensors.torch import load_file

        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            need((folder / name).is_file(), "folder", str(folder), f"a folder with {name}, as Hope.save writes it")
        model = cls(HopeConfig.from_json(folder / "config.json"))
        weights = load_file(str(folder / "model.safetensors"))
        model.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        return model


class HopeAttention(Hope):
    """Hope with softmax attention in place of self-modifying Titans: attention, then the continuum memory system."""

    def __init__(self, config: HopeConfig) -> None:
        options = config.options if config.mixer == "attention" else {}
        super().__init__(replace(config, mixer="attention", options=options))


def _documents(reset: Tensor | None, length: int) -> Iterator[tuple[int, int]]:
    """Stretches of tokens between restarts of any sequence."""
    starts = [] if reset is None else [i for i in torch.nonzero(reset.any(0)).flatten().tolist() if i > 0]
    edges = [0, *starts, length]
    yield from pairwise(edges)
