"""Chapter 00, Talk to it: the first memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlbook.book.check.define import *


def first_memory(pairs: Sequence[tuple[Tensor, Tensor]], question: Tensor, keep: float) -> Tensor:
    """What a matrix, empty at first, answers to the key `question` when all pairs (key, value) have been written.

    Before each write the matrix is multiplied by `keep`.
    """
    # BEGIN SOLUTION
    M = torch.zeros(len(pairs[0][1]), len(question), dtype=question.dtype)
    for key, value in pairs:
        M = keep * M + torch.outer(value, key)
    return M @ question
    # END SOLUTION


def without_letting_go(pairs: Sequence[tuple[Tensor, Tensor]], question: Tensor, keep: float) -> Tensor:
    return first_memory(pairs, question, 1.0)


def only_the_last(pairs: Sequence[tuple[Tensor, Tensor]], question: Tensor, keep: float) -> Tensor:
    return first_memory(pairs[-1:], question, keep)


def after_each_write(pairs: Sequence[tuple[Tensor, Tensor]], question: Tensor, keep: float) -> Tensor:
    return keep * first_memory(pairs, question, keep)


def once_at_the_end(pairs: Sequence[tuple[Tensor, Tensor]], question: Tensor, keep: float) -> Tensor:
    return keep * first_memory(pairs, question, 1.0)


def a_stream(d: Draw) -> tuple[list[tuple[Tensor, Tensor]], Tensor, float]:
    """Pairs, a question of the keys' width, a keep below one."""
    d_k, d_v = d.int(2, 4), d.int(2, 4)
    return [(d.tensor(d_k), d.tensor(d_v)) for _ in range(d.int(2, 6))], d.tensor(d_k), d.pick(0.5, 0.25, 0.75)


def the_pair_of_the_text() -> Case:
    key, value, other = (torch.tensor(x, dtype=torch.float64) for x in ([1.0, 0.0], [3.0, 1.0, 2.0], [0.0, 1.0]))
    return Case(
        ([(key, value), (other, 2 * value)], key, 0.5), "two keys at a right angle: the first value, halved once"
    )


ITEMS = [
    Implement(
        id="00-memory",
        title="A first memory",
        objective="00.3",
        minutes=5,
        difficulty=1,
        prompt="Build the whole memory: start empty, write every pair, let go of a little before each write, answer the question.",
        hints=(
            "Three things happen: an empty matrix of the right shape, a loop over the pairs, one read at the end.",
            "In the loop two things happen, in this order: what is there shrinks, then the new pair is added in full.",
            "`M = keep * M + torch.outer(value, key)` in the loop; `M` starts as `torch.zeros(len(value), len(key))`.",
        ),
        solution=first_memory,
        draw=a_stream,
        cases=[the_pair_of_the_text()],
        misconceptions=[
            Misconception(
                "nothing is let go", without_letting_go, "`keep` is missing: nothing shrinks before the next write."
            ),
            Misconception(
                "the last pair only",
                only_the_last,
                "Only the last pair is there: each write has replaced the matrix instead of adding to it.",
            ),
            Misconception(
                "shrinks after the write",
                after_each_write,
                "Here each pair shrinks as soon as it is written. Shrink what was there *before*, then write in full.",
            ),
            Misconception(
                "a moving average",
                lambda pairs, question, keep: (1 - keep) * first_memory(pairs, question, keep),
                "Each new pair is weighted with 1 - keep, so this is an average. Here a new pair is added in full.",
            ),
            Misconception(
                "shrinks once",
                once_at_the_end,
                "The matrix shrinks once, at the end. Each write has to shrink what stood before it, so old pairs shrink often.",
            ),
        ],
    )
]
