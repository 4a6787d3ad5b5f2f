"""Hope: self-modifying Titans followed by a continuum memory system, block by block (section 8.3, eq. 94-97)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.errors import NLBookError, generator, need, need_int, need_shape
from nlbook.hope.block import HandedDown, HopeBlock, NextToken, full
from nlbook.hope.mixers import MIXERS
from nlbook.hope.state import HopeState
from nlbook.levels import NestedSystem, levels_of
from nlbook.numerics import rms
from nlbook.ranks import need_not_plain_ddp
from nlbook.tree import digest, load, save


@dataclass(frozen=True)
class HopeConfig:
    """A language model of `layers` blocks: a sequence mixer, then MLP levels. The defaults are Hope.

    mixer: "self_modifying" (Hope), "attention" (with mlp="cms": Hope-Attention), "titans", "linear", "delta",
    "gated_delta".
    options: keyword arguments of the mixer's class (nlbook.titans, nlbook.hope.mixers), on top of conv, conv_noise and
        activation, which all mixers share: `conv` taps of the short convolution on q, k, v (0: none), `conv_noise`
        uniform noise on them at the start, `activation` after it, `shift`: keys begin as the token before, so that a
        value is stored under the token that it follows.
    mlp: "cms": MLP levels that learn in context, one for each of `periods` (tokens per update, fast to slow); "static":
        the same chain of MLPs without updates, as many as `periods` has entries. hidden: width of each.
    cms: keyword arguments of nlbook.cms.CMS on top of LEVELS. Levels follow the loss of the next token, known one token
        later, by a learned rate a level and a learned gate a token. variant="headwise" (eq. 74): they read the block's
        input, beside the mixer; "sequential" (eq. 70, 97): they stand behind it, one after the other. first_order:
        whether the outer gradient stops at their updates. objective="local" is the first edition's, a control.
    reset_token: a token that begins a new document (None: there is one). ends: after how many documents the context of
        the mixer ends, then that of each level; 0: never. () is (1, 0, .., 0): the mixer forgets at each document, the
        levels live on, so they learn what outlives one.
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
    conv_noise: float = 0.2
    shift: bool = True
    activation: str = "silu"
    reset_token: int | None = None
    ends: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "dim", "layers", "heads", "hidden"):
            need_int(name, getattr(self, name))
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
        object.__setattr__(self, "ends", tuple(self.ends))
        need(
            len(self.contexts) == 1 + len(self.periods) and all(isinstance(n, int) and n >= 0 for n in self.contexts),
            "ends",
            self.ends,
            f"{1 + len(self.periods)} numbers of documents >= 0, of the mixer and of each level",
        )

    @property
    def contexts(self) -> tuple[int, ...]:
        """Documents after which the context of the mixer, and of each level, ends; 0: never."""
        return self.ends or (1, *[0] * len(self.periods))

    @classmethod
    def first_edition(cls, **fields: Any) -> HopeConfig:
        """The defaults of nlbook 0.1: levels with a loss of their own (inert), no shift, everything ends at a reset."""
        levels = {"variant": "sequential", "objective": "local", "lr": 0.01, "reduce": "mean", "first_order": False}
        cms = {**levels, "learn_lr": True, **fields.pop("cms", {})}
        old: dict[str, Any] = {"conv_noise": 0.5, "shift": False, "cms": cms}
        if fields.get("mixer", "self_modifying") == "self_modifying":
            memory = {"chunk": 64, "read": "start", "rate": "explicit", "eta": 0.1, "eta_max": 0.5, "mem_gain": 1.0}
            fields["options"] = {**memory, "proj_std": 2.0, "query": "random", **fields.get("options", {})}
        ends = (1,) * (1 + len(fields.get("periods", (16, 64, 256))))
        return cls(**{**old, "ends": ends, **fields})

    def baseline(self, mixer: str, **changes: Any) -> HopeConfig:
        """The same model with another mixer and one static MLP, whose width is chosen so that the parameter counts
        agree.

        The search is over `hidden`, so counts agree to within 2 * dim per layer. `changes` replaces other fields.
        """
        plain = replace(
            self, mixer=mixer, mlp="static", periods=(1,), ends=(self.contexts[0], 0), options={}, cms={}, hidden=1
        )
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
            fields |= {n: tuple(fields[n]) for n in ("periods", "ends") if n in fields}
            return cls(**fields) if "ends" in fields else cls.first_edition(**fields)
        except (TypeError, ValueError, AttributeError) as e:
            raise NLBookError(f"config: got {raw[:80]!r}, expected the JSON of a HopeConfig ({e})") from e


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
        self.blocks: Any = nn.ModuleList(
            HopeBlock(config, 1000 * config.seed + 10 * (i + 1)) for i in range(config.layers)
        )
        self.together = config.layers > 1 and config.mlp == "cms" and config.cms.get("objective") != "local"

    # ------------------------------------------------------------------ reading
    def initial_state(self, batch: int) -> HopeState:
        """All memories at their learned starts."""
        return HopeState(
            [b.initial_state(batch) for b in self.blocks],
            torch.zeros(batch, dtype=torch.long, device=self.embedding.device),
        )  # type: ignore[operator]

    def forward(
        self, tokens: Tensor, state: HopeState | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, HopeState]:
        """Read `tokens` on from `state`.

        reset (batch, length), bool: a document begins at this token, and contexts end before it (see
        `HopeConfig.ends`); the default comes from `config.reset_token`. When all sequences restart at once their clocks
        do too, as in a new call; else the clocks run on and the document's first chunk is shorter.
        """
        need(
            isinstance(tokens, Tensor) and tokens.ndim == 2 and tokens.dtype == torch.long,
            "tokens",
            f"{getattr(tokens, 'dtype', type(tokens).__name__)} {tuple(getattr(tokens, 'shape', ()))}",
            "int64 (batch, length)",
        )
        batch, length = tokens.shape
        looks = tokens.numel() and not torch.compiler.is_compiling()  # a compiled graph cannot branch on values
        if looks:
            need_not_plain_ddp(self)
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
        parts: list[Tensor] = []
        for first, last in _documents(reset, length):
            begins = None if reset is None or first == length else reset[:, first]
            while first < last or not parts:
                if first < last:
                    state = self._hear(tokens[:, first : first + 1], begins, state)
                logits, state = self._read(tokens[:, first : min(last, first + self._steady(state))], state)
                parts.append(logits)
                first, begins = first + logits.shape[1], None
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)), state

    def _hear(self, token: Tensor, begins: Tensor | None, state: HopeState) -> HopeState:
        """The token (batch, 1) is known, and with it the loss of the one before; then contexts end where it begins a
        document."""
        loss: Any = NextToken(self.embedding)
        with torch.autocast(token.device.type, enabled=False):  # fast weights stay in full precision
            if state.unheard is not None:
                token = torch.cat([state.unheard, token], 1)
                loss = HandedDown(loss.error(self.blocks[-1].answer(state.blocks[-1]), token))
            blocks = [b.hear(token, s, loss) for b, s in zip(self.blocks, state.blocks, strict=True)]
        state = replace(state, unheard=None)
        if begins is None or state.position == 0 or not begins.any():
            return replace(state, blocks=blocks)
        documents = state.documents + begins
        every = torch.tensor(self.config.contexts, device=token.device)
        ends = begins[:, None] & (every > 0) & (documents[:, None] % every.clamp_min(1) == 0)
        blocks = [b.end(begins, ends, s) for b, s in zip(self.blocks, blocks, strict=True)]
        return replace(state, blocks=blocks, documents=documents)

    def _steady(self, state: HopeState) -> int:
        """Tokens that can be read before a level has to move: of several blocks, levels move together."""
        if not self.together:
            return sys.maxsize
        blocks = zip(self.blocks, state.blocks, strict=True)
        return min(p - s.clock for b, t in blocks for p, s in zip(b.mlp.periods, t.levels.levels, strict=True))

    def _read(self, tokens: Tensor, state: HopeState) -> tuple[Tensor, HopeState]:
        x, blocks, loss = F.embedding(tokens, self.embedding), [], NextToken(self.embedding)
        for block, s in zip(self.blocks, state.blocks, strict=True):
            x, s = block(x, s, None if self.together else tokens[:, 1:], loss)
            blocks.append(s)
        logits = F.linear(rms(x), self.embedding)
        unheard = tokens[:, 1:] if self.together else None
        return logits, replace(state, blocks=blocks, position=state.position + tokens.shape[1], unheard=unheard)

    def loss(self, tokens: Tensor, graded: Tensor | None = None, state: HopeState | None = None) -> Tensor:
        """Mean nats per predicted token: of all tokens but the first, or of those where `graded` (batch, length) is
        true.
        """
        need(
            len(tokens) >= 1 and tokens.shape[1] >= 2,
            "tokens",
            tuple(tokens.shape),
            "(batch >= 1, length >= 2): the first token is not predicted",
        )
        logits, _ = self(tokens, state)
        paid = F.cross_entropy(full(logits[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        if graded is None:
            return paid.mean()
        need_shape("graded", graded, *tokens.shape)
        weight = graded[:, 1:].flatten().to(paid.dtype)
        some = torch.compiler.is_compiling() or bool(weight.any())
        need(some, "graded", "no token behind the first", "at least one")
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
    @torch.no_grad()
    def levels_at_work(self, tokens: Tensor, graded: Tensor | None = None) -> list[dict[str, Any]]:
        """What each level does while `tokens` (batch, length) are read: one row a level of a block.

        moved: its distance from its start at the end, over the size of the start. nats: how much more an answer costs
        (the mean of `loss`) when the level gathers and never moves. A level below 0.01 nats is asleep on these tokens.
        """
        _, state = self(tokens)
        moving, rows = float(self.loss(tokens, graded)), []
        for i, (block, s) in enumerate(zip(self.blocks, state.blocks, strict=True)):
            if s.levels is None:
                continue
            for j, level in enumerate(s.levels.levels):
                start = {"up": block.mlp.up[j], "down": block.mlp.down[j]}
                far = sum(float((w - start[n]).square().sum()) for n, w in level.weights.items())
                size = sum(float(w.square().sum()) for w in start.values()) * len(tokens)
                block.mlp.held.add(j)
                held = float(self.loss(tokens, graded))
                block.mlp.held.discard(j)
                name = block.mlp.names[j]
                rows.append({"block": i, "level": name, "moved": (far / size) ** 0.5, "nats": held - moving})
        return rows

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

    def save_memory(self, path: str | Path, state: HopeState) -> None:
        """Write what the memories hold as one file, to go on from it elsewhere: with the same weights, as `save` keeps
        them, or sent to somebody who has them.
        """
        save(path, (state, digest(self.state_dict())))

    def load_memory(self, path: str | Path) -> HopeState:
        """The state that `save_memory` wrote.

        Raises:
            NLBookError: a file that is damaged, of another kind, or made with other weights, which cannot read it.
        """
        mine = digest(self.state_dict())
        state, theirs = load(path, (self.initial_state(1), mine))
        need(theirs == mine, "path", f"{path}, a memory made with other weights ({theirs})", f"one made with {mine}")
        return state


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
