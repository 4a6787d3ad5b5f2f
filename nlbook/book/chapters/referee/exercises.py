"""Chapter 12, Read like a referee: a rule, a fair search, two slips, M3 once more, a plan, and how many seeds."""

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
    Prediction(
        id="12-p1",
        objective="12.2",
        options=(
            wrong("level", "It would be, after an equal search."),
            right(
                "better",
                "Seven tries against one: that is the whole difference. Ask of every table how its baseline was tuned.",
            ),
            wrong("worse", "The side that tries more finds the better rate."),
        ),
        question="AdamW against AdamW: the same method under two names. One side tries seven learning rates, the other one. Most referees say of the first ...",
    ),
    Prediction(
        id="12-p2",
        objective="12.1",
        unit="equations",
        low=0,
        high=121,
        question="Of the paper's 121 numbered equations, how many do not hold as printed?",
        why="Most are one sign, one index or one factor. `nlbook paper --errata` lists each with the test that shows it.",
        within=0.25,
    ),
    Prediction(
        id="12-p3",
        objective="12.4",
        unit="%",
        low=0,
        high=100,
        question="Three seeds each, two methods that do not differ at all. How often does a rule of two standard errors say that they do?",
        why="More than twice the 5 % that one thinks of: three seeds say little about the spread itself.",
        within=0.2,
    ),
    Implement(
        id="12-verdict",
        title="A rule, before the run",
        objective="12.2",
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
        id="12-search",
        title="A search that looks at the answer",
        objective="12.2",
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
        id="12-slip",
        title="Find the slip: Oja's rule",
        objective="12.1",
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
        id="12-m3",
        title="M3, derived once more",
        objective="12.3",
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
        id="12-order",
        title="Before and after the run",
        objective="12.4",
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
        id="12-seeds",
        title="How many seeds?",
        objective="12.4",
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
    Question(
        id="12-q1",
        objective="12.1",
        text="The caption of Table 6 says that every component of Hope contributes positively. Which printed number speaks against it?",
        options=(
            right(
                "w/o inner-projection q: 12.19 perplexity",
                "Without it perplexity is a little *better* than 12.24. A small thing, but 'all' is a strong word.",
            ),
            wrong(
                "w/o CMS: 13.04 perplexity",
                "Without CMS perplexity is worse (12.24 with it): that supports the caption.",
            ),
            wrong("w/o DGD: 56.5 accuracy", "Lower than 58.1: that supports the caption."),
            wrong("w/o inner-projection v: 13.90", "The largest loss of all."),
        ),
    ),
    Question(
        id="12-q2",
        objective="12.2",
        text="A paper compares its method, tuned, with a baseline's number from an older paper. What can you conclude if it is ahead?",
        options=(
            wrong("The method is better", "Perhaps; but the search alone can do that, as the bars showed."),
            wrong("The baseline was wrong", "It may have been right, in its own setting."),
            wrong(
                "Nothing can ever be concluded from numbers of others",
                "A large enough gap, or many seeds and settings, can still be convincing.",
            ),
            right(
                "That method plus this search beats that baseline plus that search",
                "The two cannot be told apart without an equal search.",
            ),
        ),
    ),
    Question(
        id="12-q3",
        objective="12.3",
        text="In a run you planned with care, the claim fails. What belongs in the report?",
        options=(
            wrong(
                "Nothing: it only shows that the toy was too small",
                "Then a success of the toy would have shown nothing either. Say the scale in both cases.",
            ),
            right(
                "The rule, the numbers, the control's outcome, and what was not tried",
                "A failure is worth as much as its control: it must show that the set-up could have said yes.",
            ),
            wrong("A new rule under which it passes", "A rule that is written after the numbers decides nothing."),
            wrong("The best seed", "One seed is an anecdote."),
        ),
    ),
    Question(
        id="12-r1",
        objective="12.2",
        text="What must a negative control do?",
        options=(
            wrong("be tuned longer", "Equal budgets hold for it too."),
            wrong("come close to the method", "That is a baseline."),
            wrong("use the same seeds", "It may; that is not its point."),
            right(
                "fail, if the experiment measures what it should",
                "A method compared with itself must come out level; shuffled values must be recalled at chance.",
            ),
        ),
    ),
    Question(
        id="12-r2",
        objective="12.4",
        text="With three seeds and the rule of two standard errors, two equal methods are called different ...",
        options=(
            wrong("never", "Chance crosses every line now and then."),
            wrong("in 5 % of cases", "That holds for many seeds; with three the spread itself is badly known."),
            right(
                "in about one case in nine",
                "Twice as often as the 5 % that one thinks of: a reason to distrust small gaps.",
            ),
            wrong("in half of the cases", "Without any rule, yes."),
        ),
    ),
    Question(
        id="12-r3",
        objective="12.3",
        text="Why do the printed factors of M3 have no effect?",
        options=(
            right(
                "The memories are plain sums, and Newton-Schulz ignores their size",
                "A factor in front of a sum is a scale, and the scale is divided out.",
            ),
            wrong("They are too small", "Any size does nothing."),
            wrong("Adam's denominator removes them", "It stands outside the two memories."),
            wrong("The slow memory is not used", "It is; its factor does nothing."),
        ),
    ),
    Question(
        id="12-r4",
        recalls="08",
        objective="12.2",
        text="Which control separated the period of a CMS from the size of its steps?",
        options=(
            wrong("replay", "A strong baseline; it says nothing about periods."),
            wrong("all periods 64", "That asks whether slowness protects."),
            right("the same steps per block, at every token", "With it the advantage of the CMS was gone."),
            wrong("EWC", "Another method, with another idea."),
        ),
    ),
    Question(
        id="12-r5",
        recalls="02",
        objective="12.1",
        text="Frozen surprises gave another answer than training. What did that refute?",
        options=(
            wrong(
                "that a trained weight is a sum of writes", "That holds exactly; only the writes must be the real ones."
            ),
            right(
                "that backprop is linear attention over gradients",
                "Its values depend on the state: they cannot be computed beforehand.",
            ),
            wrong("that SGD is a rank-one write", "It is, for one sample."),
            wrong("that momentum has levels", "Not the question there."),
        ),
    ),
]
