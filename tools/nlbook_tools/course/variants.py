"""Another instance of an exercise from a seed: a function is judged on other cases, a number is asked with other numbers.

Seed 0 is the exercise as it is printed in the book. Any other seed gives, for functions, drawn cases of their own (the
fixed cases and the laws stay), and for the questions listed in VARIANTS other numbers in the question, hence another
answer. A question that is not listed is the same for every seed (`fixed()` names them).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from nlbook.book.check import registry
from nlbook.book.check.define import Draw, Estimate, Exercise, Implement, ReadPicture


@dataclass(frozen=True)
class Variant:
    """One instance: the question, its answer, and the known wrong answers with what to tell their author."""

    prompt: str
    answer: float
    wrong: dict[float, str] = field(default_factory=dict)
    view: str = ""


VARIANTS: dict[str, Callable[[Draw], Variant]] = {}


def variant(id: str) -> Callable[[Callable[[Draw], Variant]], Callable[[Draw], Variant]]:
    """Register how instances of exercise `id` are made."""

    def register(make: Callable[[Draw], Variant]) -> Callable[[Draw], Variant]:
        VARIANTS[id] = make
        return make

    return register


def number_of(seed: int, id: str) -> int:
    """A seed for one exercise from the seed of the set: exercises do not share their cases."""
    return int.from_bytes(hashlib.sha256(f"nlbook:{seed}:{id}".encode()).digest()[:4], "big")


def private(id: str, seed: int = 0) -> Exercise:
    """The exercise as the set of `seed` asks it; with seed 0 as the book prints it."""
    item = registry.find(id, Exercise)
    if seed == 0:
        return item
    own = number_of(seed, id)
    if isinstance(item, Implement):
        return replace(item, first_seed=own)
    if isinstance(item, Estimate) and id in VARIANTS:
        made = VARIANTS[id](Draw(own))
        changed: dict[str, Any] = {"prompt": made.prompt, "wrong": made.wrong, "solution": lambda: made.answer}
        if isinstance(item, ReadPicture):
            changed["view"] = made.view
        return replace(item, **changed)
    return item


def fixed() -> list[str]:
    """The exercises that end in a number and are the same for every seed."""
    return [e.id for e in registry.items(Estimate) if e.id not in VARIANTS]


def facts(view: str) -> dict[str, float]:
    from nlbook.book import viz

    return dict(viz.find(view.partition(":")[0]).facts(view))


def apart_from(answer: float, wrong: dict[float, str], share: float = 0.12) -> dict[float, str]:
    """The wrong answers that are far enough from the right one to be told apart."""
    return {w: why for w, why in wrong.items() if abs(w - answer) > share * max(abs(answer), 1e-12)}


@variant("01-half-life")
def _(d: Draw) -> Variant:
    width = d.pick(24, 40, 48, 80, 96, 128, 160, 200, 256)
    answer = math.log(0.5) / math.log(1 - 1 / width)
    return Variant(
        f"Width {width}, random keys, full delta steps: after how many further writes is a pair down to one half?",
        answer,
        {
            width
            / 2: "Half the width is the guess of a memory that fades along a straight line; this one fades by a constant factor.",
            width: "After d writes the share is 1/e = 0.37, already below one half.",
            44.01: f"That is width 64; here the width is {width}.",
        },
    )


@variant("02-half")
def _(d: Draw) -> Variant:
    c, said = d.pick(
        (1 / 4, "a quarter of"),
        (1 / 3, "a third of"),
        (2.0, "twice"),
        (3.0, "three times"),
        (4.0, "four times"),
        (5.0, "five times"),
        (7.0, "seven times"),
        (9.0, "nine times"),
    )
    answer = c / (1 + c)
    return Variant(
        f"One sample, and the loss is {said} half the squared error. At which share of the target does what DGD erases cancel "
        "what it writes? (What it erases does not know the loss.)",
        answer,
        apart_from(
            answer,
            {
                1: "That is where plain gradient descent rests. DGD also erases the answer itself, at every step.",
                0.5: "That is the share for half the squared error itself. Here the written surprise has another factor.",
                1 / (1 + c): "The factor stands at what is written, not at what is erased.",
            },
            0.02,
        ),
    )


@variant("02-picture")
def _(d: Draw) -> Variant:
    answer = 0.0
    while abs(answer) < 0.2:  # too close to zero to be read off
        step, angle = d.int(2, 9), 10 * d.int(0, 35)
        view = f"weight:step={step},angle={angle}"
        answer = facts(view)["answer"]
    return Variant(
        f"Open `viz.load({view!r})`. What does the weight answer at the query after these {step} training steps?",
        answer,
        view=view,
    )


@variant("03-picture")
def _(d: Draw) -> Variant:
    beta, share = d.pick(0.8, 0.9, 0.95), d.pick(50, 99)
    view = f"horizon:beta={beta},slow=1,log=1"
    seen = facts(view)
    answer = seen[f"step{share}"]
    return Variant(
        f"Open `viz.load({view!r})`: how many of the latest gradients make {share} % of the step, with the slow momentum?",
        answer,
        apart_from(
            answer,
            {
                seen[f"n{share}"]: "That is the fast momentum alone; look at the curve with the slow one.",
                seen[f"step{149 - share}"]: f"That is the other dot. Look at {share} %.",
            },
        ),
        view,
    )


@variant("04-cache")
def _(d: Draw) -> Variant:
    layers, heads, width, tokens = d.pick(24, 40, 48), d.pick(4, 16), d.pick(64, 96), d.pick(8192, 16384, 65536)
    answer = 2 * width * heads * layers * tokens
    return Variant(
        f"A model has {layers} layers with {heads} key-value heads of width {width}. How many floats does it keep after "
        f"{tokens:,} tokens of one sequence?",
        answer,
        {
            answer // 2: "Keys alone. The values are kept as well.",
            answer // layers: f"That is one layer. All {layers} keep their own.",
            answer // heads: f"That is one head in each layer. There are {heads}.",
            answer // tokens: f"That is one token. There are {tokens:,} of them.",
        },
    )


@variant("05-writes")
def _(d: Draw) -> Variant:
    periods = d.pick((16, 64, 256), (32, 128, 512, 2048), (8, 32, 128, 512), (100, 300, 900))
    tokens = d.pick(3000, 5000, 6000, 10000)
    answer = sum(tokens // c for c in periods)
    return Variant(
        f"Levels of periods {', '.join(map(str, periods[:-1]))} and {periods[-1]} tokens read one stream of {tokens} tokens. "
        "How many writes do they make together? A part of a chunk is not written.",
        answer,
        apart_from(
            answer,
            {
                tokens: "That would be a single level that writes at every token.",
                sum(periods): "That is the sum of the periods; a long period means few writes.",
                len(periods): "Each level writes more than once: the stream is longer than every period.",
            },
            0.02,
        ),
    )


@variant("05-arrows")
def _(d: Draw) -> Variant:
    lanes = ",".join(str(d.int(1, 3)) for _ in range(7))
    view = f"detective:lanes={lanes}"
    return Variant(
        f"Open `viz.load({view!r})` in the level detective. How many arrows break?", facts(view)["broken"], view=view
    )


@variant("06-worth")
def _(d: Draw) -> Variant:
    width, own = d.pick(12, 20, 24, 32, 48), d.pick(0.1, 0.2, 0.3, 0.36)
    answer = math.log(own) / math.log(1 - 1 / width)
    return Variant(
        f"Width {width}, and the contexts' maps share all but s^2 = {own} of their variance. How many full delta writes from "
        "zero reach the error of the best start?",
        answer,
        apart_from(
            answer,
            {
                math.log(math.sqrt(own))
                / math.log(1 - 1 / width): "That reaches an error of s; the start's error is s squared.",
                width: "After d writes a zero start still has 36 % of its error.",
            },
        ),
    )


@variant("07-cost")
def _(d: Draw) -> Variant:
    width, factor = d.pick(128, 256, 384, 768), d.pick(2, 4)
    periods = d.pick((16, 64, 256), (32, 128, 512), (8, 64, 512), (10, 100, 1000))
    size = 2 * width * factor * width
    answer = sum(size / c for c in periods)
    return Variant(
        f"Three levels, each an MLP of width {width} and hidden width {factor * width} without biases, periods {periods[0]}, "
        f"{periods[1]} and {periods[2]}. How many parameters are moved per token, on average?",
        answer,
        apart_from(
            answer,
            {
                3 * size: "That is all parameters together: what SGD at every token would move.",
                size / periods[0]: "That is the fastest level alone.",
                size: "That is the size of one level.",
            },
            0.03,
        ),
    )


@variant("07-notes")
def _(d: Draw) -> Variant:
    period, tokens = d.pick(8, 12, 16, 20, 24), d.pick(100, 120, 150, 180, 200)
    ends = range(period, tokens + 1, period)
    answer = sum(end > tokens // 2 for end in ends)
    view = f"score:C=1,{period},64;T={tokens}"
    return Variant(
        f"Open `viz.load({view!r})`. How many notes of the lane C = {period} have read at least one token of task B?",
        answer,
        apart_from(answer, {len(ends): "That is all its notes. The first ones have read nothing but A."}, 0.02),
        view,
    )


@variant("08-picture")
def _(d: Draw) -> Variant:
    keep = d.pick(0.92, 0.93, 0.94, 0.96, 0.97)
    view = f"two_tasks:keep={keep}"
    seen = facts(view)
    return Variant(
        f"In the picture of two tasks let the fast level keep {keep} per step, `viz.load({view!r})`. What is the error on A after it was emptied?",
        seen["a_after"],
        apart_from(
            seen["a_after"],
            {
                round(
                    seen["a"], 2
                ): "That is the error on A *before* the fast level was emptied. Read the point after it.",
                round(seen["b_after"], 2): "That is the error on B after the reset; the question is about A.",
            },
        ),
        view,
    )


@variant("09-picture")
def _(d: Draw) -> Variant:
    switch, seed = d.pick(16, 20, 24, 28, 36, 40), d.int(0, 9)
    view = f"memories:switch={switch},seed={seed}"
    seen = facts(view)
    return Variant(
        f"Open `viz.load({view!r})`: how many times more does M_mem move in the eight tokens after the switch than in the eight "
        "before?",
        seen["jump_mem"],
        view=view,
    )


@variant("10-state")
def _(d: Draw) -> Variant:
    import dataclasses

    from nlbook.book.chapters.hope import capstone
    from nlbook.hope import Hope

    width = d.pick(16, 24, 40, 48, 64)
    model = Hope(dataclasses.replace(capstone.config("Hope"), dim=width))
    with torch.no_grad():
        _, state = model(torch.zeros(1, 10, dtype=torch.long))
    kept = state.numel()
    return Variant(
        f"One block, width {width}. Hope keeps {kept:,} numbers: its memories (now, and as they stood at the last boundary), its MLPs "
        "and their waiting gradients. After how many tokens does the cache of a Transformer of this width (a key and a value per "
        "token) hold more?",
        kept / (2 * width),
        {
            kept / width: f"A token adds a key *and* a value: {2 * width} numbers, not {width}.",
            2 * width: "That is what one token adds, in numbers.",
        },
    )


@variant("10-picture")
def _(d: Draw) -> Variant:
    kind, keys = d.pick(("static", "A, B"), ("document", "d, e"), ("fast", "x, y"))
    hold, document = d.pick("nothing", "M_mem", "both MLPs"), d.int(0, 9)
    view = f"reading:hold={hold},document={document}"
    said = {"nothing": "Let all of it move", "M_mem": "Hold M memory at its start"}.get(
        hold, "Hold both MLPs at their start"
    )
    return Variant(
        f"Open `viz.load({view!r})`. {said}, and ask after 128 tokens: with what probability does the model give the true value of "
        f"a {kind} fact ({keys}), on average over those that it has met?",
        facts(view)[f"known_{kind}"],
        view=view,
    )


@variant("11-picture")
def _(d: Draw) -> Variant:
    chunk, eta = d.pick(4, 8, 16, 32), d.pick(0.1, 0.2, 0.5)
    view = f"theatre:C={chunk},eta={eta}"
    return Variant(
        f"Chunks of {chunk}, rate {eta}, the frozen rule, `viz.load({view!r})`: how far is the state from the token loop's, in "
        "percent?",
        facts(view)["error_percent"],
        view=view,
    )


@variant("11-intensity")
def _(d: Draw) -> Variant:
    chunk, width = d.pick(32, 96, 128, 256), d.pick(32, 128, 192)
    answer = (chunk + width) / 2
    return Variant(
        f"Linear attention, one chunk of C = {chunk} tokens, width d = {width}, bf16 (2 bytes), state on the chip. How many FLOPs "
        "for each byte that travels? An (m, k) by (k, n) product is 2 m n k FLOPs.",
        answer,
        {
            answer / 2: "A multiplication and an addition are two FLOPs. Or did you take 4 bytes a number?",
            answer * 2: "Each number of bf16 has two bytes.",
        },
    )


@variant("12-seeds")
def _(d: Draw) -> Variant:
    scatter, gap = d.pick(
        (0.02, 0.01), (0.03, 0.01), (0.05, 0.02), (0.04, 0.01), (0.06, 0.02), (0.05, 0.01), (0.1, 0.03), (0.08, 0.02)
    )
    answer = 8 * (scatter / gap) ** 2
    return Variant(
        f"Single runs scatter by {scatter}. You believe in a true gap of {gap}. From how many seeds of each method is that gap two "
        "standard errors of the difference?",
        answer,
        {
            answer / 2: "That is for one mean against a fixed number. Here two means scatter: twice as many.",
            answer / 4: "That is one standard error. The rule asks for two: four times as many seeds.",
            answer * 2: "That is both methods together; the question is for each.",
        },
    )
