"""The ledger: every claim with its verdict; filter by verdict, choose a row, read what led there.

Drawn from the committed notebooks/ledger.json; nothing is run, and nothing is written here that does not stand there.
"""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from typing import Any

import anywidget
import traitlets as tr
from matplotlib.figure import Figure

from nlbook.book.ledger.verdicts import SYMBOLS, WORDS, Judged, Verdicts, verdicts
from nlbook.book.viz.picture import JS
from nlbook.book.viz.spec import Facts, view
from nlbook.book.viz.state import Choice, State
from nlbook.book.viz.style import COLORS, figure

SHORT = {"all": "all verdicts", **dict(zip(("proved", "toy", "partly", "not", "out"), WORDS))}
INK = dict(zip(WORDS, (COLORS["memory"], "#006B4F", "#8A5A00", "#A84400", "#555555")))  # 4.5 : 1 on white, and more
NOTHING = Judged("none", "no ledger yet", "-", "", "run `nlbook ledger`", "-", "nlbook ledger")


@lru_cache(maxsize=1)
def rows() -> Verdicts:
    """The rows of the committed ledger; one that says so where there is none."""
    return verdicts() or Verdicts([NOTHING])


def ink(row: Judged) -> str:
    return INK.get(row.verdict, COLORS["truth"])


def shown(state: Any) -> list[Judged]:
    """The rows that the filter lets through."""
    return [r for r in rows() if state.show == "all" or r.verdict == SHORT[state.show]]


def chosen(state: Any) -> Judged | None:
    """The chosen row, or the first that is shown; None if none is."""
    seen = shown(state)
    return next((r for r in seen if r.id == state.row), seen[0] if seen else None)


def facts(state: Any) -> dict[str, float]:
    """rows, shown; and how many rows have each verdict, whatever is shown."""
    count = rows().count()
    return {
        "rows": float(len(rows())),
        "shown": float(len(shown(state))),
        **{short: float(count.get(word, 0)) for short, word in SHORT.items() if short != "all"},
    }


def alt(state: Any, f: Facts) -> str:
    row = chosen(state)
    said = ", ".join(f"{f[s]:.0f} {w}" for s, w in SHORT.items() if s != "all" and f[s])
    word = (row.verdict or "no verdict") if row else ""
    about = f"Chosen: {row.source}, {row.title}: {word}. {row.because}" if row else "None chosen."
    return f"The ledger: {f['rows']:.0f} rows, {said}. {f['shown']:.0f} of them are listed. {about}"


def describe(state: Any, f: Facts) -> str:
    listed = " ".join(f"{r.source}: {r.title}: {r.verdict or 'no verdict'}." for r in shown(state))
    row = chosen(state)
    return f"{alt(state, f)} Rows: {listed}" + (f" Rule: {row.rule} Again with: {row.command}" if row else "")


# ---- the still picture ----------------------------------------------------------------------------------------------
def card(row: Judged | None) -> list[tuple[str, str]]:
    """What is known about a row, part by part."""
    if row is None:
        return [("", "No row has this verdict.")]
    parts = [
        ("The paper says", row.claim),
        ("Ours", row.because),
        ("Rule, written before", row.rule),
        ("Does not show", row.limits),
        ("Look at", ", ".join(row.look)),
        ("Again", row.command),
    ]
    return [(name, re.sub(r"\*\*?(\w[^*]*\w|\w)\*\*?", r"\1", text)) for name, text in parts if text]  # *so*, not (aa)*


def wrapped(row: Judged | None, width: int = 112) -> list[tuple[str, list[str]]]:
    return [(name, textwrap.wrap(text, width)) for name, text in card(row)]


