"""Appendix A, Optimizers: Adam's regression and Adam, a slow momentum, a brake, and Newton-Schulz."""

from __future__ import annotations

import torch
from nlkernels import newton_schulz
from torch import Tensor

from nlbook.book.check.define import *


def best_multiplier(v: Tensor, w: Tensor, target: Tensor) -> Tensor:
    """The m (n,) that minimises sum_i w_i |m * v_i - target|^2, element by element, for pushes v (T, n), weights w (T,), target (n,)."""
    # BEGIN SOLUTION
    return (w @ v) * target / (w @ v.square())
    # END SOLUTION


def nothing_is_better(answer, d: Draw) -> str | None:
    """A little more or less of m fits worse."""
    v, w, target = d.tensor(4, 2), torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64), d.tensor(2)
    loss = lambda m: float((w[:, None] * (m * v - target).square()).sum())  # noqa: E731
    m = answer(v, w, target)
    worse = [loss(m + step) > loss(m) for step in (1e-3, -1e-3)]
    return None if all(worse) else f"m + 0.001 or m - 0.001 fits better than your m = {m.tolist()}."


def adam_step(
    p: Tensor, v: Tensor, M: Tensor, H: Tensor, t: int, lr: float, beta1: float, beta2: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The new (p, M, H) after step t = 1, 2, ... of Adam: M averages the pushes v, H their squares; eps is 1e-8."""
    # BEGIN SOLUTION
    M = beta1 * M + (1 - beta1) * v
    H = beta2 * H + (1 - beta2) * v.square()
    m = (M / (1 - beta1**t)) / ((H / (1 - beta2**t)).sqrt() + 1e-8)
    return p + lr * m, M, H
    # END SOLUTION


def draw_adam(d: Draw):
    n = d.int(1, 3)
    state = (d.tensor(n), d.tensor(n), d.tensor(n), d.tensor(n).square())
    return *state, d.int(1, 5), d.float(0.1, 0.6), d.pick(0.5, 0.8), d.pick(0.75, 0.9)


def walks_with_torch(answer, d: Draw) -> str | None:
    """Twenty steps along the path of torch.optim.Adam."""
    theirs = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    mine, M, H = (torch.zeros(3, dtype=torch.float64) for _ in range(3))
    optimizer = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99))
    for t in range(1, 21):
        theirs.grad = d.tensor(3)
        optimizer.step()
        mine, M, H = answer(mine, -theirs.grad, M, H, t, 0.1, 0.9, 0.99)
    gap = float((mine - theirs.detach()).abs().max())
    return None if gap < 1e-9 else f"after 20 steps it stands {gap:.3g} from torch's Adam."


def _adam(m):
    """Adam with another read-out: `m(M, H, v, t, beta1, beta2)`."""

    def step(p, v, M, H, t, lr, beta1, beta2):
        M, H = beta1 * M + (1 - beta1) * v, beta2 * H + (1 - beta2) * v.square()
        return p + lr * m(M, H, v, t, beta1, beta2), M, H

    return step


def printed_brake(m: Tensor, v: Tensor, lr: float, keep: float, erase: float) -> Tensor:
    """Should brake the momentum m (n,) where the push v (n,) is large, at strength `erase` and never below zero, and then add lr v."""
    brake = keep - v @ v
    return brake * m + lr * v


def braked_momentum(m: Tensor, v: Tensor, lr: float, keep: float, erase: float) -> Tensor:
    """Should brake the momentum m (n,) where the push v (n,) is large, at strength `erase` and never below zero, and then add lr v."""
    # BEGIN SOLUTION
    brake = (keep - erase * (v @ v)).clamp(min=0)
    return brake * m + lr * v
    # END SOLUTION


def draw_brake(d: Draw):
    n = d.int(1, 4)
    return d.tensor(n), d.pick(0.3, 1.0, 4.0) * d.tensor(n), d.float(0.01, 0.2), d.float(0.5, 0.95), d.float(0.05, 0.5)


def never_turned_round(answer, d: Draw) -> str | None:
    m, v = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([100.0, 0.0], dtype=torch.float64)
    held = answer(m, v, 0.0, 0.9, 0.1)
    return (
        None
        if bool((held == 0).all())
        else f"with |v| = 100 it makes {held.tolist()} of [1, 2] at lr = 0: a brake can only stop."
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
    Implement(
        id="A-adam",
        title="Adam's regression",
        objective="A.1",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Return the multiplier that fits best, for each element by itself. Set the derivative of the weighted sum of squares to zero.",
        hints=(
            "For one element: differentiate sum_i w_i (m v_i - P)^2 with respect to m, with P the target.",
            "It is 2 sum_i w_i v_i (m v_i - P). Zero means m sum w v^2 = P sum w v.",
            "(w @ v) * target / (w @ v.square())",
        ),
        solution=best_multiplier,
        draw=lambda d: (
            d.tensor(T := d.int(2, 5), n := d.int(1, 3)),
            torch.tensor([d.pick(0.25, 0.5, 1.0) for _ in range(T)], dtype=torch.float64),
            d.tensor(n),
        ),
        properties=[Property("a minimum", nothing_is_better)],
        misconceptions=[
            Misconception(
                "average of quotients",
                lambda v, w, target: w @ (target / v) / w.sum(),
                "This averages the multiplier that each push would want alone. The sum of squares weighs a push by its size as well.",
            ),
            Misconception(
                "no weights",
                lambda v, w, target: v.sum(0) * target / v.square().sum(0),
                "The weights are missing: every push counts w_i times, above and below.",
            ),
            Misconception(
                "square of the mean",
                lambda v, w, target: (w @ v) * target / (w @ v).square(),
                "Below stands the mean of the squares, not the square of the mean.",
            ),
            Misconception(
                "root too early",
                lambda v, w, target: (w @ v) * target / (w @ v.square()).sqrt(),
                "The root appears only when the target is sqrt(sum w v^2). Here the target is free: no root.",
            ),
            Misconception(
                "no target",
                lambda v, w, target: (w @ v) / (w @ v.square()),
                "This is the answer for the target 1. Whatever the target is, it multiplies m.",
            ),
        ],
    ),
    Implement(
        id="A-build",
        title="Adam, from the regression",
        objective="A.1",
        minutes=12,
        difficulty=3,
        points=3,
        prompt="Return the new weight and the two new memories. Average the pushes in M and their squares in H, divide each by what its "
        "weights sum to after t steps, and read m = M / (sqrt(H) + 1e-8).",
        hints=(
            "Four lines: write M, write H, read m, move p.",
            "After t steps the weights (1 - beta) beta^i sum to 1 - beta^t only: M and H start at zero, so divide by that.",
            "m = (M / (1 - beta1**t)) / ((H / (1 - beta2**t)).sqrt() + 1e-8), with the new M and H.",
        ),
        solution=adam_step,
        draw=draw_adam,
        properties=[Property("twenty steps of torch's Adam", walks_with_torch)],
        misconceptions=[
            Misconception(
                "downhill twice",
                _adam(lambda M, H, v, t, b1, b2: -(M / (1 - b1**t)) / ((H / (1 - b2**t)).sqrt() + 1e-8)),
                "v is the push, minus the gradient already: the weight moves by *plus* lr m.",
            ),
            Misconception(
                "no correction",
                _adam(lambda M, H, v, t, b1, b2: M / (H.sqrt() + 1e-8)),
                "M and H start at zero, and their weights do not yet sum to one: divide by 1 - beta^t.",
            ),
            Misconception(
                "no root",
                _adam(lambda M, H, v, t, b1, b2: (M / (1 - b1**t)) / (H / (1 - b2**t) + 1e-8)),
                "That is the answer to the target 1. Adam's target is sqrt(H), which turns H below into its root.",
            ),
            Misconception(
                "no memory of pushes",
                _adam(lambda M, H, v, t, b1, b2: v / ((H / (1 - b2**t)).sqrt() + 1e-8)),
                "This reads the newest push instead of M. (It is RMSProp.)",
            ),
            Misconception(
                "counts from zero",
                _adam(lambda M, H, v, t, b1, b2: (M / (1 - b1 ** (t + 1))) / ((H / (1 - b2 ** (t + 1))).sqrt() + 1e-8)),
                "The first step is t = 1: after it the weights sum to 1 - beta, which is 1 - beta**t.",
            ),
        ],
    ),
    ReadPicture(
        id="A-picture",
        title="The tail of a slow momentum",
        objective="A.4",
        minutes=4,
        difficulty=1,
        prompt="Landmark *0.9 and a slow one*: how many of the latest pushes make 99 % of the step now?",
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
        objective="A.2",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Eq. 49 as printed, for a vector. Two things are missing: the brake's strength, and a floor at zero below which it cannot go.",
        hints=(
            "What is the brake when the push has length 10? What does multiplying by that do to m?",
            "A gradient step on the regression has a rate in front of |v|^2; and a brake may stop the momentum, but not turn it round.",
            "keep - erase * |v|^2, and never below zero.",
        ),
        solution=braked_momentum,
        broken=printed_brake,
        draw=draw_brake,
        properties=[Property("a huge gradient only stops it", never_turned_round)],
        misconceptions=[
            Misconception(
                "as printed",
                printed_brake,
                "Still as printed. Compute the brake for a push of length 10: it is near -99, and the momentum explodes.",
            ),
            Misconception(
                "no floor",
                lambda m, v, lr, keep, erase: (keep - erase * (v @ v)) * m + lr * v,
                "The strength is right. A large push still makes the factor negative, and below -1 the momentum grows as it swings.",
            ),
            Misconception(
                "no strength",
                lambda m, v, lr, keep, erase: (keep - v @ v).clamp(min=0) * m + lr * v,
                "The floor is there. But |v|^2 without a strength brakes fully wherever |v| > 1: no momentum is left to speak of.",
            ),
            Misconception(
                "a smooth brake",
                lambda m, v, lr, keep, erase: keep * torch.exp(-erase * (v @ v)) * m + lr * v,
                "A smooth brake is a good one, and the sweep below tries it. Asked for here is the straight one: subtract "
                "erase |v|^2 from keep, and stop at zero.",
            ),
            Misconception(
                "along the push only",
                lambda m, v, lr, keep, erase: keep * m - erase * (m @ v) * v + lr * v,
                "This forgets only the part of m that lies along v (the other reading of eq. 49 for a vector). It is unstable where it "
                "should brake; asked for is one factor for all of m, with a floor.",
            ),
            Misconception(
                "brakes the write too",
                lambda m, v, lr, keep, erase: (keep - erase * (v @ v)).clamp(min=0) * (m + lr * v),
                "The brake is for what m *held*. The new push is written in full.",
            ),
        ],
    ),
    Implement(
        id="A-polar",
        title="Move singular values to one",
        objective="A.3",
        minutes=7,
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
