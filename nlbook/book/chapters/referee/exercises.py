"""Chapter C, Read like a referee: a rule, a fair search, two slips, M3 once more, a plan, and how many seeds."""

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
        id="C-verdict",
        title="A rule, before the run",
        objective="C.2",
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
        id="C-search",
        title="A search that looks at the answer",
        objective="C.2",
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
        objective="C.3",
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
    Order(
        id="C-order",
        title="Before and after the run",
        objective="C.4",
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
        id="C-seeds",
        title="How many seeds?",
        objective="C.4",
        minutes=5,
        difficulty=2,
        unit="seeds",
        within=0.06,
        prompt="Single runs scatter by 0.03. You believe in a true gap of 0.02. From how many seeds of each method is that gap two standard errors of the difference?",
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
