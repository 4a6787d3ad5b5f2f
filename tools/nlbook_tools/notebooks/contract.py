"""What a notebook of this book must be, as checks. Each finding names the cell, what is wrong and what to do.

Three circles: `runnable` (may it be started at all?), `form` (is the committed file what a clean run leaves?) and
`teaching` (the contract of a chapter: front matter, tags in order, limits, alternative texts). `check` is all of it.
The metadata field `nlbook.kind` chooses:

    chapter   everything (the default)
    start     the start page: fewer tags
    note      any other notebook: only that it can be run and that its form is clean
"""

from __future__ import annotations

import ast
import functools
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nbformat import NotebookNode

TAGS = {
    "chapter": (
        "claim",
        "cold-open",
        "predict",
        "worked",
        "check",
        "visual",
        "exercise",
        "equality",
        "signature",
        "control",
        "limits",
        "retrieval",
        "key-points",
    ),
    "start": ("claim", "cold-open", "predict", "check", "visual", "key-points"),
    "note": (),
}
ANYWHERE = {"predict", "check", "visual", "exercise"}  # what the reader does may come between any two of the others
CODE_LINES, CODE_MEDIAN, WORDS, CELLS, ALT_WORDS, GAP_MINUTES = 30, 6, 250, 70, 8, 12.0
EQUATIONS = range(1, 122)
NUMBER = r"\d\d|[A-Z]"  # of a chapter, of an appendix
PROFILES = ("quick", "full")
WIDGET_STATE, WIDGET_VIEW = "widgets", "application/vnd.jupyter.widget-view+json"
READER_ACTS = {"predict", "check", "exercise", "retrieval"}
CHECK_CALL = re.compile(r"\bcheck\.(predict|reveal|exercise|choice|recall)\(")
MAGIC = re.compile(
    r"^\s*(![^=]|%{1,2}\s*(pip|conda|mamba|uv|sh|bash|sx|system|script|time|timeit|cd|env|load|run)\b)", re.M
)
REMOTE_IMAGE = re.compile(r"!\[[^\]]*\]\(\s*(https?:)?//|<img[^>]+src=[\"'](https?:)?//", re.I)
IMAGE_ALT = re.compile(r"!\[([^\]]*)\]\(")
DIRECTIVE = re.compile(r"^\s*(`{3,}|:{3,})\{|\{(eq|ref|numref|doc|term|cite[a-z:]*|math)\}`", re.M)
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(home|root|Users|tmp|work|mnt|private)/\w|site-packages|\b[A-Z]:\\(Users|Program|Windows)"
)
MATHS = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.S)


SCALARS = (bool, int, float, str)
Found = tuple[str, str] | tuple[str, str, int]  # what is wrong, what to do, and the cell if it is one cell's


@dataclass(frozen=True)
class Problem:
    """One finding. `cell` counts from 1, Markdown cells too; None means the notebook as a whole."""

    notebook: str
    what: str
    todo: str
    cell: int | None = None

    @property
    def where(self) -> str:
        return f"cell {self.cell}" if self.cell else "notebook"

    def __str__(self) -> str:
        return f"{self.notebook}, {self.where}: {self.what} -> {self.todo}"


def check(nb: NotebookNode, name: str) -> list[Problem]:
    """Everything that is wrong with this committed notebook, without running it."""
    found = [p for profile in PROFILES for p in runnable(nb, name, profile)]
    return [*dict.fromkeys(found), *form(nb, name), *teaching(nb, name)]  # what concerns both profiles is said once


def named(rule: Callable[..., Iterator[Found]]) -> Callable[..., list[Problem]]:
    """A rule yields (what is wrong, what to do[, cell]); its findings carry the notebook's name."""

    @functools.wraps(rule)
    def found(nb: NotebookNode, name: str, *rest: Any) -> list[Problem]:
        return [Problem(name, *f) for f in rule(nb, *rest)]

    return found


# -- may it be started at all?


