"""What can stand in a block: the sequence mixers by name, those of the baselines (softmax attention, linear memories)
with the same convolution and interface as titans', and the chain of MLPs that does not move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from nlkernels import linear_memory
from torch import Tensor, nn

from nlbook.errors import generator, need, need_number
from nlbook.levels import Component
from nlbook.numerics import causal_conv, identity_taps, rms, unit
from nlbook.titans import NeuralMemory, SelfModifyingTitans
from nlbook.tree import Tree


class Projections(nn.Module):
    """Projection, short causal convolution and activation, which make q, k and v of x (batch, length, dim)."""

    def __init__(self, dim: int, heads: int, conv: int, conv_noise: float, activation: str, g: torch.Generator) -> None:
        super().__init__()
        need(dim % heads == 0, "heads", heads, f"a divisor of dim = {dim}")
        need(activation in ("silu", "none"), "activation", repr(activation), "'silu' or 'none'")
        self.heads, self.width, self.conv, self.activation = heads, dim // heads, conv, activation
        self.weight = nn.Parameter(torch.randn(3 * dim, dim, generator=g) / dim**0.5)
        if conv:
            self.taps = nn.Parameter(identity_taps(heads, 3, self.width, width=conv, noise=conv_noise, g=g))

    def tail(self, batch: int) -> Tensor:
        """The raw rows before the first token."""
        return self.weight.new_zeros(batch, self.heads, 3, max(0, self.conv - 1), self.width)

    def forward(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, head, 3, length, width) and the new tail."""
        z = F.linear(x, self.weight).unflatten(-1, (3, self.heads, self.width)).permute(0, 3, 2, 1, 4)
        if self.conv:
            z, tail = causal_conv(z, self.taps.to(z.dtype), tail.to(z.dtype))
        return (F.silu(z) if self.activation == "silu" and self.conv else z), tail


@dataclass
class LinearState(Tree):
    """M (batch, head, width, width), and the convolution's tail."""

    M: Tensor
    tail: Tensor
    position: int = 0


class LinearMixer(nn.Module):
    """A linear memory: eq. 15-16 ("linear", with decay eq. 64), eq. 65 ("delta"), the gated delta rule ("gated_delta").

    decay: alpha_t = sigmoid(w x_t + b), b for a horizon of `horizon` tokens; on by default for "gated_delta" only.
    learn_start: the initial memory is an outer parameter (zero otherwise), as Hope's memories are.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        *,
        rule: str = "gated_delta",
        decay: bool | None = None,
        horizon: float = 512.0,
        beta_max: float = 1.0,
        learn_start: bool = False,
        conv: int = 4,
        conv_noise: float = 0.5,
        activation: str = "silu",
        seed: int = 0,
    ) -> None:
        super().__init__()
        need(rule in ("linear", "delta", "gated_delta"), "rule", repr(rule), "'linear', 'delta' or 'gated_delta'")
        g = generator(seed)
        self.rule, self.decay, self.beta_max = rule, rule == "gated_delta" if decay is None else decay, beta_max
        self.qkv = Projections(dim, heads, conv, conv_noise, activation, g)
        self.gate = nn.Linear(dim, 2 * heads)
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.bias.copy_(torch.tensor([0.0] * heads + [math.log(horizon - 1)] * heads))
        self.start = nn.Parameter(torch.zeros(heads, dim // heads, dim // heads), requires_grad=learn_start)
        self.nested_initial_states = ("start",) if learn_start else ()

    def initial_state(self, batch: int) -> LinearState:
        return LinearState(self.start.expand(batch, -1, -1, -1), self.qkv.tail(batch))

    def forward(self, x: Tensor, state: LinearState | None = None) -> tuple[Tensor, LinearState]:
        """Read after write (eq. 16, 78): x (batch, length, dim) -> y, state."""
        state = state or self.initial_state(x.shape[0])
        z, tail = self.qkv(x, state.tail)
        q, k, v = unit(z[:, :, 0]), unit(z[:, :, 1]), z[:, :, 2]
        beta, alpha = self.gate(x).to(self.gate.weight.dtype).mT.split(self.qkv.heads, 1)
        beta, alpha = self.beta_max * torch.sigmoid(beta).to(q.dtype), torch.sigmoid(alpha).to(q.dtype)
        keep = alpha if self.decay else None
        erase = {"linear": None, "delta": beta, "gated_delta": beta if keep is None else keep * beta}[self.rule]
        y, M = linear_memory(q, k, v, keep, erase, beta, state.M.to(q.dtype), read="after", chunk=32)
        return y.transpose(1, 2).flatten(2), LinearState(M, tail, state.position + x.shape[1])

    def nested_components(self) -> list[Component]:
        return [Component("M", period=1, kind="fast state", size=self.start.numel())]


@dataclass
class AttentionState(Tree):
    """Keys and values (batch, head, seen, width), growing; the convolution's tail; where each row's document began."""

    k: Tensor
    v: Tensor
    tail: Tensor
    begin: Tensor
    position: int = 0

    def restart(self, rows: Tensor) -> AttentionState:
        """New documents in these rows: what lies before is hidden, not erased."""
        begin = torch.where(rows, self.position, self.begin)
        return replace(self, begin=begin, tail=self.tail.masked_fill(rows[:, None, None, None, None], 0))


def rotate(x: Tensor, first: int, base: float = 10_000.0) -> Tensor:
    """Rotary positions (RoPE) for tokens first, first + 1, ...: x (..., length, width), width even."""
    need_number("base", base, open_low=True)
    half = x.shape[-1] // 2
    place = torch.arange(first, first + x.shape[-2], device=x.device, dtype=torch.float64)
    angle = place[:, None] * base ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Causal softmax attention with rotary positions (eq. 61-62). window: how many tokens back it sees; None: all."""

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        *,
        window: int | None = None,
        conv: int = 4,
        conv_noise: float = 0.5,
        activation: str = "silu",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.qkv = Projections(dim, heads, conv, conv_noise, activation, generator(seed))
        need(self.qkv.width % 2 == 0, "dim / heads", self.qkv.width, "an even width: rotary positions turn pairs")
        self.window = window

    def initial_state(self, batch: int) -> AttentionState:
        empty = self.qkv.weight.new_zeros(batch, self.qkv.heads, 0, self.qkv.width)
        return AttentionState(
            empty, empty, self.qkv.tail(batch), torch.zeros(batch, dtype=torch.long, device=empty.device)
        )

    def forward(self, x: Tensor, state: AttentionState | None = None) -> tuple[Tensor, AttentionState]:
        """x (batch, length, dim) -> y, and the state with the new keys and values appended."""
        s = state or self.initial_state(x.shape[0])
        z, tail = self.qkv(x, s.tail)
        q, k, v = z.unbind(2)
        now = s.position
        q, k = rotate(q, now), torch.cat([s.k.to(q.dtype), rotate(k, now)], -2)
        v = torch.cat([s.v.to(q.dtype), v], -2)
        t = torch.arange(now, now + x.shape[1], device=x.device)[:, None]
        i = torch.arange(now + x.shape[1] - k.shape[-2], now + x.shape[1], device=x.device)
        sees = (i <= t) & (i >= s.begin[:, None, None])
        if self.window is not None:
            sees = sees & (i > t - self.window)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=sees[:, None])
        keep = k.shape[-2] if self.window is None else min(self.window, k.shape[-2])
        return y.transpose(1, 2).flatten(2), replace(
            s,
            k=k[..., k.shape[-2] - keep :, :],
            v=v[..., v.shape[-2] - keep :, :],
            tail=tail,
            position=now + x.shape[1],
        )


