"""Demonstrations for a class: the exact view as a string, what to ask before it is shown, and the numbers to
look for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demo:
    """One view. hide: what students do not get; facts: names of numbers in the picture, read out by the tables."""

    state: str
    ask: str
    facts: tuple[str, ...]
    hide: tuple[str, ...] = ()

    def call(self) -> str:
        """What a teacher pastes into a cell."""
        hidden = f", hide={self.hide!r}" if self.hide else ""
        return f'viz.load("{self.state}"{hidden})'


CLOSED = ("controls", "landmarks", "answer")
DEMOS: dict[str, tuple[Demo, ...]] = {
    "00": (
        Demo("first_look:keep=0.9", "After how many writes is the first pair down to one half?", ("half",), CLOSED),
        Demo(
            "first_look:keep=1",
            "Nothing shrinks now. Is the first pair still found at the end?",
            ("signal_end", "noise_end"),
        ),
    ),
    "01": (
        Demo(
            "interference:n=32,rho=0,rule=hebbian",
            "32 random pairs in width 32: which share comes back?",
            ("identified",),
            CLOSED,
        ),
        Demo(
            "interference:n=32,rho=0,rule=delta",
            "Delta is right about the last pair. More or fewer pairs in total?",
            ("identified",),
            CLOSED,
        ),
        Demo(
            "interference:n=32,rho=0.5,rule=delta",
            "Now the keys share a direction. Who wins?",
            ("identified_hebbian", "identified_delta"),
        ),
        Demo(
            "interference:n=4,rule=hebbian,again=1", "One key is written twice. What does the sum return?", ("error",)
        ),
    ),
    "02": (
        Demo(
            "weight:step=3",
            "Three training steps: how many bars make up the answer?",
            ("answer", "sum_of_bars"),
            CLOSED,
        ),
        Demo(
            "weight:step=24,freeze=1",
            "All surprises are taken at the start. Will the answer change?",
            ("answer", "frozen_answer"),
        ),
    ),
    "03": (
        Demo("horizon:beta=0.9", "How many of the latest gradients make half of the momentum?", ("n50", "n99"), CLOSED),
        Demo("horizon:beta=0.999,log=1", "And at 0.999?", ("n50", "n99"), CLOSED),
        Demo(
            "horizon:beta=0.9,slow=1,log=1",
            "A slow momentum is added: which end of the curve moves?",
            ("step50", "step99"),
        ),
    ),
    "04": (
        Demo("dial:temperature=0", "Temperature zero: what is the answer?", ("answer", "nearest"), CLOSED),
        Demo("dial:temperature=inf", "Temperature infinite?", ("answer", "mean"), CLOSED),
        Demo(
            "dial:feature=16 bumps",
            "Sixteen bumps instead of all keys: how many floats, how much blur?",
            ("floats", "floats_cache", "blur"),
        ),
    ),
    "05": (
        Demo("detective:lanes=1,1,1,1,1,1,1", "Everything in one lane: how many arrows break?", ("broken",), CLOSED),
        Demo("detective:lanes=2,3,1,1,4,2,2", "Momentum below the weights: what does the verdict say?", ("broken",)),
        Demo("score:C=none;T=128", "A Transformer: which lanes are there?", ("notes_attention",)),
    ),
    "06": (
        Demo(
            "start:writes=1",
            "One context is loud, one quiet. Where should the memory start?",
            ("best_meta", "best_printed"),
            CLOSED,
        ),
        Demo("start:writes=6", "Six writes instead of one: does the best start move?", ("best_meta", "best_printed")),
    ),
    "07": (
        Demo("score:C=1,16,64;T=200", "How many notes has the lane C = 64 after 200 tokens?", ("notes_64",), CLOSED),
        Demo(
            "score:C=1,16,64;T=50",
            "And after 50?",
            ("notes_64",),
            CLOSED,
        ),
        Demo(
            "score:C=1,16,64;T=120",
            "The task changed at token 60. Which lane still knows the first one?",
            ("notes_16",),
        ),
    ),
    "08": (
        Demo("two_tasks:keep=1", "Three rates, nothing is forgotten on purpose. Who still knows A?", ("a",), CLOSED),
        Demo("two_tasks:C=1,keep=1", "One level alone: better or worse than three?", ("a",), CLOSED),
        Demo(
            "two_tasks",
            "The fast level forgets two per cent a step and is emptied at the end. And now?",
            ("a", "a_after", "b_after"),
        ),
        Demo("two_tasks:same_rate=1", "The same steps, no periods at all.", ("a_after",)),
        Demo(
            "stability:period=16,step=0.5",
            "Border at period 1 is 2.0: where is it at 16?",
            ("border_1", "border_16", "border_64"),
        ),
    ),
    "09": (
        Demo(
            "memories",
            "The rule of the stream changes at the dashed line. Which of the five memories moves?",
            ("moved_mem_before", "moved_mem_after"),
            CLOSED,
        ),
        Demo(
            "memories:case=zero",
            "Linear memories that start at zero, with values of their own: what do they learn?",
            ("moved_mem_after",),
        ),
        Demo("memories:case=free-v", "The values may be of any length now. What happens?", ("exploded",)),
    ),
    "10": (
        Demo(
            "reading",
            "A small Hope reads one document. Every lane moves: which one holds the facts?",
            ("moved_M_mem", "moved_M_k", "known_document"),
            CLOSED,
        ),
        Demo(
            "reading:hold=M_mem",
            "M memory is held at its start. What does the model still know: static, document or fast facts?",
            ("known_static", "known_document", "known_fast"),
            CLOSED,
        ),
        Demo(
            "reading:hold=both MLPs",
            "The moving MLPs are held instead. How much is lost?",
            ("known_document", "known_fast"),
        ),
        Demo(
            "reading:hold=all",
            "Nothing moves any more. Where do the static facts sit?",
            ("known_static", "known_document"),
        ),
    ),
    "11": (
        Demo(
            "theatre:C=16,eta=0.1",
            "Every gradient of a chunk is taken at its start: how far off is the state?",
            ("error_percent",),
            CLOSED,
        ),
        Demo("theatre:C=64,eta=0.5", "Larger chunks, larger rate?", ("error_percent",), CLOSED),
        Demo("theatre:C=64,eta=0.5,rule=exact", "And the exact chunk form?", ("error_percent",)),
    ),
    "12": (
        Demo("ledger:show=not", "What did not reproduce here? Which of these rows do you trust least?", (), CLOSED),
        Demo("ledger", "One verdict after the other: by which rule was it reached?", ()),
    ),
}


def table(number: str) -> str:
    """The demonstrations of a chapter as a Markdown table, with the numbers that the pictures show."""
    from nlbook.book import viz

    lines = ["| paste | ask first | then read |", "|---|---|---|"]
    for demo in DEMOS.get(number, ()):
        facts = viz.find(demo.state.partition(":")[0]).facts(demo.state)
        read = ", ".join(f"{name} {facts[name]:.3g}" for name in demo.facts)
        lines.append(f"| `{demo.call()}` | {demo.ask} | {read} |")
    return "\n".join(lines) if len(lines) > 2 else "No demonstration is written for this chapter."
