"""Appendix D, Counting with one number: the matrix of a write, the rate that flips a sign, what a chunk does to it."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.chapters.selfmod.exercises import self_write
from nlbook.book.check.define import *


# ---------------------------------------------------------------------- one write, one matrix
def transition(k: Tensor, v: Tensor, eta: float, alpha: float) -> Tensor:
    """The matrix T (d, d) with which one self-generated write multiplies the memory: M_t = M_{t-1} T. k, v (d,)."""
    # BEGIN SOLUTION
    eye = torch.eye(len(k), dtype=k.dtype)
    return alpha * eye - 2 * eta * torch.outer(k, k) + eta * torch.outer(v, k)
    # END SOLUTION


def multiplies_any_memory(answer, d: Draw) -> str | None:
    M, k, v = d.tensor(3, 3), d.unit(3), d.unit(3)
    gap = (M @ answer(k, v, 0.3, 0.9) - self_write(M, k, v, 0.3, 0.9)).abs().max()
    return None if gap < 1e-9 else f"M T and the written memory differ by {float(gap):.2g}."


# ---------------------------------------------------------------------- counting
def count_states(bits: Tensor, c: float) -> tuple[Tensor, float]:
    """(w, eta). w (T,): the memory after each bit: one number, w_0 = 1, key 1, value v^ = c w (so c = v . k), eq. 88 with alpha = 1.

    The rate is 0 at a bit 0. At a bit 1 it is eta, chosen so that w changes its sign and nothing else. bits (T,) of 0 and 1; c <= 0.
    """
    # BEGIN SOLUTION
    eta = 2 / (2 - c)
    factor = 1 + bits * (eta * c - 2 * eta)  # 1 at a bit 0
    return torch.cumprod(factor, 0), eta
    # END SOLUTION


def draw_bits(d: Draw) -> tuple:
    return torch.tensor([float(d.int(0, 1)) for _ in range(d.int(2, 9))], dtype=torch.float64), -d.float(0.0, 1.0)


def scaled_count(shift: float):
    """Counting with a wrong number of erasures: 1 - shift eta + eta c at the right rate of another rule."""

    def states(bits: Tensor, c: float) -> tuple[Tensor, float]:
        eta = 2 / (shift - c)
        return torch.cumprod(1 + bits * (eta * c - 2 * eta), 0), eta

    return states


def with_rate(states):
    """A wrong memory beside the right rate."""
    return lambda bits, c: (states(bits), 2 / (2 - c))


# ---------------------------------------------------------------------- chunks
def chunk_states(bits: Tensor, eta: float, chunk: int) -> Tensor:
    """w (T,): the memory after each bit, read in chunks (eq. 90). One number, w_0 = 1, key 1, value 0, alpha = 1.

    At a bit 1 the DGD factor takes eta times the *running* w away, and the gradient of w^2 / 2, taken at the *start of the
    chunk*, takes eta times that w away. The start is renewed after every `chunk` bits. bits (T,) of 0 and 1.
    """
    # BEGIN SOLUTION
    w = start = torch.ones((), dtype=bits.dtype)
    out = []
    for t, bit in enumerate(bits):
        if t % chunk == 0:
            start = w
        w = w - eta * bit * (w + start)
        out.append(w)
    return torch.stack(out)
    # END SOLUTION


def draw_chunks(d: Draw) -> tuple:
    return (
        torch.tensor([float(d.int(0, 1)) for _ in range(d.int(3, 9))], dtype=torch.float64),
        d.float(0.3, 1.0),
        d.int(2, 4),
    )


def chunked(bits: Tensor, eta: float, chunk: int, *, late: int = 0, both: bool = False) -> Tensor:
    """chunk_states with boundaries `late` tokens later, or with both parts at the chunk's start."""
    w = start = torch.ones((), dtype=bits.dtype)
    out = []
    for t, bit in enumerate(bits):
        if (t - late) % chunk == 0:
            start = w
        w = w - eta * bit * ((start if both else w) + start)
        out.append(w)
    return torch.stack(out)


