"""The worked examples of chapter 05: as data (`worked_examples`), and two small torch modules with fast states."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from nlbook.errors import generator, need_shape
from nlbook.levels.order import INF, Component, NestedSystem
from nlbook.levels.trace import Writes


def worked_examples(length: int = 512) -> dict[str, NestedSystem]:
    """name -> system. The unit is one optimizer step, or one sequence of `length` tokens that makes one step."""
    step, seq, hope = "optimizer step", f"sequence of {length} tokens", 4096

    def weights(name: str, *needs: str, kind: str = "weights") -> Component:
        return Component(name, 1, needs=frozenset(needs), kind=kind)

    def kept(name: str, frequency: int | float | Fraction = 1, *needs: str, note: str = "") -> Component:
        return Component(name, frequency, needs=frozenset(needs), kind="optimizer state", note=note)

    def fast(name: str, frequency: int) -> Component:
        return Component(name, frequency, kind="fast state")

    attention = Component("attention", INF, kind="non-parametric")
    start = weights("W_init", kind="initial state")
    levels = [fast(f"CMS{i}", hope // p) for i, p in enumerate((256, 1024, 4096), 1)]
    titans = [fast("M_mem", hope // 64), *(fast(f"M_{n}", hope // 16) for n in ("k", "v", "eta", "alpha"))]
    slow_m = kept("M2", Fraction(1, 8), note="the slow momentum")
    systems: dict[str, tuple[list[Component], str]] = {
        "linear layer, SGD": ([weights("W")], step),
        "linear layer, momentum": ([weights("W", "m"), kept("m")], step),
        "linear layer, Adam": ([weights("W", "m", "v"), kept("m"), kept("v")], step),
        "linear attention, momentum": ([weights("W_kvq", "m"), kept("m"), fast("M_t", length)], seq),
        "Transformer, SGD": ([weights("W_kvq"), weights("W_MLP"), attention], seq),
        "AdaTransformer, SGD": ([weights("W_kvq"), start, fast("W_LinAttn", length), attention], seq),
        "Muon": ([weights("W", "m", "O"), kept("m"), kept("O", 5, "m", note="Newton-Schulz steps")], step),
        "M3": ([weights("W", "M1", "V"), kept("M1"), kept("V"), slow_m], step),
        "Hope": ([weights("slow", "CMS3"), *levels, *titans], f"sequence of {hope} tokens"),
    }
    return {name: NestedSystem(parts, unit) for name, (parts, unit) in systems.items()}


class LinearAttention(Writes, nn.Module):
    """Linear attention: M_t = M_{t-1} + v_t k_t^T, y_t = M_t q_t. Eq. 14-16; a fast state that each token writes.

    x (batch, length, dim) -> y (batch, length, dim). The state (batch, dim, dim) starts at zero.
    """

    def __init__(self, dim: int, seed: int = 0) -> None:
        super().__init__()
        self.dim = dim
        w = torch.randn(3, dim, dim, generator=generator(seed)) / dim**0.5
        self.W_k, self.W_v, self.W_q = (nn.Parameter(m) for m in w)

    def nested_components(self) -> list[Component]:
        return [Component("M", period=1, kind="fast state", size=self.dim**2, note="starts at zero in each sequence")]

    def forward(self, x: Tensor) -> Tensor:
        need_shape("x", x, "batch", "length", self.dim)
        k, v, q = x @ self.W_k.mT, x @ self.W_v.mT, x @ self.W_q.mT
        if self.write_hooks:
            _report(self, "M", torch.zeros_like(v[:, 0, :, None] * k[:, 0, None, :]), k, v)
        return torch.tril(q @ k.mT) @ v


class AdaTransformerLayer(Writes, nn.Module):
    """A Transformer layer whose MLP is a linear memory with a meta-learned start. Eq. 21 (in its column form), 69.

        y_attn,t = softmax attention over the context,   M_t = M_{t-1} + v_t k_t^T,   y_t = M_t y_attn,t

    The memory shares k and v with the attention. x (batch, length, dim) -> y (batch, length, dim).
    """

    nested_initial_states: ClassVar[tuple[str, ...]] = ("W_init",)

    def __init__(self, dim: int, seed: int = 0) -> None:
        super().__init__()
        self.dim = dim
        w = torch.randn(4, dim, dim, generator=generator(seed)) / dim**0.5
        self.W_k, self.W_v, self.W_q, self.W_init = (nn.Parameter(m) for m in w)

    def nested_components(self) -> list[Component]:
        return [
            Component("attention", INF, kind="non-parametric"),
            Component("W_LinAttn", period=1, kind="fast state", size=self.dim**2, note="starts at W_init"),
        ]

    def forward(self, x: Tensor) -> Tensor:
        need_shape("x", x, "batch", "length", self.dim)
        k, v, q = x @ self.W_k.mT, x @ self.W_v.mT, x @ self.W_q.mT
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        if self.write_hooks:
            _report(self, "W_LinAttn", self.W_init.expand(x.shape[0], -1, -1), k, v)
        return y @ self.W_init.mT + torch.tril(y @ k.mT) @ v


def _report(module: Writes, level: str, state: Tensor, k: Tensor, v: Tensor) -> None:
    """Replay the writes that the parallel form never materialises, for whoever listens."""
    for t in range(k.shape[1]):
        change = v[:, t, :, None] * k[:, t, None, :]
        state = state + change
        module.wrote(level, t + 1, state, change, "one token")
