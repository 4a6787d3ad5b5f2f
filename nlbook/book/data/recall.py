"""Associative recall: pairs to store, keys that overlap, keys that are written again, each from a seed, in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nlbook.book.data.sequences import sizes
from nlbook.errors import generator, need


class Recall(NamedTuple):
    """A stream of pairs and what is asked after it.

    k (batch, length, d), v (batch, length, d): the stream. q (batch, n, d): the questions, target (batch, n, d): the
    right answers, which are also the candidates among which an answer is identified.
    """

    k: Tensor
    v: Tensor
    q: Tensor
    target: Tensor


def unit(x: Tensor) -> Tensor:
    """Each row at length 1."""
    return x / x.norm(dim=-1, keepdim=True)


def keys(n: int, d: int, rho: float = 0.0, *, batch: int = 1, seed: int = 0) -> Tensor:
    """Unit keys (batch, n, d) that share a direction: the expected cosine of two is about rho in [0, 1)."""
    sizes(n=n, d=d, batch=batch)
    need(0 <= rho < 1, "rho", rho, "a number in [0, 1)")
    g = generator(seed)
    k = torch.randn(batch, n, d, generator=g, dtype=torch.float64)
    common = torch.randn(batch, 1, d, generator=g, dtype=torch.float64)
    return unit((1 - rho) ** 0.5 * k + rho**0.5 * common)


def values(n: int, d: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    """Random unit values (batch, n, d), independent of `keys` of the same seed."""
    sizes(n=n, d=d, batch=batch)
    return unit(torch.randn(batch, n, d, generator=generator(seed + 1_000_003), dtype=torch.float64))


def pairs(n: int, d: int, rho: float = 0.0, *, batch: int = 8, seed: int = 0) -> Recall:
    """n pairs once each; every key is asked for. Arguments as in `keys`."""
    k, v = keys(n, d, rho, batch=batch, seed=seed), values(n, d, batch=batch, seed=seed)
    return Recall(k, v, k, v)


def rewrites(n: int, times: int, d: int, rho: float = 0.0, *, batch: int = 8, seed: int = 0) -> Recall:
    """n keys, each written `times` times with a fresh value, in random order; asked for is the value written last.

    The candidates are the n current values, so chance is 1/n.
    """
    sizes(n=n, times=times)
    own, v = keys(n, d, rho, batch=batch, seed=seed), values(n * times, d, batch=batch, seed=seed)
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
    return data._replace(target=data.target.roll(shift, -2))  # a rotation moves every answer
