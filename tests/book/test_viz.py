"""The picture room: states as strings, live pictures driven as the browser drives them, static twins, and every number
that a picture of nlbook/book/viz claims.
"""

from __future__ import annotations

import ast
import base64
import io
import math
import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nlbook.book import viz
from nlbook.book.viz import spec
from nlbook.book.viz.style import FAMILIES
from nlbook.errors import NLBookError

PARAMS = [
    viz.Int("n", 4, 1, 64),
    viz.Float("rho", 0.0, 0.0, 0.95, step=0.05),
    viz.Choice("rule", "a", ["a", "b"]),
    viz.Choice("lr", 1.0, [0.1, 1.0, 10], slider=True),
    viz.Bool("again", False),
    viz.Ints("C", (1, 16, 256)),
]


def broken_at_nine(state: Any) -> Any:
    if state.n == 9:
        raise RuntimeError("nine <is> too many")
    fig = viz.figure(4, 2)
    ax = fig.subplots()
    ax.plot([0, state.n], color=viz.COLORS["key"])
    viz.end_label(ax, 1, state.n, "key", viz.COLORS["key"])
    return fig


@pytest.fixture
def toy() -> Iterator[viz.View]:
    yield viz.view(
        "toy",
        title="A line",
        task="How high does it go?",
        answer="As high as n.",
        params=PARAMS,
        landmarks={"high": "n=64,rho=0.5", "low": "n=1"},
        facts=lambda s: {"top": s.n},
        alt=lambda s, f: f"A straight line from zero up to {f['top']} over one step.",
    )(broken_at_nine)
    spec._VIEWS.pop("toy")


def from_browser(widget: Any, **state: Any) -> None:
    """What the browser sends when the reader moves a control."""
    content = {"data": {"method": "update", "state": state, "buffer_paths": []}}
    widget._handle_msg({"content": content, "buffers": []})


def click(button: Any) -> None:
    button._handle_msg({"content": {"data": {"method": "custom", "content": {"event": "click"}}}, "buffers": []})


def pixels(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


# ---- states ---------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 64),
    k=st.integers(0, 19),
    rule=st.sampled_from("ab"),
    lr=st.sampled_from([0.1, 1.0, 10]),
    again=st.booleans(),
    C=st.lists(st.integers(1, 4096), min_size=1, max_size=6),
)
def test_a_state_survives_its_string(n: int, k: int, rule: str, lr: float, again: bool, C: list[int]) -> None:
    state = viz.State("toy", PARAMS, {"n": n, "rho": 0.05 * k, "rule": rule, "lr": lr, "again": again, "C": C})
    back = viz.State.parse(str(state), "toy", PARAMS)
    assert back == state and hash(back) == hash(state) and str(back) == str(state)


def test_a_string_says_what_differs_from_the_defaults() -> None:
    assert str(viz.State("toy", PARAMS)) == "toy"
    assert str(viz.State("toy", PARAMS, {"n": 8, "rho": 0.5})) == "toy:n=8,rho=0.5"
    assert str(viz.State("toy", PARAMS, {"n": 8, "C": [1, 4]})) == "toy:n=8;C=1,4"
    assert viz.State.parse("toy:C=1,4,16,n=8;rho=.5", "toy", PARAMS) == viz.State(
        "toy", PARAMS, {"C": (1, 4, 16), "n": 8, "rho": 0.5}
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("toy:n=65", "n: got 65, expected a whole number from 1 to 64"),
        ("toy:n=x", "n: got 'x', expected a whole number"),
        ("toy:m=1", "m: view 'toy' has no such value, expected one of n, rho, rule, lr, again, C"),
        ("toy:rho=0.53", "rho: got 0.53, expected a number from 0 to 0.95 in steps of 0.05"),
        ("toy:rho=nan", "rho: got nan"),
        ("toy:rule=c", "rule: got 'c', expected one of a, b"),
        ("toy:lr=2", "lr: got 2.0, expected one of 0.1, 1, 10"),
        ("toy:again=2", "again: got '2', expected 1 or 0"),
        ("toy:C=0,4", "C: got (0, 4)|C: got '0,4'|C: got [0, 4]"),
        ("toy:n=1,n=2", "n: got it twice"),
        ("toy:7", "expected name=value pairs"),
        ("v99:n=1", "got view 'v99', expected one of first_look, "),
        ("", "expected a string such as"),
    ],
)
def test_a_bad_string_is_answered_with_the_name_and_the_choices(toy: viz.View, text: str, says: str) -> None:
    with pytest.raises(NLBookError) as error:
        viz.load(text)
    assert any(s in str(error.value) for s in says.split("|")), str(error.value)


