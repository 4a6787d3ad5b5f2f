"""Chapter F, Rate, step or forgetting?: fair controls, the stability border, the second-order effect, the metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *


def period_gap(a: float, lr: float, period: int) -> float:
    """How far apart are two weights that start at 1 and descend a w^2 / 2: one moves `period` times by the gradient of the moment, the
    other once, by `period` times the gradient at the start? Return the first minus the second."""
    # BEGIN SOLUTION
    each_step = (1 - lr * a) ** period
    one_sum = 1 - lr * a * period
    return each_step - one_sum
    # END SOLUTION


def border(keys: Tensor) -> float:
    """The largest stable step of a linear level that sums the squared-error gradients of keys (C, d): 2 / lambda_max(sum k k^T)."""
    # BEGIN SOLUTION
    return float(2 / torch.linalg.eigvalsh(keys.T @ keys)[-1])
    # END SOLUTION


def border_grows_unstable(answer, d: Draw) -> str | None:
    keys, gap = d.unit(5, 3), d.tensor(2, 3)
    for share, grows in ((0.9, False), (1.1, True)):
        w = gap
        for _ in range(400):
            w = w - share * answer(keys) * (w @ keys.T) @ keys
        if (float(w.norm()) > 10 * float(gap.norm())) != grows:
            return f"at {share} of your border a run of 400 updates {'does not explode' if grows else 'explodes'}."
    return None


def divided_twice(lr: float, periods: list[int], reduce: str) -> list[float]:
    """The step per token of each level, for the control that moves at every token. reduce: an update takes the "mean" or the "sum" of
    its chunk's gradients."""
    return [lr / c if reduce == "sum" else lr / c**2 for c in periods]


def steps_per_token(lr: float, periods: list[int], reduce: str) -> list[float]:
    """The step per token of each level, for the control that moves at every token. reduce: an update takes the "mean" or the "sum" of
    its chunk's gradients."""
    # BEGIN SOLUTION
    return [lr if reduce == "sum" else lr / c for c in periods]
    # END SOLUTION


def draw_steps(d: Draw) -> tuple:
    return d.float(0.01, 0.5), [1, *(d.int(2, 64) for _ in range(d.int(1, 3)))], d.pick("mean", "sum")


def forgetting(R: Tensor) -> float:
    """Mean over the old tasks of: best accuracy before the last task, minus accuracy at the end.

    R (tasks, tasks): R[i, j] is the accuracy on task j after training on tasks 0 ... i.
    """
    # BEGIN SOLUTION
    best = R[:-1, :-1].max(0).values
    return float((best - R[-1, :-1]).mean())
    # END SOLUTION


