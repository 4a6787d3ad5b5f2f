"""Associative recall: pairs to store, keys that overlap, keys that are written again. Everything from a seed, in
float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.errors import generator, need


def unit(x: Tensor) -> Tensor:
    """Each row at length 1."""
    return x / x.norm(dim=-1, keepdim=True)


def _sizes(**sizes: int) -> None:
    for name, n in sizes.items():
        need(isinstance(n, int) and not isinstance(n, bool) and n >= 1, name, n, "an int >= 1")


def keys(
    n: int,
    d: int,
    rho: float = 0.0,
    *,
    kind: str = "common",
    batch: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Unit keys (batch, n, d).

    kind="common": keys share a direction, the expected cosine of two keys is about rho in [0, 1); rho = 0: random keys.
    kind="spectrum": keys live mostly in a few directions, entry i has scale exp(-6 rho i / d).
    """
    _sizes(n=n, d=d, batch=batch)
    need(0 <= rho < 1, "rho", rho, "a number in [0, 1)")
    need(kind in ("common", "spectrum"), "kind", repr(kind), "'common' or 'spectrum'")
    g = generator(seed)
    k = torch.randn(batch, n, d, generator=g, dtype=torch.float64)
    common = torch.randn(batch, 1, d, generator=g, dtype=torch.float64)
    k = (1 - rho) ** 0.5 * k + rho**0.5 * common if kind == "common" else k * torch.exp(-6 * rho * torch.arange(d) / d)
    return unit(k).to(dtype)


def values(n: int, d: int, *, batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random unit values (batch, n, d), independent of `keys` of the same seed."""
    _sizes(n=n, d=d, batch=batch)
    return unit(torch.randn(batch, n, d, generator=generator(seed + 1_000_003), dtype=torch.float64)).to(dtype)


@dataclass(frozen=True)
class Recall:
    """A stream of pairs and what is asked after it.

    k (batch, length, d_k), v (batch, length, d_v): the stream. q (batch, n, d_k): the questions, target (batch, n,
    d_v): the right answers, which are also the candidates among which an answer is identified.
    """

    k: Tensor
    v: Tensor
    q: Tensor
    target: Tensor


def pairs(
    n: int,
    d: int,
    rho: float = 0.0,
    *,
    d_v: int | None = None,
    kind: str = "common",
    batch: int = 8,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Recall:
    """n pairs once each; every key is asked for. Arguments as in `keys`; d_v defaults to d."""
    k = keys(n, d, rho, kind=kind, batch=batch, seed=seed, dtype=dtype)
    v = values(n, d_v or d, batch=batch, seed=seed, dtype=dtype)
    return Recall(k, v, k, v)


def rewrites(
    n: int,
    times: int,
    d: int,
    rho: float = 0.0,
    *,
    d_v: int | None = None,
    kind: str = "common",
    batch: int = 8,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Recall:
    """n keys, each written `times` times with a fresh value, in random order; asked for is the value written last.

    The candidates are the n current values, so chance is 1/n.
    """
    _sizes(n=n, times=times)
    own = keys(n, d, rho, kind=kind, batch=batch, seed=seed, dtype=dtype)
    v = values(n * times, d_v or d, batch=batch, seed=seed, dtype=dtype)
    g = generator(seed + 2_000_003)
    # which key each token writes: (batch, n * times)
    which = torch.stack([torch.randperm(n * times, generator=g) % n for _ in range(batch)])
    token = torch.arange(n * times)
    last = torch.stack([torch.where(which == i, token, -1).max(-1).values for i in range(n)], -1)  # (batch, n)
    row = torch.arange(batch)[:, None]
    return Recall(own[row, which], v, own, v[row, last])


def shuffled(data: Recall, seed: int = 0) -> Recall:
    """The negative control: the same keys and values, the right answers paired with other keys. Recall is at chance."""
    n = data.target.shape[-2]
    need(n >= 2, "data", f"{n} pair", "at least 2 pairs")
    shift = int(torch.randint(1, n, (1,), generator=generator(seed)))
    return Recall(data.k, data.v, data.q, data.target.roll(shift, -2))  # a rotation moves every answer
