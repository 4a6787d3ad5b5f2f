"""Two small torch modules with fast states, whose levels chapter 04 reads off."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nlbook.errors import generator, need_shape
from nlbook.levels.order import INF, Component
from nlbook.levels.trace import Writes


class LinearAttention(Writes, nn.Module):
    """Linear attention: M_t = M_{t-1} + v_t k_t^T, y_t = M_t q_t. Eq. 14-16; a fast state that each token writes, and
    that a slow projection asks (eq. 24-26).

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

    The memory shares k and v with the attention: `nlbook.attention.AdaTransformerBlock` with the names of the chapter.
    x (batch, length, dim) -> y (batch, length, dim).
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