def a_after() -> float:
    """The error on A after the end of the context, when the fast level keeps 0.95 per step."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("two_tasks:keep=0.95").facts["a_after"]
    # END SOLUTION


ITEMS = [
    Implement(
        id="F-gap",
        title="Once or often",
        objective="F.1",
        minutes=6,
        difficulty=1,
        prompt="One number, one bowl. Return the weight after `period` small steps minus the weight after one step with the summed gradient.",
        hints=(
            "One step multiplies the weight by 1 - lr a.",
            "The sum of `period` gradients at w = 1 is period * a.",
            "`(1 - lr * a) ** period - (1 - period * lr * a)`.",
        ),
        solution=period_gap,
        draw=lambda d: (d.float(0.2, 2.0), d.float(0.01, 0.3), d.int(2, 6)),
        cases=[Case((1.0, 0.1, 2), "two steps")],
        misconceptions=[
            Misconception(
                "the other way round",
                lambda a, lr, period: -period_gap(a, lr, period),
                "First the weight of the small steps, then minus that of the one big step.",
            ),
            Misconception(
                "mean",
                lambda a, lr, period: (1 - lr * a) ** period - (1 - lr * a),
                "Here the big step takes the mean gradient, so it goes only a share of the way. It takes the sum.",
            ),
            Misconception(
                "second order only",
                lambda a, lr, period: (lr * a) ** 2 * period * (period - 1) / 2,
                "That is the leading term of the gap, a good one for small steps. The exact gap has higher orders too.",
            ),
        ],
    ),
    Implement(
        id="F-border",
        title="The border of the map",
        objective="F.2",
        minutes=5,
        difficulty=2,
        prompt="Return the step at which the run of a level with these keys changes from learning to diverging.",
        hints=(
            "One update multiplies M - M* by 1 - lr * S, with S the sum of k k^T.",
            "Along the largest eigenvalue of S the factor is 1 - lr * lambda_max; it must stay above -1.",
            "`2 / torch.linalg.eigvalsh(keys.T @ keys)[-1]`.",
        ),
        solution=border,
        draw=lambda d: (d.tensor(d.int(2, 6), d.int(2, 4)),),
        properties=[Property("stable below, unstable above", border_grows_unstable)],
        misconceptions=[
            Misconception(
                "one over lambda",
                lambda keys: border(keys) / 2,
                "At 1 / lambda_max the steepest direction is learned in one update. It bears twice that.",
            ),
            Misconception(
                "mean",
                lambda keys: border(keys) * len(keys),
                "That is the border for the *mean* of the chunk's gradients.",
            ),
            Misconception(
                "trace",
                lambda keys: float(2 / keys.square().sum()),
                "That divides by the sum of all eigenvalues; the largest one decides.",
            ),
            Misconception(
                "smallest",
                lambda keys: float(2 / torch.linalg.eigvalsh(keys.T @ keys)[0].clamp_min(1e-9)),
                "The smallest eigenvalue is the most patient direction. The largest one explodes first.",
            ),
        ],
    ),
    FixTheBug(
        id="F-steps",
        title="An unfair control",
        objective="F.1",
        minutes=5,
        difficulty=2,
        prompt="To ask whether the *period* matters, the control must have the same step per token and no period. This one has too small steps.",
        hints=(
            "Write down the update of a level of period C with reduce='mean': lr times the mean of C gradients.",
            "lr * (1/C) * sum = the sum of (lr / C) * each. So each token contributes lr / C times its gradient.",
            "mean: lr / C. sum: lr. The division by C happens once, not twice.",
        ),
        solution=steps_per_token,
        broken=divided_twice,
        draw=draw_steps,
        misconceptions=[
            Misconception(
                "still divided twice",
                divided_twice,
                "'It takes the mean, *and* it moves only once in C': that counts the same division twice.",
            ),
            Misconception(
                "always lr",
                lambda lr, periods, reduce: [lr for _ in periods],
                "With the mean, a token of a slow level contributes lr / C.",
            ),
            Misconception(
                "swapped",
                lambda lr, periods, reduce: [lr if reduce == "mean" else lr / c for c in periods],
                "Mean and sum are swapped.",
            ),
            Misconception(
                "always lr / C",
                lambda lr, periods, reduce: [lr / c for c in periods],
                "With the sum, each token's gradient is applied in full: late, but in full. That is why the CMS with sums forgets like one MLP.",
            ),
        ],
    ),
    Implement(
        id="F-forgetting",
        title="How the field measures forgetting",
        objective="F.3",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Return the average forgetting from the matrix of accuracies.",
        hints=(
            "The last task cannot be forgotten yet: leave its column out.",
            "For each old task: the best of its column *before* the last row, minus the last row.",
            "`(R[:-1, :-1].max(0).values - R[-1, :-1]).mean()`.",
        ),
        solution=forgetting,
        draw=lambda d: (torch.sigmoid(d.tensor(n := d.int(2, 5), n)),),
        misconceptions=[
            Misconception(
                "from the diagonal",
                lambda R: float((R.diagonal()[:-1] - R[-1, :-1]).mean()),
                "That is minus the backward transfer: it compares with the accuracy right after learning, not with the best one.",
            ),
            Misconception(
                "all tasks",
                lambda R: float((R.max(0).values - R[-1]).mean()),
                "The last task is not old, and the last row is not *before* the end.",
            ),
            Misconception("gain", lambda R: -forgetting(R), "Forgetting counts what was lost: the best minus the end."),
            Misconception(
                "accuracy at the end",
                lambda R: float(R[-1].mean()),
                "That is the average accuracy, the other number of the table.",
            ),
        ],
    ),
    ReadPicture(
        id="F-picture",
        title="A more forgetful fast level",
        objective="F.2",
        minutes=3,
        difficulty=1,
        within=0.05,
        view="two_tasks:keep=0.95",
        prompt="In the picture of two tasks let the fast level keep 0.95 per step. What is the error on A after it was emptied?",
        hints=(
            "Move the second slider, or load the state string above.",
            "Read the dark dot at the right end.",
            "Its label begins with *on A*.",
        ),
        solution=a_after,
        wrong={
            0.7: "That is the error on A *before* the fast level was emptied. Read the point after it.",
            0.99: "That is the error on B after the reset; the question is about A.",
        },
    ),
]
