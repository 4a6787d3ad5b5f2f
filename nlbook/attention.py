"""Attention as a memory without parameters, and the family that it belongs to (eq. 21, 26-27, 61-69).

Softmax attention is the exact answer to a small problem, solved anew for every query: which constant fits the values
best when each pair counts as much as its key resembles the query (eq. 62)? Linear attention, decay, delta, gated
delta, Oja, Omega, L_p and an MLP memory answer the same question with a state of fixed size (`nlbook.memory`). Here:

    nadaraya_watson(q, k, v)       the closed form      fit_objective(m, q, k, v)   the problem that it solves
    MemoryAttention(dim, "delta")  projections, heads and any memory of `memory.names()` as one layer
    AdaTransformerBlock(dim)       softmax attention whose MLP is a linear memory with a learned start (eq. 21, 69)
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.door import doors
from nlbook.errors import generator, need, need_float, need_same, need_shape
from nlbook.memory import make
from nlbook.memory.core import Memory, State
from nlbook.memory.nonparametric import log_weights

__all__ = ["AdaTransformerBlock", "MemoryAttention", "attention_weights", "causal_mask", "nadaraya_watson"]

# ---- softmax attention as a fit ----


def causal_mask(length: int, window: int | None = None, read: str = "after") -> Tensor:
    """Which token t (row) sees which token i (column): i <= t, with read="before" i < t, the last `window` of them."""
    need(read in ("before", "after"), "read", repr(read), "'before' or 'after'")
    need(window is None or window >= 1, "window", window, "None or an int >= 1 (tokens)")
    t = torch.arange(length)
    last = t[:, None] - (1 if read == "before" else 0)
    return (t <= last) & (t > last - (window or length + 1))


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    temperature: float | None = None,
    kernel: str = "dot",
    recency: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """s(k_i, q_j) / sum_i s(k_i, q_j): q (..., n, d), k (..., m, d) -> (..., n, m); rows sum to 1.

    temperature: None = sqrt(d); 0 = nearest key only; inf = all alike. recency in (0, 1]: a pair loses this factor of
    weight a token of age (n = m then). mask (n, m), bool: pairs that count; a row without any is all zeros.
    """
    for name, x in (("q", q), ("k", k)):
        need_float(name, x)
    need_shape("q", q, "n", k.shape[-1])
    need_same("k", k, "q", q)
    need(q.shape[:-2] == k.shape[:-2], "q", f"shape {tuple(q.shape)}", f"{(*k.shape[:-2], 'n', k.shape[-1])}, as k has")
    need(0 < recency <= 1, "recency", recency, "a number in (0, 1]")
    score = log_weights(q, k, temperature, kernel, mask)
    if recency < 1:
        need(score.shape[-1] == score.shape[-2], "recency", recency, "1 unless there is one query a key")
        t = torch.arange(score.shape[-1], dtype=score.dtype, device=score.device)
        score = score + (t[:, None] - t).clamp_min(0) * torch.tensor(recency, dtype=score.dtype).log()
    if mask is None:
        return torch.softmax(score, -1)
    need(
        mask.dtype == torch.bool and mask.shape == score.shape[-2:],
        "mask",
        f"{mask.dtype} {tuple(mask.shape)}",
        f"torch.bool {tuple(score.shape[-2:])}",
    )
    none = ~mask.any(-1, keepdim=True)
    return torch.softmax(score.masked_fill(~mask & ~none, -torch.inf), -1).masked_fill(none, 0)


def nadaraya_watson(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """The weighted mean of the values (eq. 62); with a window in `mask`, eq. 63. Options as in `attention_weights`.

    q (..., n, d), k (..., m, d), v (..., m, d_v) -> (..., n, d_v). With the default temperature: softmax attention.
    """
    need_shape("v", v, k.shape[-2], None)
    return attention_weights(q, k, **options) @ v


def fit_objective(
    m: Tensor, q: Tensor, k: Tensor, v: Tensor, *, temperature: float | None = None, kernel: str = "dot"
) -> Tensor:
    """sum_i s(k_i, q) |v_i - m|^2: the problem of one query q (d) with pairs k (n, d), v (n, d_v); m (d_v).

    Its minimiser is `nadaraya_watson` (eq. 62). Eq. 63 is the same on the last c pairs, and with q_t in every weight:
    printed is s(k_i, q_i), the weight of a pair for its own query.
    """
    s = log_weights(q.unsqueeze(0), k, temperature, kernel)[0].exp()
    return (s * (v - m).square().sum(-1)).sum()


# ---- layers ----


class MemoryAttention(nn.Module):
    """Slow projections around a fast memory: y_t = W_o M(W_q x_t), the memory written with (W_k x_t, W_v x_t).

    eq. 14, 61 (rows: k = x W_k^T) and 26 (the fast read of a slow forward pass). memory: a name (options go to it) or a
    Memory. normalise: keys and queries to length 1, so that a write rate of 1 means the same for every token.
    x (batch, length, dim) -> y (batch, length, dim) and the state, one memory per sequence and head.
    """

    def __init__(
        self,
        dim: int,
        memory: str | Memory = "delta",
        heads: int = 1,
        *,
        normalise: bool = True,
        read: str = "after",
        impl: str = "loop",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        need(heads >= 1 and dim % heads == 0, "heads", heads, f"a divisor of dim = {dim}")
        need(isinstance(memory, str) or not options, "options", sorted(options), "none: the memory is already made")
        self.memory = make(memory, **options) if isinstance(memory, str) else memory
        self.dim, self.heads, self.normalise, self.read, self.impl = dim, heads, normalise, read, impl
        g = generator(seed)
        self.k, self.v, self.q, self.o = (projection(dim, g) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, dim) -> (batch, head, length, dim / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        need_shape("x", x, "batch", "length", self.dim)
        k, v, q = (self.split(w(x)) for w in (self.k, self.v, self.q))
        if self.normalise:
            k, q = (nn.functional.normalize(z, dim=-1) for z in (k, q))
        y, state = self.memory.scan(k, v, q, state, self.read, impl=self.impl)
        return self.o(y.transpose(1, 2).flatten(-2)), state


def projection(dim: int, g: torch.Generator) -> nn.Linear:
    """A linear map dim -> dim without bias, entries of variance 1/dim from g."""
    layer = nn.Linear(dim, dim, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(dim, dim, generator=g) / sqrt(dim))
    return layer


class AdaTransformerBlock(nn.Module):
    """A Transformer block with a linear memory for its MLP: y_t = W_t y_attn,t, W_t = W_{t-1} + v_t k_t^T (eq. 21, 69).

    Attention and memory share keys and values. The start W_0 is a parameter, the slow level learns it (eq. 28); with
    nothing written the block is attention followed by a linear layer. In the paper's row letters the write is
    k_t^T v_t; printed is v_t k_t^T, a number. x (batch, length, dim) -> the same shape; one head, dim = d_k = d_v.
    lr: write rate (1 in the paper). window: of the softmax attention.
    """

    def __init__(self, dim: int, *, lr: float = 1.0, window: int | None = None, seed: int = 0) -> None:
        super().__init__()
        g = generator(seed)
        self.dim, self.lr, self.window = dim, lr, window
        self.k, self.v, self.q, self.start = (projection(dim, g) for _ in range(4))
        self.memory = make("hebbian", lr=lr)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Softmax attention's answers, and the keys and values that it shares, as x in shape (eq. 61, 69)."""
        need_shape("x", x, "batch", "length", self.dim)
        k, v, q = self.k(x), self.v(x), self.q(x)
        return nadaraya_watson(q, k, v, mask=causal_mask(x.shape[1], self.window).to(x.device)), k, v

    def forward(self, x: Tensor) -> Tensor:
        """The parallel form: y_attn W_0^T + lr tril(y_attn K^T) V."""
        y, k, v = self.attend(x)
        return self.start(y) + self.lr * torch.tril(y @ k.mT) @ v

    def by_token(self, x: Tensor) -> Tensor:
        """The same, token by token with the memory in hand: the definition."""
        y, k, v = self.attend(x)
        state = self.memory.init(self.dim, self.dim, x.shape[:1], dtype=x.dtype, M0=self.start.weight)
        return self.memory.scan(k, v, y, state, read="after")[0]


doors(__name__)