def test_a_state_never_changes(toy: viz.View) -> None:
    state = toy.state()
    with pytest.raises(AttributeError, match="never changes"):
        state.n = 5
    with pytest.raises(AttributeError, match="it has n, rho"):
        _ = state.m
    assert state.replace(n=5).n == 5 and state.n == 4 and state["rho"] == 0.0


# ---- the live picture -----------------------------------------------------------------------------------------------
def test_a_slider_redraws_and_says_so_in_words(toy: viz.View) -> None:
    p = viz.load("toy:n=3")
    before = p.screen.png
    from_browser(p.controls["n"], value=8)
    assert p.state_string == "toy:n=8" and p.screen.png != before and "up to 8" in p.screen.alt
    assert p.screen.state == "toy:n=8" and "top 8" in p.screen.description and p.facts["top"] == 8


def test_one_jump_is_one_drawing(toy: viz.View) -> None:
    p = viz.load("toy")
    click(p.landmark_buttons[0])  # moves two sliders
    assert p.state_string == "toy:n=64,rho=0.5" and p.draws == 2
    assert (p.controls["n"].value, p.controls["rho"].value) == (64, 0.5)
    from_browser(p.controls["n"], value=64)  # nothing new
    assert p.draws == 2


def test_an_error_in_draw_fails_the_cell_but_not_the_slider(toy: viz.View) -> None:
    with pytest.raises(RuntimeError, match="nine"):
        viz.load("toy:n=9")
    p = viz.load("toy")
    with pytest.raises(RuntimeError, match="nine"):
        p.set(n=9)
    good = p.screen.png
    from_browser(p.controls["n"], value=9)
    assert p.message.value.startswith('<pre class="nlbook-error"') and "nine &lt;is&gt; too many" in p.message.value
    assert p.screen.png == good and p.state.n == 4
    from_browser(p.controls["n"], value=4)  # back to the last good state
    assert p.message.value == ""
    from_browser(p.controls["C"], value="1,zwei")
    assert "C: got &#x27;1,zwei&#x27;, expected 1 to 6 whole numbers" in p.message.value
    from_browser(p.controls["C"], value="1, 2")
    assert p.message.value == "" and p.state.C == (1, 2)


def test_three_controls_at_first_and_a_teacher_can_hide(toy: viz.View) -> None:
    def inside(w: Any) -> list[Any]:
        return [w, *(x for c in getattr(w, "children", ()) for x in inside(c))]

    p = viz.load("toy")
    folded = next(w for w in inside(p) if w.layout.display == "none")
    assert [c.description for c in folded.children] == ["lr", "again", "C"]
    from_browser(p.more, value=True)
    assert folded.layout.display == "flex"
    p = viz.load("toy:n=8", hide=("controls", "landmarks", "answer", "state"))
    shown = inside(p)
    assert not any(c in shown for c in p.controls.values()) and not p.screen.show_state
    assert any("How high" in w.value for w in shown if isinstance(w, ipywidgets.HTML))
    assert not any("As high" in w.value for w in shown if isinstance(w, ipywidgets.HTML))
    assert viz.load("toy", hide="n").controls["n"] not in inside(viz.load("toy", hide="n"))
    with pytest.raises(NLBookError, match="hide: got 'sliders', expected some of controls"):
        viz.load("toy", hide=["sliders"])
    assert not any(isinstance(w, ipywidgets.Output) for w in inside(viz.load("toy")))


