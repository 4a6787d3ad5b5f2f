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
    """A filled memory and one pair to write. Keys and values are equally long, so that a transposed write runs and is
    told apart by its numbers."""
    n = d.int(2, 5)
    return d.tensor(n, n), d.tensor(n), d.tensor(n), d.float(0.1, 1.0)


def an_empty_memory() -> Case:
    one = torch.eye(2, dtype=torch.float64)
    return Case(
        (torch.zeros(2, 2, dtype=torch.float64), one[0], torch.tensor([5.0, 7.0], dtype=torch.float64), 1.0),
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


def first_after_second(v1: Tensor, v2: Tensor, c: float, eta: float) -> Tensor:
    """What the first key returns after two delta writes into an empty matrix: (k1, v1) at rate 1, then (k2, v2) at rate eta.

    Both keys have length 1, and their overlap k1 . k2 is c.
    """
    # BEGIN SOLUTION
    return (1 - eta * c**2) * v1 + eta * c * v2
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


def write_both(slow: Tensor, fast: Tensor, k: Tensor, v: Tensor, rates: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """One delta write into two matrices (d_v, d_k) that answer together, (slow + fast) @ k: both write the error that is left.

    `rates` are the slow and the fast rate; returned are both matrices after the write.
    """
    # BEGIN SOLUTION
    error = torch.outer(v - (slow + fast) @ k, k)
    return slow + rates[0] * error, fast + rates[1] * error
    # END SOLUTION


def each_its_own(slow, fast, k, v, rates):
    return delta_write(slow, k, v, rates[0]), delta_write(fast, k, v, rates[1])


def fast_sees_the_new_slow(slow, fast, k, v, rates):
    slow = slow + rates[0] * torch.outer(v - (slow + fast) @ k, k)
    return slow, fast + rates[1] * torch.outer(v - (slow + fast) @ k, k)


def read_stream(K: Tensor, V: Tensor, begins: list[bool], rates: tuple[float, float]) -> Tensor:
    """What two matrices, empty at first, answer to each key of K (n, d_k) before its value in V (n, d_v) is written: (n, d_v).

    `begins[t]` says that a document begins with pair t: there the fast matrix is emptied, before it is asked.
    """
    # BEGIN SOLUTION
    slow = fast = K.new_zeros(V.shape[1], K.shape[1])
    answers = []
    for k, v, begin in zip(K, V, begins, strict=True):
        if begin:
            fast = torch.zeros_like(fast)
        answers.append((slow + fast) @ k)
        slow, fast = write_both(slow, fast, k, v, rates)
    return torch.stack(answers)
    # END SOLUTION


def misread(after: bool = False, late: bool = False):
    """A reader that answers after the write, or that empties the fast matrix only after the question."""

    def read(K, V, begins, rates):
        slow = fast = K.new_zeros(V.shape[1], K.shape[1])
        answers = []
        for k, v, begin in zip(K, V, begins, strict=True):
            before, empty = (slow + (fast if late or not begin else 0 * fast)) @ k, 0 * fast if begin else fast
            slow, fast = write_both(slow, empty, k, v, rates)
            answers.append((slow + fast) @ k if after else before)
        return torch.stack(answers)

    return read


def a_small_stream(d: Draw) -> tuple[Tensor, Tensor, list[bool], tuple[float, float]]:
    """Keys of length 1, the first of which comes again in the last document; two or three documents."""
    n, d_k = d.int(3, 8), d.int(2, 4)
    K = d.unit(n, d_k)
    K = torch.cat([K[:-1], K[:1]])
    return K, d.tensor(n, d.int(1, 3)), [t == 0 or t == n // 2 for t in range(n)], (d.pick(0.25, 0.125), 0.5)


TRANSPOSED = "The write is transposed. M @ k reads with the rows of M, so row i holds v_i times the key: outer(v, k)."

ITEMS = [
    Implement(
        id="01-hebb",
        title="Write a pair by Hebb's rule",
        objective="01.1",
        minutes=5,
        difficulty=1,
        prompt="Return the memory after one step of gradient descent, at rate eta, on −⟨Mk, v⟩. The memory reads as `M @ k`.",
        hints=(
            "Write <Mk, v> as a sum over the entries of M. What stands beside M_ij?",
            "v_i k_j: so the gradient is an outer product. Which of the two vectors gives the rows of M?",
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
            Misconception("transposed", lambda M, k, v, eta: M + eta * torch.outer(k, v), TRANSPOSED),
        ],
    ),
    Implement(
        id="01-delta",
        title="Write a pair by the delta rule",
        objective="01.2",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Return the memory after one step of gradient descent, at rate eta, on ½|Mk − v|².",
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
                "rate on the erasing only",
                lambda M, k, v, eta: M - eta * torch.outer(M @ k, k) + torch.outer(v, k),
                "eta must scale the writing as well as the erasing: it multiplies the whole error.",
            ),
            Misconception(
                "update only",
                lambda M, k, v, eta: eta * torch.outer(v - M @ k, k),
                "This is the change alone: add it to M.",
            ),
            Misconception("transposed", lambda M, k, v, eta: M + eta * torch.outer(k, v - M @ k), TRANSPOSED),
        ],
    ),
    FixTheBug(
        id="01-shared",
        title="An error for each weight?",
        objective="01.2",
        minutes=5,
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
            Misconception(
                "divided by k.k",
                lambda M, k, v, eta: M + eta * torch.outer(v - M @ k, k) / (k @ k),
                "The step is divided by k · k. That undoes the length of the key, but it is not the gradient step: write the error times k.",
            ),
        ],
    ),
    Implement(
        id="01-second",
        title="What a second write leaves",
        objective="01.3",
        minutes=6,
        difficulty=2,
        prompt="Work it out on paper: what does the first key return after the second write? Use c and eta, no matrices.",
        hints=(
            "After the first write M is the outer product of v1 and k1. What does it answer to k2?",
            "It answers c v1, so the error is v2 − c v1. The second write adds eta times that error, filed under k2.",
            "Asked with k1, what was filed under k2 comes back times c: v1 + eta * c * (v2 − c v1).",
        ),
        solution=first_after_second,
        draw=lambda d: (d.tensor(n := d.int(1, 3)), d.tensor(n), d.pick(0.5, -0.5, 0.25), d.pick(0.5, 0.25, 1.0)),
        cases=[
            Case((torch.tensor([4.0]).double(), torch.tensor([8.0]).double(), 0.5, 1.0), "overlap a half, a full write")
        ],
        misconceptions=[
            Misconception(
                "nothing is erased",
                lambda v1, v2, c, eta: v1 + eta * c * v2,
                "That is Hebb's rule: v1 stays whole. The delta rule writes v2 *less* what k2 returned before.",
            ),
            Misconception(
                "c once",
                lambda v1, v2, c, eta: (1 - eta * c) * v1 + eta * c * v2,
                "The overlap counts twice in what is erased: once when k2 reads part of v1, once when k1 reads what was taken.",
            ),
            Misconception(
                "erases in full",
                lambda v1, v2, c, eta: (1 - c**2) * v1 + eta * c * v2,
                "The rate scales the whole error, so it scales what is erased as well.",
            ),
            Misconception(
                "the second key",
                lambda v1, v2, c, eta: (1 - eta) * c * v1 + eta * v2,
                "That is what the *second* key returns. Asked is the first.",
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
    Implement(
        id="01-both",
        title="One write into two matrices",
        objective="01.5",
        minutes=6,
        difficulty=2,
        prompt="Two matrices answer together, by their sum. Let both write the error that is left of the common answer.",
        hints=(
            "There is one answer, (slow + fast) @ k, so there is one error.",
            "Work out the error before either matrix has moved; then both add it, filed under k, at their own rates.",
            "`error = torch.outer(v - (slow + fast) @ k, k)`, then `slow + rates[0] * error` and the same for fast.",
        ),
        solution=write_both,
        draw=lambda d: (
            d.tensor(d_v := d.int(2, 3), d_k := d.int(2, 4)),
            d.tensor(d_v, d_k),
            d.unit(d_k),
            d.tensor(d_v),
            (0.25, 0.5),
        ),
        cases=[
            Case(
                (
                    *(torch.tensor([[2.0, 0.0]]).double(),) * 2,
                    torch.tensor([1.0, 0.0]).double(),
                    torch.tensor([8.0]).double(),
                    (0.25, 0.5),
                ),
                "together they answer 4, and 8 is wanted",
            )
        ],
        misconceptions=[
            Misconception(
                "each its own error",
                each_its_own,
                "Each matrix is written as if it were alone. They answer together: write what is left of the *sum*.",
            ),
            Misconception(
                "one after the other",
                fast_sees_the_new_slow,
                "The fast matrix sees the slow one after its write. Take the error once, before either has moved.",
            ),
            Misconception(
                "nothing is erased",
                lambda slow, fast, k, v, rates: (hebb_write(slow, k, v, rates[0]), hebb_write(fast, k, v, rates[1])),
                "Both write the value by Hebb's rule. Write the error of the common answer instead.",
            ),
        ],
    ),
    Implement(
        id="01-reader",
        title="A reader with two matrices",
        objective="01.5",
        minutes=10,
        difficulty=3,
        points=2,
        prompt="Put the parts together: empty the fast matrix where a document begins, answer, then write into both. Your write_both may help.",
        hints=(
            "For each pair three things happen in this order: perhaps the fast matrix is emptied, the key is asked, the pair is written.",
            "Keep the answers in a list, each taken before the write; stack them at the end.",
            "In the loop: `if begin: fast = torch.zeros_like(fast)`, `answers.append((slow + fast) @ k)`, `slow, fast = write_both(...)`.",
        ),
        solution=read_stream,
        draw=a_small_stream,
        misconceptions=[
            Misconception(
                "never emptied",
                lambda K, V, begins, rates: read_stream(K, V, [False] * len(K), rates),
                "The fast matrix is never emptied, so both are one matrix at the sum of the rates.",
            ),
            Misconception(
                "both emptied",
                lambda K, V, begins, rates: read_stream(K, V, begins, (0.0, sum(rates))),
                "Both matrices are emptied where a document begins. The slow one lives on: that is what it is for.",
            ),
            Misconception(
                "after the write",
                misread(after=True),
                "Each answer is taken after its own pair was written, so it knows what it is asked. Ask first.",
            ),
            Misconception(
                "emptied too late",
                misread(late=True),
                "The fast matrix is emptied after the first question of a document. It must be empty when that is asked.",
            ),
            Misconception(
                "rates exchanged",
                lambda K, V, begins, rates: read_stream(K, V, begins, rates[::-1]),
                "The first rate belongs to the slow matrix, which is never emptied.",
            ),
        ],
    ),
]
