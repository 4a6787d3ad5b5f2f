"""Chapter A, Optimizers remember too: momentum's inner objective, horizon, brake, and Newton-Schulz."""

from __future__ import annotations

import math

import torch
from nlkernels import newton_schulz
from torch import Tensor

from nlbook.book.check.define import *
from nlbook.optim import momentum_horizon


def inner_gradient(m: Tensor, grad: Tensor, eta: float, keep: float) -> Tensor:
    """The gradient with respect to m of the momentum's objective <m, grad> + (1 - keep) / (2 eta) |m|^2."""
    # BEGIN SOLUTION
    return grad + (1 - keep) / eta * m
    # END SOLUTION


def inner_objective(m: Tensor, grad: Tensor, eta: float, keep: float) -> Tensor:
    return (m * grad).sum() + (1 - keep) / (2 * eta) * m.square().sum()


def horizon(beta: float, share: float) -> int:
    """The smallest number n of latest gradients that make up at least `share` of a moving average that keeps `beta`."""
    # BEGIN SOLUTION
    n = 1
    while 1 - beta**n < share:
        n += 1
    return n
    # END SOLUTION


def ten_times(answer, d: Draw) -> str | None:
    """One more nine is ten times the memory."""
    a, b = answer(0.9, 0.99), answer(0.99, 0.99)
    return (
        None
        if 10 <= b / a <= 11
        else f"at 0.9 it says {a} and at 0.99 {b}: one more nine makes about ten times as many."
    )


def printed_brake(m: Tensor, g: Tensor, lr: float, keep: float, erase: float) -> Tensor:
    """Should brake the momentum m (n,) where the gradient g (n,) is large, at strength `erase`, and then add -lr g."""
    brake = keep - g @ g
    return brake * m - lr * g


def braked_momentum(m: Tensor, g: Tensor, lr: float, keep: float, erase: float) -> Tensor:
    """Should brake the momentum m (n,) where the gradient g (n,) is large, at strength `erase`, and then add -lr g."""
    # BEGIN SOLUTION
    brake = (keep - erase * (g @ g)).clamp(min=0)
    return brake * m - lr * g
    # END SOLUTION


def draw_brake(d: Draw):
    n = d.int(1, 4)
    return d.tensor(n), d.pick(0.3, 1.0, 4.0) * d.tensor(n), d.float(0.01, 0.2), d.float(0.5, 0.95), d.float(0.05, 0.5)


def never_turned_round(answer, d: Draw) -> str | None:
    m, g = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([100.0, 0.0], dtype=torch.float64)
    held = answer(m, g, 0.0, 0.9, 0.1)
    return (
        None
        if bool((held == 0).all())
        else f"with |g| = 100 it makes {held.tolist()} of [1, 2] at lr = 0: a brake can only stop."
    )


def polar(G: Tensor, steps: int) -> Tensor:
    """The cubic Newton-Schulz iteration on G (m, n): divide by its length, then `steps` times O <- 3/2 O - 1/2 O O^T O."""
    # BEGIN SOLUTION
    O = G / G.norm()
    for _ in range(steps):
        O = 1.5 * O - 0.5 * O @ O.T @ O
    return O
    # END SOLUTION


def singular_values_reach_one(answer, d: Draw) -> str | None:
    s = torch.linalg.svdvals(answer(d.tensor(3, 5), 60))
    return (
        None if bool(((s - 1).abs() < 1e-6).all()) else f"after 60 steps the singular values are {s.tolist()}, not 1."
    )


def scale_is_lost(answer, d: Draw) -> str | None:
    G = d.tensor(3, 4)
    gap = float((answer(G, 5) - answer(1000 * G, 5)).abs().max())
    return None if gap < 1e-9 else "1000 G gives another result than G: divide by the length first."