def test_set_goes_by_value_string_or_landmark(toy: viz.View) -> None:
    p = viz.load("toy:n=3")
    assert p.set(rho=0.5).state_string == "toy:n=3,rho=0.5"
    assert p.set("rule=b").state_string == "toy:rule=b"
    assert p.set("low").state.n == 1
    assert p.describe().splitlines()[0] == "A line." and "Settings: n 1" in p.describe()


# ---- static twins ---------------------------------------------------------------------------------------------------
def test_the_static_twin_is_in_the_bundle_with_its_alt_text(toy: viz.View) -> None:
    data, metadata = viz.load("toy:n=8")._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= set(data)
    alt = metadata["image/png"]["alt"]
    assert "up to 8" in alt and "up to 64" not in alt  # this state and no other
    image = pixels(base64.b64decode(data["image/png"]))
    assert image.width == 4 * 144 and metadata["image/png"]["width"] == 400
    assert image.getpixel((0, 0)) == (255, 255, 255, 255)  # opaque: readable on a dark theme


def test_the_same_state_gives_the_same_bytes(toy: viz.View) -> None:
    a, b = (viz.load("toy:n=8") for _ in range(2))
    assert a.png() == b.png() and a._repr_mimebundle_()[0]["image/png"] == b._repr_mimebundle_()[0]["image/png"]
    for data in (a.png(), a.screen.png):
        assert not pixels(data).info.keys() & {"Software", "date", "Creation Time"}


