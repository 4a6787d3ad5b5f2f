"""What each memory of the family costs: floats of state, and FLOPs of one write and one read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlbook.errors import need_choice, need_int
from nlbook.memory import make, names
from nlbook.memory.presets import PRESETS, Table


@dataclass(frozen=True)
class Cost:
    """floats: state of one head of one sequence after `length` tokens. flops: multiplications and additions of the
    token that comes then, one write and one read, without projections."""

    floats: int
    flops: int


def cost(name: str, length: int, d: int, *, window: int | None = None, hidden: int = 64, steps: int = 1) -> Cost:
    """State and work of a memory of `memory.names()` at d_k = d_v = d.

    window: of omega (default 8) and sliding_window (default 16). hidden, steps: of mlp. One multiply-add is 2 FLOPs;
    exponentials and divisions count as one; vector operations of size d are counted, bookkeeping is not.
    """
    need_choice("name", name, names())
    need_int("length", length, 0)
    need_int("d", d)
    square = d * d
    read, write = 2 * square, 2 * square  # y = M q; M + v k^T
    if name in ("softmax", "sliding_window"):
        seen = length if name == "softmax" else min(length, window or 16)
        return Cost(seen * (2 * d + 1), seen * (4 * d + 3))  # scores, exp, sum, weigh, mix
    if name == "mlp":
        return Cost(2 * d * hidden, steps * (2 * 2 * d * hidden + 3 * 2 * d * hidden) + 2 * 2 * d * hidden)
    if name == "omega":
        c = window or 8
        return Cost(square + c * (2 * d + 1), c * (2 * square + 2 * square + d) + read)
    extra = {
        "hebbian": 0,
        "linear_attention": 4 * d,
        "decay": square,
        "delta": 2 * square + d,
        "gated_delta": 3 * square + d,
        "oja": 2 * square + d,
        "implicit": 2 * square + 3 * d,
        "dgd": 2 * square + 3 * d,
        "lp": 2 * square + 3 * d,
        "rls": 6 * square + 5 * d,  # M k, P k, and the rank-one update of P
    }[name]
    return Cost(square * (2 if name == "rls" else 1), read + write + extra)


def family(members: Sequence[str], length: int = 1024, d: int = 64) -> Table:
    """Objective, learning rule and retention (eq. 61-69) of these memories, and what they cost after `length` tokens."""
    rows = Table()
    for name in members:
        parts, c = make(name).parts(), cost(name, length, d)
        rows.append(
            {
                "memory": name,
                "objective": parts["objective"],
                "learning rule": PRESETS[name].rule,
                "retention": {"M": "all of M"}.get(parts["retention"], parts["retention"]),
                "floats of state": f"{c.floats:,}",
                "FLOPs a token": f"{c.flops:,}",
            }
        )
    return rows