def with_a_slow_one() -> float:
    """How many gradients make 99 % of the step when a slow momentum is added."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("horizon:beta=0.9,slow=1,log=1").facts["step99"]
    # END SOLUTION


def _iterate(O: Tensor, steps: int, a: float, b: float) -> Tensor:
    for _ in range(steps):
        O = a * O + b * O @ O.T @ O
    return O


ITEMS = [
    Derive(
        id="A-inner",
        title="The gradient of momentum's own objective",
        objective="A.1",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Return the gradient with respect to m. One step of rate eta along it is the heavy ball, decay included.",
        hints=(
            "Differentiate the two terms one by one; `grad` is a constant here.",
            "The first term is linear in m: its gradient is `grad`. The second is a square.",
            "grad plus (1 - keep) / eta times m.",
        ),
        solution=inner_gradient,
        objective_fn=inner_objective,
        wrt="m",
        draw=lambda d: (
            d.tensor(a := d.int(1, 3), b := d.int(1, 3)),
            d.tensor(a, b),
            d.float(0.05, 0.8),
            d.float(0.1, 0.95),
        ),
        misconceptions=[
            Misconception(
                "no forgetting",
                lambda m, grad, eta, keep: grad * torch.ones_like(m),
                "This is the first term alone: momentum that adds up everything and never forgets (eq. 10-11).",
            ),
            Misconception(
                "half of the ridge",
                lambda m, grad, eta, keep: grad + (1 - keep) / (2 * eta) * m,
                "The square brings a factor 2 down, which cancels the 2 below.",
            ),
            Misconception(
                "keep instead of 1 - keep",
                lambda m, grad, eta, keep: grad + keep / eta * m,
                "The ridge forgets 1 - keep of m. With `keep` in its place, m would lose what it should keep.",
            ),
            Misconception(
                "the new momentum",
                lambda m, grad, eta, keep: keep * m - eta * grad,
                "This is m *after* the step. Return the gradient; the step is m - eta * gradient.",
            ),
            Misconception(
                "the sign of eq. 13",
                lambda m, grad, eta, keep: (1 - keep) / eta * m - grad,
                "Eq. 13 counts momentum the other way round and takes it from the weight. Here the objective is + <m, grad>: its gradient is + grad.",
            ),
        ],
    ),
    Implement(
        id="A-horizon",
        title="How many gradients make half of it?",
        objective="A.2",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Return the smallest n for which the last n gradients weigh at least `share`. Count gradients, from one.",
        hints=(
            "The newest gradient weighs 1 - beta, the one before beta (1 - beta), and so on. What do n of them weigh together?",
            "A geometric sum: 1 - beta^n. Find the smallest n for which that is at least `share`.",
            "Count n up from 1 while 1 - beta**n < share.",
        ),
        solution=horizon,
        reference=lambda beta, share: momentum_horizon(beta, share),
        draw=lambda d: (d.float(0.05, 0.995), d.float(0.2, 0.995)),
        cases=[Case((0.9, 0.5), "half, at 0.9"), Case((0.9, 0.99), "99 %, at 0.9"), Case((0.99, 0.5), "half, at 0.99")],
        properties=[Property("one more nine", ten_times)],
        misconceptions=[
            Misconception(
                "largest index",
                lambda beta, share: momentum_horizon(beta, share) - 1,
                "One too few: this is the largest *index*, counted from zero (the paper's 6 and 43). It asks for the number of gradients.",
            ),
            Misconception(
                "rule of thumb",
                lambda beta, share: max(1, round(1 / (1 - beta))),
                "1 / (1 - beta) is a common rule of thumb, but it takes no notice of the share.",
            ),
            Misconception(
                "the other share",
                lambda beta, share: max(1, math.ceil(math.log(share) / math.log(beta))),
                "That solves beta^n = share: so many gradients leave `share` of the *old* memory. The last n make up 1 - beta^n.",
            ),
        ],
    ),
    ReadPicture(
        id="A-picture",
        title="The tail of a slow momentum",
        objective="A.2",
        minutes=3,
        difficulty=1,
        prompt="Landmark *0.9 and a slow one*: how many of the latest gradients make 99 % of the step now?",
        hints=(
            "Use the landmark button below the sliders.",
            "Look at the right panel, at the upper of the two dots.",
            "The number stands beside the dot at 99 %.",
        ),
        view="horizon:beta=0.9,slow=1,log=1",
        solution=with_a_slow_one,
        within=0.05,
        unit="gradients",
        wrong={44: "That is the fast momentum alone; turn the slow one on.", 12: "That is the half. Look at 99 %."},
    ),
    FixTheBug(
        id="A-brake",
        title="A brake that throws the car into reverse",
        objective="A.3",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Eq. 49 as printed, for a vector. Two things are missing: the brake's strength, and a floor below which it cannot go.",
        hints=(
            "What is the brake when the gradient has length 10? What does multiplying by that do to m?",
            "The exact gradient step has a rate in front of g g^T; and a brake may stop the momentum, but not turn it round.",
            "keep - erase * |g|^2, and never below zero.",
        ),
        solution=braked_momentum,
        broken=printed_brake,
        draw=draw_brake,
        properties=[Property("a huge gradient only stops it", never_turned_round)],
        misconceptions=[
            Misconception(
                "as printed",
                printed_brake,
                "Still as printed. Compute the brake for a gradient of length 10: it is near -99, and the momentum explodes.",
            ),
            Misconception(
                "no floor",
                lambda m, g, lr, keep, erase: (keep - erase * (g @ g)) * m - lr * g,
                "The strength is right. A large gradient still makes the factor negative, and below -1 the momentum grows as it swings.",
            ),
            Misconception(
                "no strength",
                lambda m, g, lr, keep, erase: (keep - g @ g).clamp(min=0) * m - lr * g,
                "The floor is there. But |g|^2 without a strength brakes fully wherever |g| > 1: no momentum is left to speak of.",
            ),
            Misconception(
                "brakes the write too",
                lambda m, g, lr, keep, erase: (keep - erase * (g @ g)).clamp(min=0) * (m - lr * g),
                "The brake is for what m *held*. The new gradient is written in full.",
            ),
        ],
    ),
    Implement(
        id="A-polar",
        title="Move singular values to one",
        objective="A.4",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Divide by the length (Frobenius norm), then repeat the cubic step. Never call an SVD.",
        hints=(
            "Two lines: a division, and a loop.",
            "O O^T O has the same singular vectors as O and cubed singular values.",
            "O = 1.5 * O - 0.5 * O @ O.T @ O, starting from G / G.norm().",
        ),
        solution=polar,
        reference=lambda G, steps: newton_schulz(G, steps, "cubic", eps=0.0),
        draw=lambda d: (d.tensor(d.int(1, 4), d.int(1, 4)), d.int(0, 9)),
        properties=[
            Property("singular values go to one", singular_values_reach_one),
            Property("scale does not matter", scale_is_lost),
        ],
        misconceptions=[
            Misconception(
                "entry by entry",
                lambda G, steps: _elementwise(G / G.norm(), steps),
                "O * O * O cubes the *entries*. It is the singular values that must be cubed: O @ O.T @ O.",
            ),
            Misconception(
                "one step too many",
                lambda G, steps: _iterate(G / G.norm(), steps + 1, 1.5, -0.5),
                "One step too many: with steps = 0 only the division is left.",
            ),
            Misconception(
                "largest singular value",
                lambda G, steps: _iterate(G / torch.linalg.matrix_norm(G, 2), steps, 1.5, -0.5),
                "That divides by the largest singular value, which needs an SVD. The Frobenius norm is never smaller, and is enough.",
            ),
        ],
    ),
]


def _elementwise(O: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        O = 1.5 * O - 0.5 * O**3
    return O
