"""The exam: twenty items, made from a seed. Numbers, choices and functions, each tied to an objective.

An item here is an exercise like those of the chapters (so it is judged in the same way), but it stands in no chapter. The
questions are public with this repository; what a seed keeps private is which numbers, options and cases a class gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nlbook.book.check.define import Draw, Estimate, Exercise, Implement
from nlbook.book.check.judge import judge
from nlbook.book.check.verdict import UNTRIED, Verdict, untouched

HINTS = ("There are no hints in an exam.",) * 3


@dataclass(frozen=True, kw_only=True)
class Choice(Exercise):
    """A question with lettered options; the answer is a letter."""

    kind = "choice"
    options: tuple[str, ...]
    right: str
    why: str

    def letter(self) -> str:
        return "abcdefgh"[self.options.index(self.right)]

    def solution_source(self, *, body_only: bool = False) -> str:
        return f"answer = {self.letter()!r}\n"

    def asked(self) -> str:
        """The question with its options, in Markdown."""
        return self.prompt + "\n\n" + "\n".join(f"- **{x})** {o}" for x, o in zip("abcdefgh", self.options))


def judge_choice(item: Choice, answer: Any) -> Verdict:
    """Right or not; the feedback does not give the right letter away."""
    if untouched(answer):
        return UNTRIED
    if type(answer) is not str or answer.strip().lower() not in list("abcdefgh"[: len(item.options)]):
        return Verdict("failed", "choice", f"The answer is one letter from a to {'abcdefgh'[len(item.options) - 1]}.")
    if answer.strip().lower() == item.letter():
        return Verdict("passed", message=f"Right: {item.why}")
    return Verdict("failed", "choice", "Not the right choice.")


@judge.register
def _(item: Choice, answer: Any, score: int | None = None) -> Verdict:
    return judge_choice(item, answer)


@dataclass(frozen=True)
class Made:
    """One instance of an item: what `make` hands back."""

    prompt: str
    answer: Any
    wrong: tuple[Any, ...] = ()
    why: str = ""
    unit: str = ""
    within: float = 0.03


@dataclass(frozen=True)
class Entry:
    """One item of the exam before a seed is chosen."""

    title: str
    objective: str
    points: int
    make: Callable[[Draw], Made | str]


ENTRIES: list[Entry] = []
MINUTES = {1: 3, 2: 5, 3: 8}


def entry(title: str, objective: str, points: int) -> Callable[[Callable[[Draw], Any]], Callable[[Draw], Any]]:
    """Register an item; they are asked in this order."""

    def register(make: Callable[[Draw], Any]) -> Callable[[Draw], Any]:
        ENTRIES.append(Entry(title, objective, points, make))
        return make

    return register


def number(seed: int, position: int) -> Draw:
    from nlbook_tools.course.variants import number_of

    return Draw(number_of(seed, f"exam-{position:02d}"))


def items(seed: int) -> list[Exercise]:
    """The twenty items of a seed, with the ids exam-01 to exam-20."""
    return [_item(seed, position, e) for position, e in enumerate(ENTRIES, 1)]


def _item(seed: int, position: int, e: Entry) -> Exercise:
    d = number(seed, position)
    made = e.make(d)
    common: dict[str, Any] = {
        "id": f"exam-{position:02d}",
        "title": e.title,
        "objective": e.objective,
        "points": e.points,
        "minutes": MINUTES[e.points],
        "difficulty": min(3, e.points),
        "hints": HINTS,
    }
    if isinstance(made, str):  # a function: the name of an exercise written below
        return replace(FUNCTIONS[made], **common, first_seed=d.seed)
    if made.wrong:
        options = [made.answer, *made.wrong]
        d._random.shuffle(options)
        return Choice(
            **common, prompt=made.prompt, options=tuple(map(str, options)), right=str(made.answer), why=made.why
        )
    return Estimate(
        **common, prompt=made.prompt, solution=lambda: float(made.answer), unit=made.unit, within=made.within
    )


# -- chapter 01


@entry("Two pairs by hand", "01.1", 2)
def _(d: Draw) -> Made:
    overlap, a, b = d.pick(0.2, 0.4, 0.6, 0.8), d.int(2, 9), d.int(2, 9)
    return Made(
        f"A Hebbian memory (rate 1, empty at first) holds two pairs. The keys have length 1 and overlap {overlap}; the values are the "
        f"numbers {a} and {b}. What does it return for the first key?",
        round(a + overlap * b, 6),
        why="v1 + overlap * v2",
        within=0.005,
    )


@entry("Which objective?", "01.2", 1)
def _(d: Draw) -> Made:
    return Made(
        "The step M ← M + η (v − Mk) kᵀ is one step of gradient descent on",
        "½ |Mk − v|²",
        ("−⟨Mk, v⟩", "½ |M|²", "½ |Mk|² + ⟨Mk, v⟩"),
        "its gradient in M is (Mk − v) kᵀ",
    )


@entry("A key written twice", "01.2", 1)
def _(d: Draw) -> Made:
    old, new = d.int(1, 9), d.int(10, 20)
    return Made(
        f"Under one key of length 1 the value {old} is written, then the value {new}, at rate 1. What does the delta rule return?",
        new,
        (old + new, old, (old + new) / 2),
        "it writes the difference to what the key returns",
    )


@entry("Half a delta step", "01.1", 2)
def _(d: Draw) -> Made:
    eta, old, new = d.pick(0.1, 0.25, 0.5), d.int(2, 6), d.int(8, 20)
    return Made(
        f"A memory returns {old} for a key of length 1. One delta write of the value {new} under that key follows, at rate {eta}. What "
        "is returned now?",
        old + eta * (new - old),
        why="old + eta (new - old)",
        within=0.005,
    )


# -- chapter 02


@entry("From the list of surprises", "02.1", 2)
def _(d: Draw) -> Made:
    lr, overlaps, surprises = (
        d.pick(0.1, 0.5),
        [d.pick(0.5, 1.0, -0.5) for _ in range(3)],
        [d.int(-4, 4) or 1 for _ in range(3)],
    )
    answer = -lr * sum(o * s for o, s in zip(overlaps, surprises))
    if abs(answer) < 1e-9:
        overlaps[0], answer = overlaps[0] + 1, answer - lr * surprises[0]
    return Made(
        f"A layer with one output starts at zero and is trained by three steps of SGD at rate {lr}. The inner products of the query with "
        f"the three inputs are {overlaps}, the surprises (gradients at the output) were {surprises}. What does the layer answer?",
        answer,
        why="minus the rate times the sum of overlap times surprise",
        within=0.005,
    )


@entry("Backprop is not linear attention", "02.3", 1)
def _(d: Draw) -> Made:
    return Made(
        "Training a layer writes (input, surprise) pairs. Why is that not plain linear attention?",
        "The surprises depend on the weight that they are written to",
        ("The inputs are not normalised", "The rate is smaller than one", "Attention has a softmax"),
        "a value in linear attention is given; a surprise is made by the memory itself",
    )


# -- chapter 03


@entry("A horizon", "03.2", 2)
def _(d: Draw) -> Made:
    beta, share = d.pick(0.8, 0.9, 0.95, 0.99), d.pick(0.5, 0.9, 0.99)
    return Made(
        f"A moving average keeps {beta} per step. How many of the latest gradients make up at least {share:.0%} of it?",
        math.ceil(math.log(1 - share) / math.log(beta) - 1e-9),
        why="the smallest n with 1 - beta^n at least the share",
        unit="gradients",
        within=0.02,
    )


@entry("Momentum's place", "03.1", 1)
def _(d: Draw) -> Made:
    return Made(
        "Weights W are trained with momentum m; both are written once per step. Which of the two is the faster level (Definition 2)?",
        "m: the new W needs this step's m",
        ("W: it is written last", "neither: equal counts are the same level", "W: it is the larger one"),
        "of two parts written equally often, the one that the other waits for is faster",
    )


@entry("Newton-Schulz", "03.4", 2)
def _(d: Draw) -> Made:
    s = d.pick(0.3, 0.4, 0.5, 0.6, 0.8)
    return Made(
        f"One step of the cubic Newton-Schulz iteration, O ← 3/2 O − 1/2 O Oᵀ O, meets a singular value of {s}. What is it afterwards?",
        1.5 * s - 0.5 * s**3,
        why="3/2 s - 1/2 s^3",
        within=0.005,
    )


# -- chapter 04


@entry("Two temperatures", "04.1", 1)
def _(d: Draw) -> Made:
    return Made(
        "The temperature of softmax attention goes to zero. The answer goes to",
        "the value of the key with the largest score",
        ("the mean of all values", "zero", "the value of the latest key"),
        "all weight falls on the largest score",
    )


@entry("Softmax as least squares", "04.1", 2)
def _(d: Draw) -> Made:
    w, v = [d.int(1, 5) for _ in range(3)], [d.int(-5, 9) for _ in range(3)]
    answer = sum(a * b for a, b in zip(w, v)) / sum(w)
    if abs(answer) < 0.1:
        v[0], answer = v[0] + 2, answer + 2 * w[0] / sum(w)
    return Made(
        f"Which number m minimises the sum of w_i (v_i − m)² for the weights {w} and the values {v}?",
        answer,
        why="the weighted mean",
        within=0.01,
    )


@entry("A cache and a matrix", "04.4", 2)
def _(d: Draw) -> Made:
    heads, width, tokens = d.pick(4, 8, 16), d.pick(64, 128), d.pick(4096, 16384, 32768)
    return Made(
        f"One layer, {heads} heads of width {width}, a context of {tokens} tokens. How many times more numbers does the key-value cache hold "
        f"than one {width} × {width} matrix for each head?",
        2 * tokens / width,
        why="2 T d against d^2 in each head: 2 T / d",
        unit="times",
    )


# -- chapter 05


@entry("Writes of a stack", "05.1", 2)
def _(d: Draw) -> Made:
    periods, tokens = d.pick((1, 16, 256), (8, 64, 512), (10, 100, 1000)), d.pick(1500, 2500, 3300)
    return Made(
        f"Levels of periods {periods[0]}, {periods[1]} and {periods[2]} read {tokens} tokens; an unfinished chunk is not written. How many "
        "writes do they make together?",
        sum(tokens // c for c in periods),
        why="the sum of floor(T / C)",
        unit="writes",
        within=0.004,
    )


@entry("Shorter than a chunk", "07.3", 1)
def _(d: Draw) -> Made:
    period = d.pick(32, 64, 128)
    return Made(
        f"A level of period {period} gets prompts of {period // 2} tokens and drops partial chunks; its clock starts anew with each prompt. "
        "What does it learn in a hundred prompts?",
        "nothing",
        ("half as much", "as much, but later", "the last prompt only"),
        "no chunk is ever full",
    )


# -- chapter 06


@entry("Three things called initialisation", "06.1", 1)
def _(d: Draw) -> Made:
    return Made(
        "A fast memory starts every context at a learned state. When a context ends, what is kept for the next one?",
        "the learned start and the outer weights; the state is set back",
        ("the state, as it is", "nothing", "the state, averaged with the start"),
        "the state belongs to its context",
    )


@entry("What a start is worth", "06.2", 2)
def _(d: Draw) -> Made:
    width, share = d.pick(10, 20, 40, 50), d.pick(0.1, 0.2, 0.4)
    return Made(
        f"Random keys of width {width}, full delta steps from zero: each write leaves the share 1 − 1/d of the squared error. After how many "
        f"writes is it down to {share}?",
        math.log(share) / math.log(1 - 1 / width),
        why="ln(share) / ln(1 - 1/d)",
        unit="writes",
    )


# -- chapters 07, 08


@entry("Moved per token", "07.2", 2)
def _(d: Draw) -> Made:
    size, periods = d.pick(1000, 2000, 6000), d.pick((1, 10, 100), (2, 20, 200), (5, 50, 500))
    return Made(
        f"Three levels of {size} parameters each have the periods {periods[0]}, {periods[1]} and {periods[2]}. How many parameters are moved "
        "per token, on average?",
        sum(size / c for c in periods),
        why="the sum of size / period",
        unit="parameters",
        within=0.005,
    )


@entry("How the field measures forgetting", "08.3", 2)
def _(d: Draw) -> Made:
    best, end = [d.int(80, 99) for _ in range(2)], [d.int(40, 75) for _ in range(2)]
    return Made(
        f"Accuracies in per cent. The best ever before the last task: {best[0]} on task A, {best[1]} on task B. At the end: {end[0]} and {end[1]}. "
        "What is the forgetting of the field's definition, in points?",
        sum(b - e for b, e in zip(best, end)) / 2,
        why="the mean of best minus end",
        within=0.005,
    )


@entry("Write the memory", "01.1", 3)
def _(d: Draw) -> str:
    return d.pick("decayed delta", "decayed hebb")


@entry("Write the level", "07.1", 3)
def _(d: Draw) -> str:
    return d.pick("chunk mean", "chunk sum")


def decayed_delta(M, k, v, eta, keep):
    """One write of the gated delta rule: first M (d_v, d_k) shrinks to keep M, then a delta write of key k (d_k,), value v (d_v,), rate eta."""
    # BEGIN SOLUTION
    M = keep * M
    return M + eta * (v - M @ k)[:, None] * k
    # END SOLUTION


def decayed_hebb(M, k, v, eta, keep):
    """One Hebbian write with retention: M (d_v, d_k) shrinks to keep M, then the pair key k (d_k,), value v (d_v,) is added at rate eta."""
    # BEGIN SOLUTION
    return keep * M + eta * v[:, None] * k
    # END SOLUTION


def chunk_mean(w, grads, lr, period):
    """The weight w (n,) after the gradients grads (T, n): after every full chunk of `period`, minus lr times the chunk's mean gradient."""
    # BEGIN SOLUTION
    full = len(grads) // period * period
    return w - lr * grads[:full].sum(0) / period
    # END SOLUTION


