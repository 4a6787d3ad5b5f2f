"""Chapter 00, Start here: one prediction, one question."""

from __future__ import annotations

from nlbook.book.check.define import *

ITEMS = [
    Prediction(
        id="00-p1",
        question="After the second write, what does the first key return?",
        objective="00.2",
        options=(
            right(
                "its own value plus 0.6 of the other one",
                "The read multiplies each stored value by the overlap of its key with yours.",
            ),
            wrong(
                "its own value, untouched", "It would be, if the keys were at a right angle. These share a direction."
            ),
            wrong(
                "the other value: the last write wins",
                "Nothing was erased: this write only adds. Chapter 01 meets a rule that erases.",
            ),
            wrong(
                "the average of both values",
                "Values are added up, weighted with 1 and 0.6; nothing divides by their number.",
            ),
        ),
    ),
    Question(
        id="00-q1",
        objective="00.2",
        text="You store phone numbers under names. Two names are nearly the same vector. What goes wrong first?",
        options=(
            wrong(
                "The matrix runs out of room for the second name.",
                "There are no slots that could fill up: every pair is spread over all numbers.",
            ),
            wrong(
                "Nothing, as long as the phone numbers differ.",
                "The values may differ as they like; what interferes is the overlap of the keys.",
            ),
            wrong(
                "The later number replaces the earlier one.",
                "A write that only adds replaces nothing. Both numbers come back, on top of each other.",
            ),
            right(
                "Asking for one name returns a blend of both phone numbers.",
                "The overlap of the two keys is nearly one, so each "
                "value comes back with nearly full weight whichever name you ask with.",
            ),
        ),
    ),
]
