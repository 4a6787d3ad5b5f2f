"""Chapter E, Where you start matters: inner state, initial state, outer weights, and the gradient through the writes."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *


def adapt(start: Tensor, K: Tensor, V: Tensor, eta: float) -> Tensor:
    """The inner loop: the memory (d_v, d_k) after delta writes of all pairs, keys K (n, d_k), values V (n, d_v), from start."""
    # BEGIN SOLUTION
    M = start
    for k, v in zip(K, V):
        M = M + eta * torch.outer(v - M @ k, k)
    return M
    # END SOLUTION


def some_pairs(d: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    n, d_v, d_k = d.int(1, 4), d.int(1, 3), d.int(2, 4)
    return d.tensor(d_v, d_k), d.unit(n, d_k), d.tensor(n, d_v), d.float(0.2, 0.9)


def no_pairs_changes_nothing(answer, d: Draw) -> str | None:
    """Without pairs, the state is the start."""
    start = d.tensor(2, 3)
    out = answer(start, torch.zeros(0, 3, dtype=start.dtype), torch.zeros(0, 2, dtype=start.dtype), 0.5)
    return None if torch.equal(out, start) else "with no pairs to write, it does not return the start."


def adapt_from_zero(start, K, V, eta):
    return adapt(torch.zeros_like(start), K, V, eta) + 0 * start


def adapt_hebb(start, K, V, eta):
    return start + eta * V.T @ K


def adapt_at_once(start, K, V, eta):
    return start + eta * (V - K @ start.T).T @ K


def adapt_last_only(start, K, V, eta):
    return adapt(start, K[-1:], V[-1:], eta)


def after_one_write(phi: Tensor, c: Tensor, a: Tensor, eta: float) -> Tensor:
    """Sum over contexts of the loss c/2 (M - a)^2 after one gradient step from the common start phi."""
    M = phi - eta * c * (phi - a)
    return (0.5 * c * (M - a) ** 2).sum()


def outer_gradient(phi: Tensor, c: Tensor, a: Tensor, eta: float) -> Tensor:
    """d/d phi of the sum over contexts of c/2 (M - a)^2, M = phi - eta c (phi - a). phi: one number; c, a: (contexts,)."""
    # BEGIN SOLUTION
    left = 1 - eta * c
    return (c * left * left * (phi - a)).sum()
    # END SOLUTION


def some_contexts(d: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    n = d.int(2, 5)
    return d.tensor(1)[0], d.tensor(n).abs() + 0.2, d.tensor(n), d.float(0.1, 0.5)


def broken_outer(start: Tensor, k: Tensor, v: Tensor, q: Tensor, target: Tensor, eta: float) -> Tensor:
    """Outer loss 1/2 |M q - target|^2 of the memory M after one delta write of (k, v); the start must get its gradient."""
    M = start.detach()
    M = M + eta * torch.outer(v - M @ k, k)
    return 0.5 * (M @ q - target).square().sum()


def outer_loss(start: Tensor, k: Tensor, v: Tensor, q: Tensor, target: Tensor, eta: float) -> Tensor:
    """Outer loss 1/2 |M q - target|^2 of the memory M after one delta write of (k, v); the start must get its gradient."""
    # BEGIN SOLUTION
    M = start + eta * torch.outer(v - start @ k, k)
    return 0.5 * (M @ q - target).square().sum()
    # END SOLUTION


def straight_through(start, k, v, q, target, eta):
    M = start + eta * torch.outer(v - start.detach() @ k, k)
    return 0.5 * (M @ q - target).square().sum()


def a_write_and_a_question(d: Draw):
    d_v, d_k = d.int(1, 3), d.int(2, 4)
    return d.tensor(d_v, d_k), d.unit(d_k), d.tensor(d_v), d.unit(d_k), d.tensor(d_v), d.float(0.2, 0.9)


def worth() -> float:
    """Writes of a zero start until its error is as small as the best start's: (1 - 1/16)^n = 0.5^2."""
    # BEGIN SOLUTION
    import math

    return math.log(0.5**2) / math.log(1 - 1 / 16)
    # END SOLUTION