@named
def runnable(nb: NotebookNode, profile: str) -> Iterator[Found]:
    """What keeps this notebook from being run with `profile`: its budgets, its parameters, tags that papermill cannot
    honour."""
    for i, c in _cells(nb):
        if "raises-exception" in _tags(c):
            yield "tagged raises-exception; papermill fails such a run", "show the error with try/except, no tag", i
    asked, at = _dig(nb.metadata, "nlbook", "run", profile), f"nlbook.run.{profile}"
    if not isinstance(asked, dict):
        todo = f"add to the front matter, under nlbook: run: {{{profile}: {{seconds: 60, memory_mb: 1500}}}}"
        yield f"no metadata {at}", todo
        return
    for key in ("seconds", "memory_mb"):
        if not _number(asked.get(key)) or asked[key] <= 0:
            yield f"{at}.{key} is {asked.get(key)!r}", "give a positive number"
    if extra := sorted(set(asked) - {"seconds", "memory_mb", "parameters"}):
        yield f"{at} has unknown fields {extra}", "it has seconds, memory_mb and parameters"
    given = asked.get("parameters") or {}
    if not isinstance(given, dict):
        yield f"{at}.parameters is {given!r}", "give a mapping from name to scalar"
    elif not any("parameters" in _tags(c) for _, c in _cells(nb)):
        yield "no cell tagged `parameters`", "tag the code cell that sets them, near the top: `seed = 0` and the sizes"
    else:
        yield from _parameters(nb, profile, given)


def _parameters(nb: NotebookNode, profile: str, given: dict[str, Any]) -> Iterator[Found]:
    """The parameters cell, and the values that a profile gives."""
    known: dict[str, Any] = {}
    yield from _defaults(nb, known)
    at = f"nlbook.run.{profile}.parameters"
    if unknown := sorted(set(given) - set(known)):
        todo = f"that cell has {sorted(known)}: mend the name in the front matter or add it to the cell"
        yield f"{at} sets {unknown}, unknown to the parameters cell", todo
    for key, value in given.items():
        if not isinstance(value, SCALARS):
            yield f"{at}.{key} is {value!r}", "parameters are flat scalars: bool, int, float or str"
        elif (
            profile == "quick"
            and key in known
            and (value, type(value) is bool) != (known[key], type(known[key]) is bool)
        ):
            what = f"the quick run sets {key} = {value!r}, the parameters cell says {known[key]!r}"
            yield what, "put the quick value in the cell: the committed outputs are the quick run's"