@view(
    "ledger",
    title="The ledger: what became of each claim",
    task="Show one verdict after the other. For a row of each, read the rule and ask: could it have come out "
    "otherwise? Then find the row that you trust least, and say why.",
    answer="Read the counts at the top first: that is the answer to 'does it reproduce?', and it is not one word. A "
    "row is worth as much as its baseline, its control and its seeds; rows without a baseline of equal size, or "
    "with three seeds and a small gap, deserve the least trust. Each row's last line runs it again.",
    params=[
        Choice("show", "all", tuple(SHORT), label="show"),
        Choice("row", rows()[0].id, tuple(r.id for r in rows()), label="row"),
    ],
    landmarks={
        f"{SYMBOLS[word]} {word}": f"show={short}"
        for short, word in SHORT.items()
        if short != "all" and rows().count(word)
    }
    or {"all": "show=all"},
    alt=alt,
    facts=facts,
    describe=describe,
    live=lambda state: Board(state),
)
def draw(state: State) -> Figure:
    """The counts as one bar, the rows that are shown in two columns, and the chosen row's card."""
    f, seen, row = facts(state), shown(state), chosen(state)
    lines = wrapped(row)
    half = -(-len(seen) // 2)
    text_rows = sum(len(w) for _, w in lines) + 1.6
    high = 0.75 + 0.23 * max(half, 1) + 0.2 * text_rows
    fig = figure(9, high, layout=None)
    at, here = 0.01, 1 - 0.3 / high
    for short, word in SHORT.items():
        if short == "all" or not f[short]:
            continue
        share = 0.98 * f[short] / f["rows"]
        on = state.show in ("all", short)
        bar = fig.add_axes((at, here - 0.1 / high, max(share - 0.004, 0.002), 0.3 / high))
        bar.set_axis_off()
        bar.axhspan(0, 1, color=INK[word], alpha=1.0 if on else 0.25)
        label = f"{f[short]:.0f} {word}" if share > 0.012 * len(word) else f"{f[short]:.0f}"
        bar.text(
            0.5,
            0.5,
            label,
            transform=bar.transAxes,
            ha="center",
            va="center",
            color="white" if on else "#222222",
            fontsize=9,
            weight="bold",
        )
        at += share
    top = here - 0.36 / high
    for i, r in enumerate(seen):
        x, y = 0.01 + 0.5 * (i >= half), top - 0.23 * (i % half) / high
        weight = "bold" if r is row else "normal"
        fig.text(x, y, r.symbol, color=ink(r), fontsize=11, va="center")
        fig.text(x + 0.022, y, f"{r.source}: {r.title}"[:62], color=ink(r), fontsize=9, va="center", weight=weight)
    y = top - (0.23 * max(half, 1) + 0.12) / high
    head = f"{row.source}: {row.title}" if row else ""
    fig.text(0.01, y, head, fontsize=11, weight="bold", va="center")
    if row:
        fig.text(
            0.99,
            y,
            f"{row.symbol} {row.verdict or 'no verdict'}",
            fontsize=11,
            weight="bold",
            va="center",
            ha="right",
            color=ink(row),
        )
    y -= 0.25 / high
    for name, part in lines:
        fig.text(0.01, y, name, fontsize=8.5, color="#555555", va="center")
        for line in part:
            fig.text(0.17, y, line.replace("$", r"\$"), fontsize=8.5, va="center")
            y -= 0.2 / high
    return fig


# ---- the live board -------------------------------------------------------------------------------------------------
class Board(anywidget.AnyWidget):
    """The list of rows as buttons, and the chosen row's card; the browser's half is js/ledger.js.

    The browser sets `chosen`: a running number and the place of a row in the list that is shown.
    """

    _esm = JS / "ledger.js"
    _css = JS / "ledger.css"
    counts: tr.List[Any] = tr.List().tag(sync=True)  # verdict, number, colour, shown?
    rows: tr.List[Any] = tr.List().tag(sync=True)  # symbol, source, title, verdict, colour
    at = tr.Int(-1).tag(sync=True)
    head: tr.List[Any] = tr.List().tag(sync=True)  # title, verdict, colour
    card: tr.List[Any] = tr.List().tag(sync=True)  # [name, text]
    chosen: tr.List[Any] = tr.List(tr.Int()).tag(sync=True)

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.show_state(state)

    def show_state(self, state: Any) -> None:
        """Show the rows of a state and the card of its row."""
        seen, row, f = shown(state), chosen(state), facts(state)
        with self.hold_sync():
            self.set_trait(
                "counts",
                [[w, int(f[s]), INK[w], state.show in ("all", s)] for s, w in SHORT.items() if s != "all" and f[s]],
            )
            self.set_trait(
                "rows",
                [
                    {
                        "symbol": r.symbol,
                        "source": r.source,
                        "title": r.title,
                        "verdict": r.verdict or "no verdict",
                        "color": ink(r),
                    }
                    for r in seen
                ],
            )
            self.set_trait("at", seen.index(row) if row else -1)
            self.set_trait(
                "head",
                []
                if row is None
                else [f"{row.source}: {row.title}", f"{row.symbol} {row.verdict or 'no verdict'}", ink(row)],
            )
            self.set_trait("card", [list(part) for part in card(row)])

    def picked(self, state: State) -> State:
        """The state that the browser's last click asks for."""
        seen = shown(state)
        place = self.chosen[1] if len(self.chosen) > 1 else 0
        return state.replace(row=seen[place].id) if 0 <= place < len(seen) else state