ITEMS = [
    Implement(
        id="E-adapt",
        title="The inner loop",
        objective="E.2",
        minutes=6,
        difficulty=1,
        prompt="Write all pairs, one after the other, by the delta rule, beginning at `start`. The gradient must pass through to `start`.",
        hints=(
            "It is chapter 01's delta write in a loop; what is different is where it begins.",
            "Begin with `M = start`, no copy and no detach, and make a new M at each write.",
            "`M = M + eta * torch.outer(v - M @ k, k)` for each k, v of `zip(K, V)`.",
        ),
        solution=adapt,
        draw=some_pairs,
        differentiable=True,
        cases=[
            Case(
                (
                    torch.ones(1, 2, dtype=torch.float64),
                    torch.eye(2, dtype=torch.float64)[:1],
                    torch.tensor([[3.0]], dtype=torch.float64),
                    0.5,
                ),
                "one pair, half a step",
            )
        ],
        properties=[Property("no pairs, no change", no_pairs_changes_nothing)],
        misconceptions=[
            Misconception(
                "from zero",
                adapt_from_zero,
                "It begins at zero: the start is not used. Where you start is what this chapter is about.",
            ),
            Misconception(
                "hebb",
                adapt_hebb,
                "This is the Hebbian sum: it never looks at what the memory already returns, so it does not erase.",
            ),
            Misconception(
                "all at once",
                adapt_at_once,
                "All errors are taken at the start. Each write must read the memory that the one before it left.",
            ),
            Misconception(
                "last pair only", adapt_last_only, "Only the last pair is written: go on from M, not from the start."
            ),
        ],
    ),
    Derive(
        id="E-outer",
        title="The gradient through one write",
        objective="E.2",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Differentiate by hand: the outer loss after one inner step, with respect to the start phi.",
        hints=(
            "First write M - a in terms of phi - a.",
            "M - a = (1 - eta c)(phi - a). So the loss is c/2 (1 - eta c)^2 (phi - a)^2.",
            "`(c * (1 - eta * c) ** 2 * (phi - a)).sum()`: one factor from the loss, one from dM / d phi.",
        ),
        solution=outer_gradient,
        objective_fn=after_one_write,
        wrt="phi",
        draw=some_contexts,
        cases=[
            Case(
                (
                    torch.tensor(0.0, dtype=torch.float64),
                    torch.tensor([1.8, 0.2], dtype=torch.float64),
                    torch.tensor([1.0, -1.0], dtype=torch.float64),
                    0.5,
                ),
                "the loud and the quiet context, start 0",
            )
        ],
        misconceptions=[
            Misconception(
                "as printed",
                lambda phi, c, a, eta: (c * (phi - a)).sum(),
                "This is the gradient before any write: eq. 28 as printed, with the inner step left out.",
            ),
            Misconception(
                "first order",
                lambda phi, c, a, eta: (c * (1 - eta * c) * (phi - a)).sum(),
                "One factor (1 - eta c) is missing, dM / d phi: this is the first-order short cut.",
            ),
            Misconception(
                "mean",
                lambda phi, c, a, eta: (c * (1 - eta * c) ** 2 * (phi - a)).mean(),
                "This is the mean over contexts; the sum is asked for.",
            ),
            Misconception(
                "twice",
                lambda phi, c, a, eta: 2 * (c * (1 - eta * c) ** 2 * (phi - a)).sum(),
                "The loss has a factor one half, which the 2 of the square cancels.",
            ),
        ],
    ),
    FixTheBug(
        id="E-cut",
        title="It trains, and nothing is learned",
        objective="E.2",
        minutes=4,
        difficulty=1,
        prompt="The value of this outer loss is right, and yet the start never moves in training. Mend it.",
        hints=(
            "The value is right, so look for what autograd sees, not for the arithmetic.",
            "A detached tensor has the same numbers and no history: nothing behind it gets a gradient.",
            "Begin the inner step at `start` itself, in both places where it is used.",
        ),
        solution=outer_loss,
        broken=broken_outer,
        draw=a_write_and_a_question,
        differentiable=True,
        misconceptions=[
            Misconception(
                "two rates",
                lambda start, k, v, q, target, eta: outer_loss(start, k, v, q, target, eta * eta),
                "The inner step has the wrong size: eta comes once.",
            ),
            Misconception(
                "asks before it writes",
                lambda start, k, v, q, target, eta: 0.5 * (start @ q - target).square().sum(),
                "This asks the start itself, before the write: eq. 28 as printed.",
            ),
        ],
    ),
    Estimate(
        id="E-worth",
        title="What a start is worth",
        objective="E.2",
        minutes=3,
        difficulty=2,
        unit="writes",
        within=0.06,
        prompt="Width 16, and the contexts' maps share all but s^2 = 0.25 of their variance. How many full delta writes from zero reach the error of the best start?",
        hints=(
            "A random write from zero leaves the share 1 - 1/d of the error.",
            "The best common start leaves the part that is each context's own: s^2 = 0.25. For which n is (1 - 1/16)^n = 0.25?",
            "ln(0.25) / ln(1 - 1/16), close to 1.39 times 16.",
        ),
        solution=worth,
        wrong={
            10.38: "That is width 8, the chapter's experiment; here the width is 16.",
            10.74: "That reaches an error of one half; s squared is a quarter.",
            16: "After d writes a zero start still has 36 % of its error, more than a quarter.",
        },
    ),
    Order(
        id="E-order",
        title="One outer step",
        objective="E.1",
        minutes=3,
        difficulty=1,
        prompt="Put one step of meta-learning in order, for one context.",
        hints=(
            "What has to exist before a pair can be written?",
            "The outer loss is asked of the memory as the writes left it.",
            "Copy the start, write, ask, differentiate back to the start, move the start, throw the inner state away.",
        ),
        steps=(
            "move the start by the optimizer",
            "write the context's pairs",
            "set the inner state to the start",
            "differentiate back through the writes",
            "ask for pairs that were not written",
            "throw the inner state away",
        ),
        before=(
            ("set the inner state to the start", "write the context's pairs", "The inner state begins as the start."),
            (
                "write the context's pairs",
                "ask for pairs that were not written",
                "The adapted memory is what is judged.",
            ),
            (
                "ask for pairs that were not written",
                "differentiate back through the writes",
                "The gradient is that of the answers' loss.",
            ),
            (
                "differentiate back through the writes",
                "move the start by the optimizer",
                "The optimizer needs the gradient.",
            ),
            (
                "differentiate back through the writes",
                "throw the inner state away",
                "The backward pass still needs the states of all writes.",
            ),
        ),
    ),
]