def _defaults(nb: NotebookNode, known: dict[str, Any]) -> Iterator[Found]:
    """Read the parameters cell into `known`; what is wrong with it."""
    found = [(i, c) for i, c in _cells(nb) if "parameters" in _tags(c)]
    todo = "one code cell of `name = scalar` lines, `seed = 0` among them, nothing else"
    i, cell = found[0]
    if len(found) != 1 or cell.cell_type != "code":
        yield f"{len(found)} cells tagged `parameters`, the first is {cell.cell_type}", todo
        return
    try:
        for statement in ast.parse(cell.source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if isinstance(
                    ast.literal_eval(value), SCALARS
                ):
                    known[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(ast.unparse(statement))
    except (SyntaxError, ValueError) as e:
        yield f"the parameters cell holds more than flat scalars: {str(e).splitlines()[0]}", todo, i


# -- is the committed file what a clean run leaves?


@named
def form(nb: NotebookNode) -> Iterator[Found]:
    """Stray execution counts, error outputs, widget state, papermill's traces. A notebook that never ran is clean,
    unless it is a chapter."""
    build = "run `nlbook notebooks build`; for a notebook without a text source: restart the kernel, run all, save"
    code = [(i, c) for i, c in _cells(nb) if c.cell_type == "code" and c.source.strip()]
    if not any(c.get("execution_count") or c.outputs for _, c in code):
        if _kind(nb) != "note" and code:
            yield "never executed: it has no outputs", build
    else:
        counted = ((i, c.get("execution_count"), want) for want, (i, c) in enumerate(code, 1))
        for i, n, want in [stray for stray in counted if stray[1] != stray[2]][:1]:
            yield f"execution count {n}, expected {want}: the cells were not run once each, top to bottom", build, i
    for i, o in ((i, o) for i, c in code for o in c.outputs if o.output_type == "error"):
        yield f"an error is saved in its output: {o.get('ename')}: {o.get('evalue')}", f"mend the cell, then {build}", i
    if WIDGET_STATE in nb.metadata:
        yield "widget state is saved in the metadata: viewers without a kernel then show nothing", build
    if added := [i for i, c in _cells(nb) if {"injected-parameters", "papermill-error-cell-tag"} & set(_tags(c))]:
        yield "a cell that papermill put in: this is an executed copy, not the notebook", build, added[0]
    if not isinstance(_dig(nb.metadata, "kernelspec"), dict):
        yield "no kernelspec in the metadata: Lab would ask the reader for a kernel", build


# -- the contract of a chapter


def teaching(nb: NotebookNode, name: str) -> list[Problem]:
    """The teaching contract of a chapter or of the start page; nothing for a note."""
    kind = _kind(nb)
    if kind not in TAGS:
        return [Problem(name, f"nlbook.kind is {kind!r}", f"it is one of {sorted(TAGS)}")]
    if kind == "note":
        return []
    rules = (_front_matter(nb, name), _tag_order(nb, kind), _limits(nb), _pace(nb), _text(nb), _outputs(nb), _stubs(nb))
    return [Problem(name, *found) for rule in rules for found in rule]


def _front_matter(nb: NotebookNode, name: str) -> Iterator[Found]:
    m = nb.metadata.get("nlbook") or {}
    say = "mend the `nlbook:` block of the front matter in notebooks/src"
    given = m.get("number")
    number = given if isinstance(given, str) and re.fullmatch(NUMBER, given) else None
    if number is None:
        yield f"nlbook.number is {given!r}", f'give the chapter\'s number in quotes, such as "07" or "A"; {say}'
    elif not name.startswith(f"{number}_"):
        yield f"nlbook.number is {number}, the file is {name}", "its name begins with the number"
    for key in ("title", "claim"):
        if not isinstance(m.get(key), str) or not m[key].strip():
            yield f"nlbook.{key} is {m.get(key)!r}", f"give one sentence; {say}"
    for key in ("reading", "exercises"):
        minutes = _dig(m, "minutes", key)
        if not _number(minutes) or minutes < 0:
            yield f"nlbook.minutes.{key} is {minutes!r}", f"give minutes; {say}"
    objectives = m.get("objectives")
    if not isinstance(objectives, list) or not objectives:
        todo = f"list what the learner can do afterwards, each {{id, text}}; {say}"
        yield "nlbook.objectives is empty or not a list", todo
    else:
        ids = [o.get("id") if isinstance(o, dict) else None for o in objectives]
        want = ids if number is None else [f"{number}.{k}" for k in range(1, len(ids) + 1)]
        if ids != want:
            yield f"nlbook.objectives have the ids {ids}", f"quoted and numbered in order: {want}; {say}"
        if any(not isinstance(o, dict) or not str(o.get("text") or "").strip() for o in objectives):
            yield "an objective has no text", say
    before = m.get("prerequisites")
    if not isinstance(before, list) or not all(isinstance(p, str) and re.fullmatch(NUMBER, p) for p in before):
        yield f"nlbook.prerequisites is {before!r}", f'give a list of quoted numbers such as ["00", "01"]; {say}'
    elif number is not None and (late := [p for p in before if p >= number]):  # digits come before letters
        yield f"nlbook.prerequisites names {late}", f"a prerequisite comes earlier in the book; {say}"
    equations = m.get("equations")
    if not isinstance(equations, list) or not all(isinstance(e, int) and e in EQUATIONS for e in equations):
        yield f"nlbook.equations is {equations!r}", f"give a list of the paper's equation numbers, 1 to 121; {say}"
    elif len(set(equations)) != len(equations):
        yield "nlbook.equations names one twice", say


def _tag_order(nb: NotebookNode, kind: str) -> Iterator[Found]:
    first: dict[str, int] = {}
    for i, c in _cells(nb):
        for tag in _tags(c):
            first.setdefault(tag, i)
    wanted = TAGS[kind]
    if missing := [t for t in wanted if t not in first]:
        yield f"no cell is tagged {', '.join(missing)}", f"a {kind} has, in this order: {', '.join(wanted)}"
    for before, after in pairwise(t for t in wanted if t in first and t not in ANYWHERE):
        if first[after] < first[before]:
            what = f"the first `{after}` comes before the first `{before}` (cell {first[before]})"
            yield what, f"the order is: {', '.join(wanted)}", first[after]


def _limits(nb: NotebookNode) -> Iterator[Found]:
    move = "move code into the package"
    lines = {i: len(c.source.strip().splitlines()) for i, c in _cells(nb) if c.cell_type == "code" and c.source.strip()}
    if len(nb.cells) > CELLS:
        yield f"{len(nb.cells)} cells", f"at most {CELLS}: split the chapter or {move}"
    if lines and (median := statistics.median(lines.values())) > CODE_MEDIAN:
        yield f"the median code cell has {median:g} lines", f"at most {CODE_MEDIAN}: {move}"
    for i, n in lines.items():
        if n > CODE_LINES:
            yield f"{n} lines of code", f"at most {CODE_LINES}: split the cell or {move}", i
    for i, c in _cells(nb):
        if c.cell_type == "markdown" and (n := words(c.source)) > WORDS:
            yield f"{n} words", f"at most {WORDS}: split the cell, or cut", i


def words(markdown: str) -> int:
    """Words that a reader reads: a formula counts as one, the marks of Markdown and the addresses of links as none."""
    text = re.sub(r"\]\([^)]*\)|<[^>]+>", "] ", MATHS.sub(" x ", markdown))
    return sum(bool(re.search(r"\w", w)) for w in text.split())


def _pace(nb: NotebookNode) -> Iterator[Found]:
    """At least about every ten minutes the reader does something: the reading minutes are spread over the cells by
    their length, a line of code as eight words."""
    reading = _dig(nb.metadata, "nlbook", "minutes", "reading")
    if not _number(reading) or not nb.cells:
        return

    def acts(c: NotebookNode) -> bool:
        return bool(READER_ACTS & set(_tags(c)) or (c.cell_type == "code" and CHECK_CALL.search(c.source)))

    def load(c: NotebookNode) -> int:
        return words(c.source) if c.cell_type == "markdown" else 8 * len(c.source.splitlines())

    minute = reading / (sum(load(c) for c in nb.cells if not acts(c)) or 1)
    since, start = 0.0, 1
    for i, c in _cells(nb):
        since, start = (0.0, i + 1) if acts(c) else (since + load(c) * minute, start)
        if since > GAP_MINUTES:
            what = f"more than {GAP_MINUTES:g} minutes of reading since cell {start} without a prediction or a check"
            yield what, "let the reader predict, check or recall something at least about every ten minutes", i
            since, start = 0.0, i + 1


def _text(nb: NotebookNode) -> Iterator[Found]:
    for i, c in _cells(nb):
        if c.cell_type == "code":
            if found := MAGIC.search(c.source):
                todo = "a chapter is plain Python: no %pip, no shell, no timing"
                yield f"a shell command or a magic: {found.group().strip()}", todo, i
            continue
        if REMOTE_IMAGE.search(c.source):
            yield "a remote image", "draw it in the package, or keep the file in the repository", i
        if found := DIRECTIVE.search(c.source):
            todo = "GitHub and Lab show it as code: use $…$, $$…$$, links, > quotes"
            yield f"a MyST directive or role: {found.group().strip()}", todo, i
        for alt in IMAGE_ALT.findall(c.source):
            if len(alt.split()) < ALT_WORDS:
                todo = f"say in at least {ALT_WORDS} words what it shows"
                yield f"an image whose alternative text is {alt!r}", todo, i


def _outputs(nb: NotebookNode) -> Iterator[Found]:
    for i, o in ((i, o) for i, c in _cells(nb) for o in c.get("outputs", [])):
        data = o.get("data", {})
        if o.output_type == "stream" and o.get("name") == "stderr":
            what = f"a warning is saved in its output: {o.text.strip().splitlines()[0][:80]!r}"
            yield what, "mend its cause, or silence it and say why", i
        texts = [o.get("text", ""), *(str(data.get(k, "")) for k in ("text/plain", "text/html", "text/markdown"))]
        if found := MACHINE_PATH.search("".join(texts)):
            what = f"a path of the building machine is saved in its output: {found.group()}"
            yield what, "print a relative path or a name", i
        if any(k.startswith("image/") for k in data) and len(alt_text(o).split()) < ALT_WORDS:
            todo = f"use viz.load, or viz.show(fig, alt=…) with at least {ALT_WORDS} words on what it shows"
            yield f"a picture whose alternative text is {alt_text(o)!r}", todo, i


def alt_text(output: NotebookNode) -> str:
    """The alternative text of a picture in an output: metadata `image/png`.alt, or alt."""
    m = output.get("metadata", {})
    alts = [m[k]["alt"] for k in m if k.startswith("image/") and isinstance(m[k], dict) and "alt" in m[k]]
    return str([*alts, m.get("alt", "")][0])


def _stubs(nb: NotebookNode) -> Iterator[Found]:
    code = [(i, c) for i, c in _cells(nb) if c.cell_type == "code"]
    for (i, c), (_, after) in zip(code, [*code[1:], (0, None)]):
        if "raise NotImplementedError" not in c.source:
            continue
        if "exercise" not in _tags(c):
            yield "an exercise's stub without the tag `exercise`", "add the tag", i
        if after is None or "check.exercise(" not in after.source:
            yield "an exercise's stub that no check follows", 'let check.exercise("NN-name", function) come next', i


def _cells(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    yield from enumerate(nb.cells, 1)


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _kind(nb: NotebookNode) -> str:
    return (nb.metadata.get("nlbook") or {}).get("kind", "chapter")


def _number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _dig(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