def chunk_sum(w, grads, lr, period):
    """The weight w (n,) after the gradients grads (T, n): after every full chunk of `period`, minus lr times the chunk's summed gradient."""
    # BEGIN SOLUTION
    full = len(grads) // period * period
    return w - lr * grads[:full].sum(0)
    # END SOLUTION


def _write(d: Draw) -> tuple[Any, ...]:
    d_v, d_k = d.int(2, 4), d.int(2, 5)
    return d.tensor(d_v, d_k), d.tensor(d_k), d.tensor(d_v), d.float(0.1, 0.9), d.float(0.5, 0.99)


def _stream(d: Draw) -> tuple[Any, ...]:
    return d.tensor(n := d.int(1, 4)), d.tensor(d.int(3, 14), n), d.float(0.1, 0.9), d.int(1, 5)


def _function(solution: Callable[..., Any], draw: Callable[[Draw], tuple[Any, ...]], prompt: str) -> Implement:
    return Implement(
        id="00-exam",
        title="-",
        prompt=prompt,
        minutes=8,
        difficulty=3,
        objective="00.1",
        hints=HINTS,
        solution=solution,
        draw=draw,
    )


FUNCTIONS = {
    "decayed delta": _function(decayed_delta, _write, "Write the function below. The memory reads as `M @ k`."),
    "decayed hebb": _function(decayed_hebb, _write, "Write the function below. The memory reads as `M @ k`."),
    "chunk mean": _function(chunk_mean, _stream, "Write the function below. An unfinished chunk is not written."),
    "chunk sum": _function(chunk_sum, _stream, "Write the function below. An unfinished chunk is not written."),
}
