"""Chapter 01, A memory you can hold: write and read a matrix memory."""
from __future__ import annotations

import torch
from torch import Tensor

from nlbook.check.define import Case, Draw, Implement, NearMiss, Property


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
    return Case((torch.zeros(2, 3, dtype=torch.float64), one[0], torch.tensor([5.0, 7.0], dtype=torch.float64), 1.0),
                "an empty memory, the first basis vector as key")


def rewriting_returns_the_new_value(write, d: Draw) -> str | None:
    """With a key of length one and eta = 1, the second value written under a key is the one read."""
    d_v, d_k = d.int(1, 4), d.int(1, 4)
    k, old, new = d.unit(d_k), d.tensor(d_v), d.tensor(d_v)
    M = write(write(torch.zeros(d_v, d_k, dtype=torch.float64), k, old, 1.0), k, new, 1.0)
    gap = float((M @ k - new).abs().max())
    return None if gap < 1e-9 else f"after writing twice under one key, the read misses the new value by {gap:.3g}."


ITEMS = [
    Implement(
        id="01-hebb", title="Write a pair by Hebb's rule", objective="01.1", minutes=4, difficulty=1,
        prompt="Return the memory after one Hebbian write of the pair (k, v) at rate eta. The memory reads as `M @ k`.",
        hints=("A pair is stored as an outer product; which of the two vectors gives the rows?",
               "The read `M @ k` must give something in the direction of v: v gives the rows, k the columns.",
               "`torch.outer(v, k)` has the shape of M; scale it by eta and add it to M."),
        solution=hebb_write, draw=a_write, cases=[an_empty_memory()], differentiable=True,
        near_misses=[
            NearMiss("delta", delta_write, "This is the delta rule: it subtracts what the memory already returns. "
                     "Hebb's rule writes the value whatever the memory holds."),
            NearMiss("forgets", lambda M, k, v, eta: eta * torch.outer(v, k),
                     "The pair is written, but the old memory is gone: add to M."),
            NearMiss("no rate", lambda M, k, v, eta: M + torch.outer(v, k),
                     "The rate eta is missing: every write lands with full weight."),
        ]),
    Implement(
        id="01-delta", title="Write a pair by the delta rule", objective="01.1", minutes=6, difficulty=2, points=2,
        prompt="Return the memory after one delta write: what `M @ k` returns moves towards v by the share eta.",
        hints=("What does the memory return for k before you write, and how far is that from v?",
               "Write the error v - M k under the key k, instead of v itself.",
               "`M + eta * torch.outer(error, k)` with `error = v - M @ k`."),
        solution=delta_write, draw=a_write, cases=[an_empty_memory()],
        properties=[Property("writing a key again replaces its value", rewriting_returns_the_new_value)],
        near_misses=[
            NearMiss("hebb", hebb_write, "This is Hebb's rule: it writes v but never erases what k returned before. "
                     "The delta rule erases and writes."),
            NearMiss("erases, never writes", lambda M, k, v, eta: M - eta * torch.outer(M @ k, k),
                     "This erases what the memory returns for k, but it does not write v."),
            NearMiss("no rate", lambda M, k, v, eta: M + torch.outer(v - M @ k, k),
                     "The rate eta is missing: the step is always a full one."),
            NearMiss("rate on the write only", lambda M, k, v, eta: M - torch.outer(M @ k, k) + eta * torch.outer(v, k),
                     "eta must scale the erasing as well as the writing: it multiplies the whole error."),
            NearMiss("update only", lambda M, k, v, eta: eta * torch.outer(v - M @ k, k),
                     "This is the change alone: add it to M."),
        ]),
]