def test_a_site_build_needs_no_widget(toy: viz.View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLBOOK_STATIC", "html")
    data, _ = viz.load("toy")._repr_mimebundle_()
    assert set(data) == {"text/html", "text/plain"}
    assert 'alt="' in data["text/html"] and "<summary>Answer" in data["text/html"] and "http" not in data["text/html"]


def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    monkeypatch.setattr(
        "nlbook.book.viz.picture.display", lambda data, metadata=None, raw=False: seen.append((data, metadata or {}))
    )
    return seen


def test_show_wants_words_for_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = displayed(monkeypatch)
    fig = viz.figure()
    with pytest.raises(NLBookError, match=r"alt: got 3 words .* expected at least 8"):
        viz.show(fig, "a nice plot")
    with pytest.raises(NLBookError, match="fig: got str"):
        viz.show("fig", alt="one two three four five six seven eight")  # type: ignore[arg-type]
    assert not seen
    viz.show(fig, alt="one two three four five six seven <eight>")
    assert seen[0][1]["image/png"] == {"alt": "one two three four five six seven <eight>", "width": 700}
    assert "&lt;eight&gt;" in seen[1][0]["text/html"]


def test_a_lazy_alt_text_is_refused(toy: viz.View) -> None:
    lazy = viz.View(
        "lazy",
        broken_at_nine,
        title="t",
        task="t",
        answer="a",
        params=PARAMS,
        facts=lambda s: {},
        alt=lambda s, f: "A plot.",
    )
    with pytest.raises(NLBookError, match="alt: got 2 words"):
        lazy.alt()


# ---- style ----------------------------------------------------------------------------------------------------------
def test_figures_are_not_pyplots_and_carry_the_style_by_themselves() -> None:
    fig = viz.figure()
    ax = fig.subplots()
    assert not ax.spines["top"].get_visible() and fig.get_facecolor() == (1, 1, 1, 1)
    source = "".join(p.read_text(encoding="utf-8") for p in Path(viz.__file__).parent.glob("*.py"))
    assert not re.search(r"import matplotlib\.pyplot|from matplotlib import pyplot|\bplt\.", source)


def luminance(color: str) -> float:
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_levels_are_a_ramp_that_can_be_read_in_grey() -> None:
    ramp = [luminance(viz.COLORS[f"level{i}"]) for i in range(1, 7)]
    assert all(a > b for a, b in pairwise(ramp))
    words = "key value objective rate query memory error baseline control truth"
    assert set(words.split()) <= set(viz.COLORS)


def test_the_javascript_asks_for_nothing() -> None:
    files = list((Path(viz.__file__).parent / "js").glob("*.[jc]s*"))
    assert files
    for f in files:
        ours = r'//.*|^import .* from "\./\w+\.js";$'  # joined into one script by viz.live
        source = re.sub(ours, "", f.read_text(encoding="utf-8"), flags=re.M)
        assert not re.search(r"https?:|\bimport\b|\bfetch\(|XMLHttpRequest|@import|url\(", source), f.name


# ---- every picture --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", spec.BOOK)
def test_a_picture_draws_at_its_extremes_with_words_and_no_nan(key: str) -> None:
    picture = viz.find(key)
    assert picture.task.rstrip().endswith((".", "?")) and picture.answer and picture.landmarks
    for state in picture.extremes():
        assert viz.State.parse(str(state), key, picture.params) == state
        assert len(picture.alt(state).split()) >= 8
        facts = picture.facts(state)
        assert facts and all(v == v for v in facts.values()), (str(state), facts)
        fig = picture.figure(state)
        assert pixels(viz.png(fig, dpi=40)).width > 100
        assert all(t.get_fontsize() >= 8 for t in fig.findobj(lambda o: hasattr(o, "get_fontsize")) if t.get_text())


def test_the_gallery_lists_every_picture() -> None:
    shown = viz.gallery()._repr_html_()
    assert all(f'viz.load("{key}")' in shown and f'viz.load("{key}")' in repr(viz.gallery()) for key in spec.BOOK)


def said(number: float, text: str) -> bool:
    return f"{number:.2f}" in text


# ---- interference ----------------------------------------------------------------------------------------------------
def test_interference_a_gentle_write_tells_more_random_pairs_apart_than_a_full_one() -> None:
    view = viz.find("interference")
    f, small = view.facts(), view.facts("rule=delta,lr=0.1")
    assert 0.97 < f["identified_hebbian"] < 1 and 0.76 < f["identified_delta"] < 0.84 and f["identified_rls"] == 1
    assert small["identified"] > 0.97 and small["identified_delta"] == f["identified_delta"]
    for number in (f["identified_hebbian"], f["identified_delta"], small["identified"]):
        assert said(number, view.answer)
    for seed in range(1, 4):
        g, h = (view.facts(view.state(seed=seed, rule="delta", lr=lr)) for lr in (1.0, 0.1))
        assert h["identified"] > g["identified"] + 0.1


def test_interference_with_overlap_a_rate_between_is_best() -> None:
    view = viz.find("interference")
    f = view.facts("rule=delta,lr=0.3,rho=0.5")
    assert abs(f["overlap"] - 0.5) < 0.06
    assert f["identified"] > f["identified_delta"] + 0.05 > f["identified_hebbian"] + 0.1 and f["identified_rls"] == 1
    for number in (f["identified"], f["identified_delta"], f["identified_hebbian"]):
        assert said(number, view.answer)
    assert view.facts("rho=0.95,n=64")["identified_hebbian"] < 0.05
    assert view.facts("rho=0.95,n=32")["identified_rls"] > 0.9


def test_interference_rewriting_a_key_hebb_adds_delta_replaces() -> None:
    view = viz.find("interference")
    hebb, delta = view.facts("n=1,again=1"), view.facts("n=1,again=1,rule=delta")
    assert hebb["rewritten_sum"] < 1e-12 and abs(hebb["rewritten_error"] - 1) < 1e-12  # v1 + v2, unit values
    assert delta["rewritten_error"] < 1e-12
    assert view.facts("n=4,again=1,rule=delta")["rewritten_error"] < 1e-12
    assert view.facts("n=4,again=1")["rewritten_error"] > 0.9


# ---- weight ----------------------------------------------------------------------------------------------------------
@pytest.mark.eq(8, 58)
def test_weight_the_bars_sum_to_the_answer_and_frozen_ones_do_not() -> None:
    view = viz.find("weight")
    for state in view.extremes():
        assert view.facts(state)["gap"] < 1e-13
    for seed in range(10):
        f = view.facts(view.state(seed=seed))
        assert f["error_rms"] < 0.05 * f["start_error_rms"]  # trained
        assert f["frozen_gap_rms"] > 2 * f["start_error_rms"]  # frozen: off by more than was to be learned
    assert abs(view.facts()["ratio"] - 4.14) < 0.01


@pytest.mark.eq(58)
def test_weight_the_first_step_is_the_same_frozen_or_not() -> None:
    view = viz.find("weight")
    assert view.facts("step=1")["frozen_gap_rms"] < 1e-13 < view.facts("step=2")["frozen_gap_rms"]


# ---- axes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "slider"),
    [
        ("first_look", "keep"),
        ("weight", "step"),
        ("weight", "angle"),
        ("dial", "temperature"),
        ("start", "writes"),
        ("start", "loud"),
        ("memories", "switch"),
        ("reading", "stream"),
    ],
)
def test_axes_stay_under_a_slider(key: str, slider: str) -> None:
    view = viz.find(key)
    (param,) = (p for p in view.params if p.name == slider)
    figures = [view.figure({slider: value}) for value in param.extremes()]
    limits = [[(ax.get_xlim(), ax.get_ylim()) for ax in fig.axes] for fig in figures]
    assert all(found == limits[0] for found in limits)


