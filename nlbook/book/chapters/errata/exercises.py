"""Appendix C, Errata and ledger: a slip to find, and M3 derived once more."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *


def oja_loss(M: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """-2 <M k, v> + |M^T v|^2, the loss of eq. 67."""
    return -2 * (M @ k) @ v + (M.T @ v).square().sum()


def oja_gradient(M: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The gradient in M (d_v, d_k) of -2 <M k, v> + |M^T v|^2, for one key k (d_k,) and one value v (d_v,)."""
    # BEGIN SOLUTION
    return 2 * torch.outer(v, M.T @ v - k)
    # END SOLUTION


def m3_memories(grads: Tensor, b1: float, b3: float, period: int) -> tuple[Tensor, Tensor]:
    """M3's fast and slow memory after the gradients grads (steps, ...), both from zero. A moving average keeps 1 - b of
    what it held and takes b of what is new; the slow one is written every `period` steps, with the sum of the gradients
    of that period alone.
    """
    # BEGIN SOLUTION
    fast, slow = torch.zeros_like(grads[0]), torch.zeros_like(grads[0])
    for t in range(1, len(grads) + 1):
        fast = (1 - b1) * fast + b1 * grads[t - 1]
        if t % period == 0:
            slow = (1 - b3) * slow + b3 * grads[t - period : t].sum(0)
    return fast, slow
    # END SOLUTION


def m3_with(
    grads: Tensor,
    b1: float,
    b3: float,
    period: int,
    *,
    decay: bool = True,
    sign: float = 1.0,
    extra: int = 0,
    mean: bool = False,
    always: bool = False,
    first: int = 0,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same with one thing changed."""
    fast, slow = torch.zeros_like(grads[0]), torch.zeros_like(grads[0])
    for t in range(1, len(grads) + 1):
        fast = ((1 - b1) if decay else 1) * fast + b1 * grads[t - 1]
        if always or (t - first) % period == 0:
            part = grads[0 if whole else max(0, t - period - extra) : t].sum(0)
            slow = ((1 - b3) if decay else 1) * slow + sign * b3 * (part / period if mean else part)
    return fast, slow


def draw_m3(d: Draw) -> tuple:
    period = d.int(2, 4)
    return d.tensor(period * d.int(2, 3) + d.int(0, 1), 3), d.float(0.05, 0.5), d.float(0.2, 0.8), period


ITEMS = [
    Derive(
        id="C-slip",
        title="Find the slip: Oja's rule",
        objective="C.1",
        minutes=7,
        difficulty=2,
        points=2,
        prompt="Derive the gradient of the loss of eq. 67, and compare it with what the paper prints under the brace: M^T v - v k^T.",
        hints=(
            "Two terms: the derivative of <M k, v> in M, and of |M^T v|^2.",
            "<M k, v> gives v k^T. |M^T v|^2 = v^T M M^T v gives 2 v (M^T v)^T.",
            "`2 * torch.outer(v, M.T @ v - k)`: the shapes alone show that the print cannot be right.",
        ),
        solution=oja_gradient,
        objective_fn=oja_loss,
        wrt="M",
        draw=lambda d: (d.tensor(n := d.int(2, 4), k := n + d.int(1, 2)), d.tensor(k), d.tensor(n)),
        misconceptions=[
            Misconception(
                "without the 2",
                lambda M, k, v: torch.outer(v, M.T @ v - k),
                "That is half: the loss is printed with the factors 2 and 1, so the gradient carries a 2.",
            ),
            Misconception(
                "Hebbian part only",
                lambda M, k, v: -2 * torch.outer(v, k),
                "The second term of the loss depends on M too.",
            ),
            Misconception(
                "sign",
                lambda M, k, v: 2 * torch.outer(v, k - M.T @ v),
                "That is minus the gradient: the direction of the *write*, not of the slope.",
            ),
            Misconception(
                "delta instead",
                lambda M, k, v: 2 * torch.outer(M @ k - v, k),
                "That is the gradient of |M k - v|^2, the delta rule's loss. Here the penalty is |M^T v|^2.",
            ),
        ],
    ),
    Implement(
        id="C-m3",
        title="M3, derived once more",
        objective="C.2",
        minutes=8,
        difficulty=3,
        points=2,
        prompt="Write the two memories of M3 as they must be, not as eq. 75 prints them.",
        hints=(
            "Both memories are moving averages: what they held is multiplied by 1 - b before something is added.",
            "Counting steps from 1, the period that ends at step t holds the gradients t - period + 1 ... t: exactly `period` of them.",
            "`slow = (1 - b3) * slow + b3 * grads[t - period:t].sum(0)` whenever t % period == 0.",
        ),
        solution=m3_memories,
        draw=draw_m3,
        misconceptions=[
            Misconception(
                "as printed",
                lambda *a: m3_with(*a, decay=False),
                "Nothing decays: these are plain sums. Newton-Schulz then ignores b1 and b3 altogether.",
            ),
            Misconception(
                "minus",
                lambda *a: m3_with(*a, sign=-1.0),
                "Eq. 75 prints a minus for the slow memory, Algorithm 1 a plus. With the minus the slow memory pushes uphill.",
            ),
            Misconception(
                "one term too many",
                lambda *a: m3_with(*a, extra=1),
                "The printed sum runs over one gradient more than a period has: it belongs to the period before.",
            ),
            Misconception(
                "mean",
                lambda *a: m3_with(*a, mean=True),
                "That is the mean over the period. Newton-Schulz would not care, but the task says the sum.",
            ),
            Misconception(
                "all gradients so far",
                lambda *a: m3_with(*a, whole=True),
                "All gradients since the start go in at every write. Only those of the period that ends now do: the last `period` of them.",
            ),
            Misconception(
                "every step",
                lambda *a: m3_with(*a, always=True),
                "The slow memory is written at every step here: it is not slow.",
            ),
            Misconception(
                "a step late",
                lambda *a: m3_with(*a, first=1),
                "It writes at steps 1, period + 1, ...: the first window is not full. Write when t is a multiple of the period.",
            ),
            Misconception(
                "exchanged factors",
                lambda g, b1, b3, period: m3_with(g, b3, b1, period),
                "b1 belongs to the fast memory, b3 to the slow one.",
            ),
        ],
    ),
]
