"""Which of the two fused forms of the linear memory runs: one kernel a direction, or the split over chunks (wy.py).

The one-kernel form walks the chunks in order and solves each one's system on the way, a row at a time: little traffic,
a long chain. The split solves all chunks at once and moves about twice the bytes. So a model of both decides, from
what they move and from the longest chain that has to be waited for. Its constants are assumptions from a roofline, for
one H100; no GPU was at hand to measure them. `impl="triton_wy"` and `impl="triton_fused"` overrule it.
"""

from __future__ import annotations

ROW = 0.15  # us a row of the triangular solve
PRODUCT = 0.5  # us a small product inside a chain
LAUNCH = 5.0  # us
BYTES = 3e6  # a us from memory
PROGRAMS = 2 * 132  # that carry a state, at once
SOLVES = 4 * 132  # that do not


def times(rows: int, length: int, chunk: int, dk: int, dv: int, erases: bool, half: bool) -> tuple[float, float]:
    """Modelled microseconds of the forward: (one kernel, split). `rows` = batch x heads.

    >>> one, split = times(128, 4096, 64, 64, 64, True, True)         # B 8, H 16: 4096 dependent rows against 64 steps
    >>> one > split
    True
    >>> one, split = times(4096, 128, 64, 64, 64, True, True)         # many short sequences: bytes decide
    >>> one > split
    False
    """
    size, chunks = 2 if half else 4, -(-length // chunk)
    tokens, states, solve = rows * length * size, rows * chunks * dk * dv * 4, chunk * ROW if erases else 0.0
    waves = -(-rows // PROGRAMS)
    one = max((tokens * (2 * dk + 3 * dv) + states) / BYTES, waves * chunks * (5 * PRODUCT + solve)) + LAUNCH
    blocks = -(-dk // 64) - (-dv // 64)
    prepare = max(tokens * 2 * (dk + dv) / BYTES, -(-rows * chunks * blocks // SOLVES) * solve)  # k, v in, U, W out
    chain = max((tokens * (2 * dk + 2 * dv) + states) / BYTES, waves * chunks * 2 * PRODUCT)  # U, W, k in, E out
    read = (tokens * 2 * (dk + dv) + states) / BYTES  # q, k, E in, y out
    return one, prepare + chain + read + 3 * LAUNCH


def one_spills(chunk: int, dk: int, half: bool, free: bool) -> bool:
    """Where the one-kernel forward has no setting that fits the registers of sm_80."""
    return not half and dk > 64 and chunk > 32 and not free


def split_pays(
    rows: int, length: int, chunk: int, dk: int, dv: int, *, erases: bool, half: bool, free: bool, gpu: bool
) -> tuple[bool, str]:
    """Whether to split over chunks, and why, in words for `explain=True`. `free`: the rule leaves the chunk open."""
    if not gpu:
        return False, "one kernel a direction: the interpreter runs programs one after another"
    if one_spills(chunk, dk, half, free):
        return True, "split over chunks: at this size one kernel would spill registers on sm_80"
    one, split = times(rows, length, chunk, dk, dv, erases, half)
    name, against = ("split over chunks", "in one kernel") if split < one else ("one kernel", "split over chunks")
    return split < one, (
        f"{name}: {min(one, split):.0f} us modelled against {max(one, split):.0f} us {against} "
        "(no GPU measured the model)"
    )