# ---- the grammar of colours ------------------------------------------------------------------------------------------
CHAPTERS = Path(viz.__file__).parents[1] / "chapters"
SAID_OF = {  # what a figure may name in a dictionary of its looks -> the family whose colours it takes
    **dict.fromkeys(("hebbian", "delta", "rls", "softmax", "window", "recency", "features"), "rules"),
    **dict.fromkeys(("for ever", "document", "moment"), "kinds of facts"),
}


def lab(colour: str) -> tuple[float, float, float]:
    """CIE L*a*b* of a hexadecimal colour: distances in it are about as large as they look."""
    import numpy as np

    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ c
    f = np.cbrt(xyz / (0.95047, 1, 1.08883))
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def apart(a: str, b: str) -> float:
    return math.dist(lab(a), lab(b))


def colourful(colour: str) -> bool:
    light, *rest = lab(colour)
    return math.hypot(*rest) > 8 and light < 88  # neither a grey nor the tint of a ground


def named(node: ast.AST) -> set[str]:
    """The colours that a piece of source takes from COLORS."""
    found = (n.slice for n in ast.walk(node) if isinstance(n, ast.Subscript) and ast.unparse(n.value) == "COLORS")
    return {n.value for n in found if isinstance(n, ast.Constant)}


def test_no_two_meanings_look_alike() -> None:
    some = {name: c for name, c in viz.COLORS.items() if colourful(c)}
    near = [(a, b) for a, b in combinations(some, 2) if apart(some[a], some[b]) < 11]
    assert not near and len(some) > 20
    assert apart("#D55E00", "#D65F01") < 11  # what is alike is found


@pytest.mark.parametrize("file", sorted(CHAPTERS.glob("*/*.py")), ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_a_chapter_draws_every_family_in_its_own_colours(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    own = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    for c in filter(re.compile("#[0-9A-Fa-f]{6}$").match, own):
        assert not colourful(c) or all(apart(c, known) > 8 for known in viz.COLORS.values()), c
    for looks in (n for n in ast.walk(tree) if isinstance(n, ast.Dict)):
        for key, value in zip(looks.keys, looks.values, strict=True):
            if isinstance(key, ast.Constant) and key.value in SAID_OF:
                assert named(value) <= {*FAMILIES[SAID_OF[key.value]]}, (key.value, named(value))
