"""The exam: twenty items, drawn from a seed (exam.yaml). Numbers, choices and functions, each tied to an objective.

An item here is an exercise like those of the chapters (so it is judged in the same way), but it stands in no chapter.
The questions are public with this repository; what a seed keeps private is which numbers, options and cases a class
gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nlbook.book.check.define import Draw, Estimate, Exercise, Implement
from nlbook.book.check.judge import judge
from nlbook.book.check.verdict import UNTRIED, Verdict, untouched
from nlbook_tools.course.questions import Drawn, number_of, read

HINTS = ("There are no hints in an exam.",) * 3
MINUTES = {1: 3, 2: 5, 3: 8}


@dataclass(frozen=True, kw_only=True)
class Choice(Exercise):
    """A question with lettered options; the answer is a letter."""

    kind = "choice"
    options: tuple[str, ...]
    right: str
    why: str

    def letter(self) -> str:
        return "abcdefgh"[self.options.index(self.right)]

    def solution_source(self) -> str:
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


def entries() -> list[dict[str, Any]]:
    """The items before a seed is chosen."""
    return read("exam.yaml")


def items(seed: int) -> list[Exercise]:
    """The twenty items of a seed, with the ids exam-01 to exam-20."""
    return [_item(f"exam-{n:02d}", entry, seed) for n, entry in enumerate(entries(), 1)]


def _item(id: str, entry: dict[str, Any], seed: int) -> Exercise:
    d, points = Draw(number_of(seed, id)), entry["points"]
    drawn = Drawn(entry, d)
    common: dict[str, Any] = {
        "id": id,
        "title": entry["title"],
        "objective": entry["objective"],
        "points": points,
        "minutes": MINUTES[points],
        "difficulty": min(3, points),
        "hints": HINTS,
    }
    if "function" in entry:
        return replace(FUNCTIONS[drawn.value(entry["function"])], **common, first_seed=d.seed)
    common["prompt"] = drawn.text(entry["ask"])
    if "wrong" in entry:
        right, *_ = options = [drawn.text(words) for words in (entry["right"], *entry["wrong"])]
        d._random.shuffle(options)
        return Choice(**common, options=tuple(options), right=right, why=entry["why"])
    answer = float(drawn.value(entry["answer"]))
    return Estimate(**common, solution=lambda: answer, unit=entry.get("unit", ""), within=entry.get("within", 0.03))


def decayed_delta(M, k, v, eta, keep):
    """One write of the gated delta rule: first M (d_v, d_k) shrinks to keep M, then a delta write of key k (d_k,),
    value v (d_v,), rate eta."""
    # BEGIN SOLUTION
    M = keep * M
    return M + eta * (v - M @ k)[:, None] * k
    # END SOLUTION


def decayed_hebb(M, k, v, eta, keep):
    """One Hebbian write with retention: M (d_v, d_k) shrinks to keep M, then the pair key k (d_k,), value v (d_v,) is
    added at rate eta."""
    # BEGIN SOLUTION
    return keep * M + eta * v[:, None] * k
    # END SOLUTION


def chunk_mean(w, grads, lr, period):
    """The weight w (n,) after the gradients grads (T, n): after every full chunk of `period`, minus lr times the
    chunk's mean gradient."""
    # BEGIN SOLUTION
    full = len(grads) // period * period
    return w - lr * grads[:full].sum(0) / period
    # END SOLUTION


def chunk_sum(w, grads, lr, period):
    """The weight w (n,) after the gradients grads (T, n): after every full chunk of `period`, minus lr times the
    chunk's summed gradient."""
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
        prompt=f"Write the function below. {prompt}",
        minutes=8,
        difficulty=3,
        objective="00.1",
        hints=HINTS,
        solution=solution,
        draw=draw,
    )


FUNCTIONS = {
    "decayed_delta": _function(decayed_delta, _write, "The memory reads as `M @ k`."),
    "decayed_hebb": _function(decayed_hebb, _write, "The memory reads as `M @ k`."),
    "chunk_mean": _function(chunk_mean, _stream, "An unfinished chunk is not written."),
    "chunk_sum": _function(chunk_sum, _stream, "An unfinished chunk is not written."),
}
