"""Levels that add up: the smallest continuum memory system, and the law of one level.

    y_t = sum_l M_l k_t            each level l a matrix (d_v, d_k) with a clock of its own
    M_l <- keep_l M_l - rate_l (sum over its chunk of g_t k_t^T)        g_t = d loss(y_t, v_t) / d y_t

**The law of one level.** Let no level forget (keep = 1, no ends) and let all move at every token. Every level receives
the same g_t k_t^T, because the loss sees the levels only through their sum. So M = sum_l M_l moves by
-(sum_l rate_l) g_t k_t^T, and g_t depends on M alone: the sum is *one* level whose rate is the sum of the rates, from
the sum of the starts. A period C > 1 only delays a share rate_l / sum of that step by up to C - 1 tokens. For a chain
of residual MLPs the same holds to first order in the rates, as their outputs add up to that order.

**The way out.** A level whose context ends (or that leaks) loses what it holds, and the next one is shown what is left:
the errors of the first tokens of each context teach the slower level. If the fast level ends where the slow one moves,
then rates (a + b, b) with the slow level moving once a context are *exactly* rates (a, b) with both moving at every
token, so the slow level's period saves its moves and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.errors import need, need_shape


@dataclass(frozen=True)
class Clock:
    """When a level moves, how far, and when it forgets.

    rate: the step of eq. 71.
    period: tokens between two moves, counted from the level's start. ends: the level starts again from zero after this
    many contexts (0: never).
    keep: the share of the level that is left at each token, in (0, 1].
    """

    rate: float
    period: int = 1
    ends: int = 0
    keep: float = 1.0


def additive(
    clocks: Sequence[Clock], k: Tensor, v: Tensor, begins: Tensor | None = None, loss: str = "squared"
) -> tuple[Tensor, list[Tensor]]:
    """Read k and learn v with levels that add up; every level starts at zero.

    Args:
        clocks: one a level. k: keys (..., length, d_k). v: values (..., length, d_v).
        begins: (length,) bool, true where a new context begins (a document); None: one context.
        loss: "squared", 1/2 |y - v|^2, or "softmax", the cross-entropy of softmax(y) against a one-hot v.

    Returns y (..., length, d_v), read before token t is written, and the levels' matrices (..., d_v, d_k) at the end.
    """
    need(len(clocks) >= 1, "clocks", f"{len(clocks)} levels", "at least one")
    need(loss in ("squared", "softmax"), "loss", repr(loss), "'squared' or 'softmax'")
    need_shape("v", v, *k.shape[:-1], None)
    length = k.shape[-2]
    for i, c in enumerate(clocks):
        need(
            c.period >= 1 and c.ends >= 0 and 0 < c.keep <= 1,
            f"clocks[{i}]",
            c,
            "period >= 1, ends >= 0, keep in (0, 1]",
        )
    begins = torch.zeros(length, dtype=torch.bool) if begins is None else begins
    need_shape("begins", begins, length)
    empty = (v[..., 0, :, None] * k[..., 0, None, :]).mul(0)
    level, waiting, age, contexts, out = [empty] * len(clocks), [empty] * len(clocks), [0] * len(clocks), 0, []
    for t in range(length):
        if begins[t] and t:
            contexts += 1
            for i, c in enumerate(clocks):
                if c.ends and contexts % c.ends == 0:
                    level[i], waiting[i], age[i] = empty, empty, 0
        key = k[..., t, :, None]
        y = (torch.stack(level).sum(0) @ key)[..., 0]
        g = (torch.softmax(y, -1) if loss == "softmax" else y) - v[..., t, :]
        write = g[..., None] * key.mT
        for i, c in enumerate(clocks):
            waiting[i] = waiting[i] + write
            level[i] = c.keep * level[i] if c.keep < 1 else level[i]
            age[i] += 1
            if age[i] == c.period:
                level[i], waiting[i], age[i] = level[i] - c.rate * waiting[i], empty, 0
        out.append(y)
    return torch.stack(out, -2), level
