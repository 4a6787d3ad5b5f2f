"""Chapter 01, A memory you can hold: write and read a matrix memory."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *


def hebb_write(M: Tensor, k: Tensor, v: Tensor, eta: float) -> Tensor:
    """One Hebbian write: add to the memory M (d_v, d_k) the pair key k (d_k,), value v (d_v,) at rate eta."""
    # BEGIN SOLUTION
    return M + eta * torch.outer(v, k)
    # END SOLUTION


def delta_write(M: Tensor, k: Tensor, v: Tensor, eta: float) -> Tensor:
    """One delta write: move what M (d_v, d_k) returns for the key k (d_k,) towards the value v (d_v,) at rate eta."""
    # BEGIN SOLUTION
    error = v - M @ k
    return M + eta * torch.outer(error, k)
    # END SOLUTION


def a_write(d: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    """A filled memory and one pair to write; d_v and d_k differ in most cases."""
    d_v, d_k = d.int(2, 5), d.int(2, 5)
    return d.tensor(d_v, d_k), d.tensor(d_k), d.tensor(d_v), d.float(0.1, 1.0)


def an_empty_memory() -> Case:
    one = torch.eye(3, dtype=torch.float64)
    return Case(
        (torch.zeros(2, 3, dtype=torch.float64), one[0], torch.tensor([5.0, 7.0], dtype=torch.float64), 1.0),
        "an empty memory, the first basis vector as key",
    )


def rewriting_returns_the_new_value(write, d: Draw) -> str | None:
    """With a key of length one and eta = 1, the second value written under a key is the one read."""
    d_v, d_k = d.int(1, 4), d.int(1, 4)
    k, old, new = d.unit(d_k), d.tensor(d_v), d.tensor(d_v)
    M = write(write(torch.zeros(d_v, d_k, dtype=torch.float64), k, old, 1.0), k, new, 1.0)
    gap = float((M @ k - new).abs().max())
    return None if gap < 1e-9 else f"after writing twice under one key, the read misses the new value by {gap:.3g}."


def broken_delta(M: Tensor, k: Tensor, v: Tensor, eta: float) -> Tensor:
    """Should be a delta write: M (d_v, d_k), key k (d_k,), value v (d_v,), rate eta."""
    error = v[:, None] - M * k
    return M + eta * error * k


def repaired_delta(M: Tensor, k: Tensor, v: Tensor, eta: float) -> Tensor:
    """Should be a delta write: M (d_v, d_k), key k (d_k,), value v (d_v,), rate eta."""
    # BEGIN SOLUTION
    error = (v - M @ k)[:, None]
    return M + eta * error * k
    # END SOLUTION


def half_life() -> float:
    """The number of writes after which (1 - 1/64)^a has fallen to one half."""
    # BEGIN SOLUTION
    import math

    return math.log(0.5) / math.log(1 - 1 / 64)
    # END SOLUTION


def recall_from_overlaps(K: Tensor, V: Tensor) -> Tensor:
    """What the Hebbian memory of all pairs, keys K (n, d_k) and values V (n, d_v), answers to each key: (n, d_v)."""
    # BEGIN SOLUTION
    return (K @ K.T) @ V
    # END SOLUTION


def never_builds_the_memory(answer, d: Draw) -> str | None:
    """Recall of n pairs is a blend of the n stored values: it is linear in V, and each read sees only the overlaps."""
    K, V = d.unit(3, 4), d.tensor(3, 5)
    gap = float((answer(K, 2 * V) - 2 * answer(K, V)).abs().max())
    return None if gap < 1e-9 else f"doubling every value does not double the answers: they are off by {gap:.3g}."


ITEMS = [
    Implement(
        id="01-hebb",
        title="Write a pair by Hebb's rule",
        objective="01.1",
        minutes=4,
        difficulty=1,
        prompt="Return the memory after one Hebbian write of the pair (k, v) at rate eta. The memory reads as `M @ k`.",
        hints=(
            "A pair is stored as an outer product; which of the two vectors gives the rows?",
            "The read `M @ k` must give something in the direction of v: v gives the rows, k the columns.",
            "`torch.outer(v, k)` has the shape of M; scale it by eta and add it to M.",
        ),
        solution=hebb_write,
        draw=a_write,
        cases=[an_empty_memory()],
        differentiable=True,
        misconceptions=[
            Misconception(
                "delta",
                delta_write,
                "This is the delta rule: it subtracts what the memory already returns. "
                "Hebb's rule writes the value whatever the memory holds.",
            ),
            Misconception(
                "forgets",
                lambda M, k, v, eta: eta * torch.outer(v, k),
                "The pair is written, but the old memory is gone: add to M.",
            ),
            Misconception(
                "no rate",
                lambda M, k, v, eta: M + torch.outer(v, k),
                "The rate eta is missing: every write lands with full weight.",
            ),
        ],
    ),
    Implement(
        id="01-delta",
        title="Write a pair by the delta rule",
        objective="01.1",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Return the memory after one delta write: what `M @ k` returns for a key of length one moves towards v by the share eta.",
        hints=(
            "What does the memory return for k before you write, and how far is that from v?",
            "Write the error v - M k under the key k, instead of v itself.",
            "`M + eta * torch.outer(error, k)` with `error = v - M @ k`.",
        ),
        solution=delta_write,
        draw=a_write,
        cases=[an_empty_memory()],
        properties=[Property("writing a key again replaces its value", rewriting_returns_the_new_value)],
        misconceptions=[
            Misconception(
                "hebb",
                hebb_write,
                "This is Hebb's rule: it writes v but never erases what k returned before. "
                "The delta rule erases and writes.",
            ),
            Misconception(
                "erases, never writes",
                lambda M, k, v, eta: M - eta * torch.outer(M @ k, k),
                "This erases what the memory returns for k, but it does not write v.",
            ),
            Misconception(
                "no rate",
                lambda M, k, v, eta: M + torch.outer(v - M @ k, k),
                "The rate eta is missing: the step is always a full one.",
            ),
            Misconception(
                "rate on the write only",
                lambda M, k, v, eta: M - torch.outer(M @ k, k) + eta * torch.outer(v, k),
                "eta must scale the erasing as well as the writing: it multiplies the whole error.",
            ),
            Misconception(
                "update only",
                lambda M, k, v, eta: eta * torch.outer(v - M @ k, k),
                "This is the change alone: add it to M.",
            ),
        ],
    ),
    FixTheBug(
        id="01-shared",
        title="An error for each weight?",
        objective="01.2",
        minutes=4,
        difficulty=1,
        prompt="This rule was tested with basis vectors as keys, and every test passed. With other keys it never comes to rest. Mend the line that is wrong.",
        hints=(
            "The delta rule is a step on ½|M k - v|². How many errors are in that sum: one for each weight, or one for each value?",
            "Print the shape of `error`. The answer to k is a sum over the weights of a row; they share one error.",
            "Read with the matrix product: `M @ k`, shape (d_v,). Then `[:, None]` makes a column of the errors.",
        ),
        solution=repaired_delta,
        broken=broken_delta,
        draw=a_write,
        cases=[an_empty_memory()],
        properties=[Property("writing a key again replaces its value", rewriting_returns_the_new_value)],
        misconceptions=[
            Misconception(
                "an error for each weight",
                broken_delta,
                "Each weight is still compared with v by itself. What is compared is the answer M k, to which a whole row adds.",
            ),
            Misconception(
                "never erases",
                hebb_write,
                "The error is gone: this is Hebb's rule. Keep it, and take what M answers for k into it.",
            ),
            Misconception(
                "an average",
                lambda M, k, v, eta: M + eta * torch.outer(v - (M * k).mean(1), k),
                "The answer to k is the *sum* of M's weights times k over a row, not their mean.",
            ),
            Misconception(
                "shrinks everything",
                lambda M, k, v, eta: (1 - eta) * M + eta * torch.outer(v, k),
                "This fades all of M, and with it pairs under other keys. Only the answer for k is to be taken back.",
            ),
        ],
    ),
    Estimate(
        id="01-half-life",
        title="The half-life of a pair",
        objective="01.4",
        minutes=3,
        difficulty=2,
        prompt="Width 64, random keys, full delta steps: after how many further writes is a pair down to one half?",
        hints=(
            "One write leaves the share 1 - 1/d of an old pair.",
            "After a writes the share is (1 - 1/64)^a. For which a is that one half?",
            "ln(0.5) / ln(1 - 1/64), close to 0.69 times 64.",
        ),
        solution=half_life,
        unit="writes",
        within=0.05,
        wrong={
            32: "Half the width is the guess of a memory that fades along a straight line; this one fades by a constant factor.",
            64: "After d writes the share is 1/e = 0.37, already below one half.",
            22.18: "That is width 32; here the width is 64.",
        },
    ),
    Implement(
        id="01-overlaps",
        title="Recall without a memory",
        objective="01.3",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Return what the Hebbian memory of all pairs answers to each of its keys. Try it without forming the memory.",
        hints=(
            "Write down M k_i for M = sum of v_j k_j^T. Which numbers multiply the v_j?",
            "The weight of v_j in the answer to k_i is the overlap k_j . k_i: a whole n x n matrix of numbers.",
            "`K @ K.T` holds all overlaps; multiply it with V.",
        ),
        solution=recall_from_overlaps,
        draw=lambda d: (d.unit(n := d.int(1, 6), d.int(2, 5)), d.tensor(n, d.int(2, 5))),
        cases=[
            Case(
                (torch.eye(3, dtype=torch.float64)[:2], torch.tensor([[5.0, 7.0], [1.0, 2.0]], dtype=torch.float64)),
                "two keys at a right angle: each returns its own value",
            )
        ],
        properties=[Property("linear in the values", never_builds_the_memory)],
        misconceptions=[
            Misconception(
                "without its own pair",
                lambda K, V: (K @ K.T - torch.diag((K * K).sum(1))) @ V,
                "This is the crosstalk alone: the signal, the pair's own value, is missing.",
            ),
            Misconception(
                "softmax",
                lambda K, V: torch.softmax(K @ K.T, -1) @ V,
                "This normalises the overlaps, as softmax attention does (chapter 03). A Hebbian sum does not.",
            ),
            Misconception(
                "causal",
                lambda K, V: torch.tril(K @ K.T) @ V,
                "This hides the later pairs. Here every key is asked after all pairs are written.",
            ),
        ],
    ),
]