class StaticMLP(nn.Module):
    """A chain of residual MLPs that do not learn in context: h <- h + down silu(up rms(h))."""

    def __init__(self, dim: int, hidden: int, levels: int, seed: int) -> None:
        super().__init__()
        g = generator(seed)
        self.up = nn.ParameterList([torch.randn(hidden, dim, generator=g) / dim**0.5 for _ in range(levels)])
        self.down = nn.ParameterList([0.1 * torch.randn(dim, hidden, generator=g) / hidden**0.5 for _ in range(levels)])

    def forward(self, h: Tensor) -> Tensor:
        for up, down in zip(self.up, self.down):
            h = h + F.linear(F.silu(F.linear(rms(h), up)), down)
        return h


MIXERS: dict[str, type[nn.Module]] = {
    "self_modifying": SelfModifyingTitans,
    "titans": NeuralMemory,
    "attention": Attention,
    **dict.fromkeys(("linear", "delta", "gated_delta"), LinearMixer),
}
"""module(x, state) -> (y, state), with `initial_state(batch)`."""


def make_mixer(name: str, dim: int, options: dict[str, Any]) -> nn.Module:
    """The sequence mixer of that name. options: flat, see `arguments`."""
    cls, options = MIXERS[name], dict(options)
    shift = options.pop("shift", False)
    options = {"rule": name, **options} if cls is LinearMixer else options
    mixer = cls(dim, **arguments(cls, options, "options"))
    if shift:
        shift_keys(mixer)
    return mixer


@torch.no_grad()
def shift_keys(mixer: nn.Module) -> None:
    """Let keys begin as the token before, in the basis of the queries. In `key value key value ...` a value has to be
    stored under the token before it; without the shift gradient descent finds that late (RWKV and H3 build it in).
    """
    made: Any = getattr(mixer, "qkv", mixer)
    taps = getattr(made, "taps", None)
    if taps is not None:
        taps[:, 1] = taps[:, 1].roll(-1, -2)
        taps[:, 1, -1] = 0
    if isinstance(made, Projections):
        q, k, _ = made.weight.chunk(3)
        k.copy_(q)


def arguments(cls: type, flat: dict[str, Any], name: str) -> dict[str, Any]:
    """Flat settings as arguments of `cls`: what belongs to one of its dataclasses (read, eta, ...) goes there."""
    rest, out = dict(flat), {}
    for n, p in signature(cls).parameters.items():
        if is_dataclass(p.default) and not isinstance(p.default, type):
            mine = {f.name: rest.pop(f.name) for f in fields(p.default) if f.name in rest}
            out[n] = replace(p.default, **mine)
        elif n in rest:
            out[n] = rest.pop(n)
    known = "what the class's docstring names; an older model's file may hold a setting that is gone: delete it from "
    known += "config.json where it had its default, else load it with the version that wrote it"
    need(not rest, name, f"{', '.join(sorted(rest))} for {cls.__name__}", known)
    return out
