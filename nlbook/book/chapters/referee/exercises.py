"""Chapter 08, What it is good for: a rule, a fair search, a race of one's own, a plan, and how many seeds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlbook.book.check.define import *


def verdict(ours: list[float], rival: list[float]) -> str:
    """ "better", "level" or "worse": losses of two methods, one number a seed; lower is better.

    The means must differ by more than two standard errors of the difference, sqrt(sd^2/n + sd'^2/n'), with n - 1 in sd^2.
    """
    # BEGIN SOLUTION
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (ours, rival))
    gap = float(a.mean() - b.mean())
    error = float(a.var() / len(a) + b.var() / len(b)) ** 0.5
    return "level" if abs(gap) <= 2 * error else "better" if gap < 0 else "worse"
    # END SOLUTION


def by_error(ours: list[float], rival: list[float], times: float, unbiased: bool = True, divide: bool = True) -> str:
    """The rule with one thing changed."""
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (ours, rival))
    gap = float(a.mean() - b.mean())
    n, m = (len(a), len(b)) if divide else (1, 1)
    error = math.sqrt(float(a.var(correction=int(unbiased)) / n + b.var(correction=int(unbiased)) / m))
    return "level" if abs(gap) <= times * error else "better" if gap < 0 else "worse"


def draw_verdict(d: Draw) -> tuple:
    n, m, gap = d.int(2, 6), d.int(2, 6), d.float(-3, 3)
    return (d.tensor(n) + gap).tolist(), d.tensor(m).tolist()


def swapping_swaps(answer, d: Draw) -> str | None:
    other = {"better": "worse", "worse": "better", "level": "level"}
    for _ in range(5):
        a, b = draw_verdict(d)
        if answer(b, a) != other.get(answer(a, b)):
            return f"with the two methods exchanged it says {answer(b, a)!r}, having said {answer(a, b)!r}."
    return None


def chosen_on_the_test(valid: Tensor, test: Tensor) -> Tensor:
    """The test losses (seeds,) that a method may report: at the rate that its validation losses choose.

    valid, test (rates, seeds): losses at every rate and seed; the lowest mean over seeds is the best.
    """
    return test[test.mean(1).argmin()]


def reported(valid: Tensor, test: Tensor) -> Tensor:
    """The test losses (seeds,) that a method may report: at the rate that its validation losses choose.

    valid, test (rates, seeds): losses at every rate and seed; the lowest mean over seeds is the best.
    """
    # BEGIN SOLUTION
    return test[valid.mean(1).argmin()]
    # END SOLUTION


def settle(ours_valid: Tensor, ours_test: Tensor, rival_valid: Tensor, rival_test: Tensor) -> str:
    """ "better", "level" or "worse": what a fair comparison says of ours.

    Each table is (settings, seeds) of losses. Each method chooses its setting by its own validation losses (lowest mean)
    and is judged by its test losses there, with the rule of two standard errors.
    """
    # BEGIN SOLUTION
    ours, rival = ours_test[ours_valid.mean(1).argmin()], rival_test[rival_valid.mean(1).argmin()]
    gap = ours.mean() - rival.mean()
    error = (ours.var() / len(ours) + rival.var() / len(rival)).sqrt()
    return "level" if gap.abs() <= 2 * error else "better" if gap < 0 else "worse"
    # END SOLUTION


def settled_by(ours: Tensor, rival: Tensor) -> str:
    return by_error(ours.tolist(), rival.tolist(), 2.0)


def draw_tables(d: Draw) -> tuple:
    """Two methods with unlike numbers of settings and seeds; validation and test disagree about the best setting."""
    n, m, s, r = d.int(3, 5), d.int(2, 4), d.int(3, 5), d.int(3, 5)
    own, other = 3 * d.tensor(n, 1), 3 * d.tensor(m, 1)
    return d.tensor(n, 3), d.tensor(n, s) + own, d.tensor(m, 2), d.tensor(m, r) + other


def seeds_for_a_small_gap() -> float:
    """Seeds of each method until a true gap of 0.02 is two standard errors, if single runs scatter by 0.03."""
    # BEGIN SOLUTION
    gap, sd = 0.02, 0.03
    return 2 * (2 * sd / gap) ** 2  # 2 standard errors of a difference: 2 sd sqrt(2 / n) = gap
    # END SOLUTION


STEPS = (
    "write the verdict's words from the numbers, by the rule",
    "run every method on the test seeds",
    "choose each method's setting on the tuning seeds",
    "write the rule with its thresholds, and commit it",
    "choose the baseline, the control and the metric",
    "say in one sentence what the claim predicts",
)

ITEMS = [
    Implement(
        id="08-verdict",
        title="A rule, before the run",
        objective="08.2",
        minutes=7,
        difficulty=2,
        points=2,
        prompt="Write the ledger's rule: from the losses over seeds of two methods to one of three words.",
        hints=(
            "Two means, two variances; the variances come divided by the number of seeds.",
            "The standard error of the difference is sqrt(var_a / n_a + var_b / n_b), with torch's var (n - 1).",
            "`'level' if abs(gap) <= 2 * error else 'better' if gap < 0 else 'worse'`.",
        ),
        solution=verdict,
        draw=draw_verdict,
        properties=[Property("exchanging the methods exchanges the words", swapping_swaps)],
        misconceptions=[
            Misconception(
                "mean alone",
                lambda a, b: "better" if sum(a) / len(a) < sum(b) / len(b) else "worse",
                "It never says 'level': the smaller mean always wins, and half of all equal pairs are 'better'.",
            ),
            Misconception(
                "higher is better",
                lambda a, b: by_error(b, a, 2.0),
                "These are losses: the lower mean is the better one.",
            ),
            Misconception(
                "one standard error",
                lambda a, b: by_error(a, b, 1.0),
                "One standard error is crossed by chance in a third of all equal pairs. Take two.",
            ),
            Misconception(
                "standard deviation",
                lambda a, b: by_error(a, b, 2.0, divide=False),
                "That is the scatter of single runs. A mean of n runs scatters less: divide each variance by its n.",
            ),
            Misconception(
                "n in the variance",
                lambda a, b: by_error(a, b, 2.0, unbiased=False),
                "With n in the denominator few seeds look surer than they are. Use n - 1 (torch's default).",
            ),
        ],
    ),
    FixTheBug(
        id="08-search",
        title="A search that looks at the answer",
        objective="08.2",
        minutes=4,
        difficulty=1,
        prompt="This method reports its best test loss over all rates. Mend it: the rate must be chosen by what may be seen.",
        hints=(
            "Which of the two tables may be looked at before the report?",
            "Choose by the validation losses, report the test losses.",
            "`test[valid.mean(1).argmin()]`.",
        ),
        solution=reported,
        broken=chosen_on_the_test,
        draw=lambda d: (d.tensor(n := d.int(3, 6), s := d.int(2, 4)), d.tensor(n, s)),
        misconceptions=[
            Misconception(
                "still by the test",
                chosen_on_the_test,
                "The smallest of many noisy test numbers is small by luck: choosing by the test reports the luck.",
            ),
            Misconception(
                "reports validation",
                lambda valid, test: valid[valid.mean(1).argmin()],
                "Now it reports the numbers that it was chosen by. They are too good for the same reason.",
            ),
            Misconception(
                "a rate a seed",
                lambda valid, test: test[valid.argmin(0)[: test.shape[1]], torch.arange(test.shape[1])],
                "Every seed chooses a rate of its own here. One setting is reported: the one with the lowest mean.",
            ),
            Misconception(
                "best of each seed",
                lambda valid, test: test.min(0).values,
                "Each seed picks its own best rate on the test: that is the same look at the answer, once per seed.",
            ),
            Misconception(
                "worst rate",
                lambda valid, test: test[valid.mean(1).argmax()],
                "These are losses: the best is the smallest.",
            ),
            Misconception(
                "best single run",
                lambda valid, test: test[valid.min(1).values.argmin()],
                "One lucky run decides. The docstring says: the lowest mean over seeds.",
            ),
        ],
    ),
    Implement(
        id="08-settle",
        title="A fair comparison, whole",
        objective="08.3",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Put the rule and the fair search together.",
        hints=(
            "First each method chooses a row; only then are two lists of test losses compared.",
            "`ours_test[ours_valid.mean(1).argmin()]`, and the same for the rival, with the rival's own tables.",
            "`verdict(reported(ours_valid, ours_test).tolist(), reported(rival_valid, rival_test).tolist())`.",
        ),
        solution=settle,
        draw=draw_tables,
        misconceptions=[
            Misconception(
                "chosen on the test",
                lambda a, b, c, d: settled_by(b[b.mean(1).argmin()], d[d.mean(1).argmin()]),
                "Each method picks its best row of the *test* table here. The rows are chosen by validation.",
            ),
            Misconception(
                "ours chosen on the test",
                lambda a, b, c, d: settled_by(b[b.mean(1).argmin()], d[c.mean(1).argmin()]),
                "Ours picks its row by the test losses, and the rival may not. Both choose by validation.",
            ),
            Misconception(
                "judged by validation",
                lambda a, b, c, d: settled_by(a[a.mean(1).argmin()], c[c.mean(1).argmin()]),
                "The losses that chose are the losses that are judged: they are too good. Judge the test losses.",
            ),
            Misconception(
                "the rival is not tuned",
                lambda a, b, c, d: settled_by(b[a.mean(1).argmin()], d[0]),
                "The rival reports its first setting, whatever its validation says. It has a search of its own.",
            ),
            Misconception(
                "the rival at the worst",
                lambda a, b, c, d: settled_by(b[a.mean(1).argmin()], d[c.mean(1).argmax()]),
                "The rival reports its worst setting. The lowest validation loss chooses, for both.",
            ),
            Misconception(
                "turned round",
                lambda a, b, c, d: settled_by(d[c.mean(1).argmin()], b[a.mean(1).argmin()]),
                "The words are about ours: when ours has the lower loss, it is 'better'.",
            ),
        ],
    ),
    Order(
        id="08-order",
        title="Before and after the run",
        objective="08.4",
        minutes=3,
        difficulty=1,
        prompt="Put the steps of a test in an order that a referee accepts.",
        hints=(
            "What must be fixed before any number is seen?",
            "The rule needs the metric and the baseline; tuning must not touch the test seeds.",
            "Prediction, baseline, rule, tuning, test, verdict.",
        ),
        steps=STEPS,
        before=(
            (
                STEPS[5],
                STEPS[4],
                "A baseline and a metric are chosen for a prediction; without one, anything can be measured.",
            ),
            (STEPS[4], STEPS[3], "The rule speaks of a metric, a baseline and a control; they come first."),
            (STEPS[3], STEPS[2], "A rule that is written after tuning can be fitted to what was seen."),
            (STEPS[2], STEPS[1], "The test seeds are used once, with settings that are fixed."),
            (STEPS[1], STEPS[0], "The verdict follows from the numbers."),
        ),
    ),
    Estimate(
        id="08-seeds",
        title="How many seeds?",
        objective="08.4",
        minutes=5,
        difficulty=2,
        unit="seeds",
        within=0.06,
        prompt="Single runs scatter by 0.03. You believe in a true gap of 0.02. How many seeds of each method make that gap equal to two standard errors of the difference?",
        hints=(
            "The standard error of one mean of n runs is sd / sqrt(n).",
            "Of a difference of two such means it is sd sqrt(2 / n).",
            "2 * 0.03 * sqrt(2 / n) = 0.02, solved for n.",
        ),
        solution=seeds_for_a_small_gap,
        wrong={
            9.0: "That is for one mean against a fixed number. Here two means scatter: twice as many.",
            4.5: "That is one standard error. The rule asks for two: four times as many seeds.",
            36.0: "That is both methods together; the question is for each.",
            3.0: "With three seeds two standard errors are 0.049: the gap is far inside.",
        },
    ),
]