ITEMS = [
    Implement(
        id="D-transition",
        title="One write, one matrix",
        objective="D.1",
        minutes=6,
        difficulty=2,
        prompt="Return T with M_t = M_{t-1} T for a write of eq. 88 with the value M v.",
        hints=(
            "Everything that is written starts with M on the left: take it out.",
            "M (alpha I - eta k k^T) - eta (M k - M v) k^T.",
            "`alpha * eye - 2 * eta * torch.outer(k, k) + eta * torch.outer(v, k)`.",
        ),
        solution=transition,
        draw=lambda d: (d.unit(n := d.int(2, 4)), d.unit(n), d.float(0.1, 0.6), d.float(0.7, 0.99)),
        properties=[Property("it multiplies any memory", multiplies_any_memory)],
        misconceptions=[
            Misconception(
                "erased once",
                lambda k, v, eta, alpha: (
                    alpha * torch.eye(len(k), dtype=k.dtype) - eta * torch.outer(k, k) + eta * torch.outer(v, k)
                ),
                "The key's direction is erased twice: once by the DGD factor, once by the squared error.",
            ),
            Misconception(
                "transposed",
                lambda k, v, eta, alpha: transition(k, v, eta, alpha).T,
                "v k^T, not k v^T: M T k must contain M v.",
            ),
            Misconception(
                "given value",
                lambda k, v, eta, alpha: alpha * torch.eye(len(k), dtype=k.dtype) - 2 * eta * torch.outer(k, k),
                "That is the transition for a value from outside, which is *added* afterwards. Here M v multiplies too.",
            ),
        ],
    ),
    Implement(
        id="D-count",
        title="A memory that counts",
        objective="D.1",
        minutes=9,
        difficulty=3,
        points=2,
        prompt="One number as a memory. Choose its rate so that a 1 flips its sign, and return the memory after each bit, and that rate.",
        hints=(
            "For one number T is 1 - 2 eta + eta c.",
            "Set it to -1 and solve for eta.",
            "`eta = 2 / (2 - c)`; then multiply by -1 at each 1.",
        ),
        solution=count_states,
        draw=draw_bits,
        time_dim=0,
        cases=[
            Case((torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64), 0.0), "a value of zero"),
            Case((torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64), -1.0), "v = -k"),
        ],
        misconceptions=[
            Misconception(
                "counts",
                with_rate(lambda bits: torch.cumsum(bits, 0)),
                "This counts the ones, as linear attention does. Parity wants a sign that flips.",
            ),
            Misconception(
                "flips at zeros",
                with_rate(lambda bits: torch.cumprod(2 * bits - 1, 0)),
                "The sign changes at a 1, not at a 0.",
            ),
            Misconception(
                "erased once",
                scaled_count(1.0),
                "You solved 1 - eta + eta c = -1. The DGD factor and the error erase once each: 1 - 2 eta + eta c.",
            ),
            Misconception(
                "before the bit",
                with_rate(lambda bits: torch.cumprod(1 - 2 * torch.cat([bits[:1] * 0, bits[:-1]]), 0)),
                "That is the memory before each bit.",
            ),
        ],
    ),
    Implement(
        id="D-chunk",
        title="Two flips in one chunk",
        objective="D.3",
        minutes=8,
        difficulty=2,
        prompt="Return the memory after each bit when the errors of a chunk are all taken at its start.",
        hints=(
            "Two numbers: w, which moves at every bit, and start, which is w at the last boundary.",
            "At a bit 1: w loses eta w (the factor) and eta start (the gradient).",
            "`w = w - eta * bit * (w + start)`; before it, at every `chunk`-th bit, `start = w`.",
        ),
        solution=chunk_states,
        draw=draw_chunks,
        time_dim=0,
        cases=[
            Case((torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64), 1.0, 2), "rate 1, two bits in a chunk"),
            Case((torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64), 0.5, 4), "a text shorter than a chunk"),
        ],
        misconceptions=[
            Misconception(
                "chunk 1",
                lambda bits, eta, chunk: torch.cumprod(1 - 2 * eta * bits, 0),
                "Both parts were taken at the running w: that is chunk size 1. The gradient comes from the start of the chunk.",
            ),
            Misconception(
                "all from the start",
                lambda bits, eta, chunk: chunked(bits, eta, chunk, both=True),
                "The factor acts on the running w. Only the gradient is taken at the start of the chunk.",
            ),
            Misconception(
                "never renewed",
                lambda bits, eta, chunk: chunked(bits, eta, 10**6),
                "The start was never renewed. After every `chunk` bits it is the w of that moment.",
            ),
            Misconception(
                "one late",
                lambda bits, eta, chunk: chunked(bits, eta, chunk, late=1),
                "Your boundaries come one bit late. Bits are counted from 0: the start is renewed before bit 0, chunk, 2 chunk.",
            ),
        ],
    ),
]
