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
import re
import statistics
from collections.abc import Iterator
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
CODE_LINES, CODE_MEDIAN, WORDS, CELLS, ALT_WORDS, GAP_MINUTES = 30, 6, 120, 70, 8, 12.0
EQUATIONS = range(1, 122)
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
    problems = [p for profile in PROFILES for p in runnable(nb, name, profile)]
    unique = list(dict.fromkeys(problems))  # what concerns both profiles is said once
    return unique + form(nb, name) + teaching(nb, name)


# -- may it be started at all?


def runnable(nb: NotebookNode, name: str, profile: str) -> list[Problem]:
    """What keeps this notebook from being run with `profile`: its budgets, its parameters, tags that papermill cannot
    honour."""
    bad = [
        Problem(
            name,
            "tagged raises-exception; papermill fails such a run",
            "show the error with try/except and remove the tag",
            i,
        )
        for i, c in _cells(nb)
        if "raises-exception" in _tags(c)
    ]
    asked = _dig(nb.metadata, "nlbook", "run", profile)
    if not isinstance(asked, dict):
        return [
            *bad,
            Problem(
                name,
                f"no metadata nlbook.run.{profile}",
                f"add to the front matter, under nlbook: run: {{{profile}: {{seconds: 60, memory_mb: 1500}}}}",
            ),
        ]
    for key in ("seconds", "memory_mb"):
        if not _number(asked.get(key)) or asked[key] <= 0:
            bad.append(Problem(name, f"nlbook.run.{profile}.{key} is {asked.get(key)!r}", "give a positive number"))
    if extra := sorted(set(asked) - {"seconds", "memory_mb", "parameters"}):
        bad.append(
            Problem(
                name, f"nlbook.run.{profile} has unknown fields {extra}", "it has seconds, memory_mb and parameters"
            )
        )
    given = asked.get("parameters") or {}
    if not isinstance(given, dict):
        return [
            *bad,
            Problem(name, f"nlbook.run.{profile}.parameters is {given!r}", "give a mapping from name to scalar"),
        ]
    if not any("parameters" in _tags(c) for _, c in _cells(nb)):
        return [
            *bad,
            Problem(
                name,
                "no cell tagged `parameters`",
                "tag the code cell that sets them, near the top: `seed = 0` and the sizes",
            ),
        ]
    known, wrong = parameters(nb, name)
    bad += wrong
    if unknown := sorted(set(given) - set(known)):
        bad.append(
            Problem(
                name,
                f"nlbook.run.{profile}.parameters sets {unknown}, unknown to the parameters cell",
                f"that cell has {sorted(known)}: mend the name in the front matter or add it to the cell",
            )
        )
    for key, value in given.items():
        if not isinstance(value, (bool, int, float, str)):
            bad.append(
                Problem(
                    name,
                    f"nlbook.run.{profile}.parameters.{key} is {value!r}",
                    "parameters are flat scalars: bool, int, float or str",
                )
            )
        elif (
            profile == "quick"
            and key in known
            and not (value == known[key] and isinstance(value, bool) == isinstance(known[key], bool))
        ):
            bad.append(
                Problem(
                    name,
                    f"the quick run sets {key} = {value!r}, the parameters cell says {known[key]!r}",
                    "put the quick value in the cell: the committed outputs are the quick run's",
                )
            )
    return bad


def parameters(nb: NotebookNode, name: str) -> tuple[dict[str, Any], list[Problem]]:
    """The parameters cell as {name: default}, and what is wrong with it."""
    found = [(i, c) for i, c in _cells(nb) if "parameters" in _tags(c)]
    todo = "one code cell of `name = scalar` lines, `seed = 0` among them, nothing else"
    if len(found) != 1 or found[0][1].cell_type != "code":
        return {}, [
            Problem(
                name,
                f"{len(found)} cells tagged `parameters`" if len(found) != 1 else "the parameters cell is not code",
                todo,
            )
        ]
    i, cell = found[0]
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse(cell.source).body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
            if not isinstance(target, ast.Name):
                raise ValueError(ast.unparse(statement))
            values[target.id] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
            if not isinstance(values[target.id], (bool, int, float, str)):
                raise ValueError(ast.unparse(statement))
    except (SyntaxError, ValueError) as e:
        return values, [
            Problem(name, f"the parameters cell holds more than flat scalars: {str(e).splitlines()[0]}", todo, i)
        ]
    return values, []


# -- is the committed file what a clean run leaves?


def form(nb: NotebookNode, name: str) -> list[Problem]:
    """Stray execution counts, error outputs, widget state, papermill's traces. A notebook that never ran is clean,
    unless it is a chapter."""
    build = "run `nlbook notebooks build`; for a notebook without a text source: restart the kernel, run all, save"
    bad = []
    code = [(i, c) for i, c in _cells(nb) if c.cell_type == "code" and c.source.strip()]
    counts = [c.get("execution_count") for _, c in code]
    never_ran = not any(counts) and not any(c.outputs for _, c in code)
    if never_ran and _kind(nb) != "note" and code:
        bad.append(Problem(name, "never executed: it has no outputs", build))
    elif not never_ran:
        stray = next(
            ((i, n, want) for (i, _), n, want in zip(code, counts, range(1, len(code) + 1)) if n != want), None
        )
        if stray:
            i, n, want = stray
            bad.append(
                Problem(
                    name,
                    f"execution count {n}, expected {want}: the cells were not run once each, from top to bottom",
                    build,
                    i,
                )
            )
    for i, c in code:
        for o in c.outputs:
            if o.output_type == "error":
                bad.append(
                    Problem(
                        name,
                        f"an error is saved in its output: {o.get('ename')}: {o.get('evalue')}",
                        f"mend the cell, then {build}",
                        i,
                    )
                )
    if WIDGET_STATE in nb.metadata:
        bad.append(
            Problem(name, "widget state is saved in the metadata: viewers without a kernel then show nothing", build)
        )
    if added := [i for i, c in _cells(nb) if {"injected-parameters", "papermill-error-cell-tag"} & set(_tags(c))]:
        bad.append(
            Problem(name, "a cell that papermill put in: this is an executed copy, not the notebook", build, added[0])
        )
    if not isinstance(_dig(nb.metadata, "kernelspec"), dict):
        bad.append(Problem(name, "no kernelspec in the metadata: Lab would ask the reader for a kernel", build))
    return bad


# -- the contract of a chapter


def teaching(nb: NotebookNode, name: str) -> list[Problem]:
    """The teaching contract of a chapter or of the start page; nothing for a note."""
    kind = _kind(nb)
    if kind not in TAGS:
        return [Problem(name, f"nlbook.kind is {kind!r}", f"it is one of {sorted(TAGS)}")]
    if kind == "note":
        return []
    return [
        *_front_matter(nb, name),
        *_tag_order(nb, name, kind),
        *_limits(nb, name),
        *_pace(nb, name),
        *_text(nb, name),
        *_outputs(nb, name),
        *_exercises(nb, name),
    ]


def _front_matter(nb: NotebookNode, name: str) -> Iterator[Problem]:
    m = nb.metadata.get("nlbook") or {}
    say = "mend the `nlbook:` block of the front matter in notebooks/src"
    given = m.get("number")
    number = int(str(given)) if re.fullmatch(r"\d{1,2}", str(given)) else None  # 7 or "07": YAML's 07 is the former
    if number is None:
        yield Problem(name, f"nlbook.number is {given!r}", f"give the chapter's number; {say}")
    elif name[:3] != f"{number:02d}_":
        yield Problem(
            name, f"nlbook.number is {number}, the file's name begins with {name[:3]!r}", "the two must agree"
        )
    for key in ("title", "claim"):
        if not isinstance(m.get(key), str) or not m[key].strip():
            yield Problem(name, f"nlbook.{key} is {m.get(key)!r}", f"give one sentence; {say}")
    for key in ("reading", "exercises"):
        minutes = _dig(m, "minutes", key)
        if not _number(minutes) or minutes < 0:
            yield Problem(name, f"nlbook.minutes.{key} is {minutes!r}", f"give minutes; {say}")
    objectives = m.get("objectives")
    if not isinstance(objectives, list) or not objectives:
        yield Problem(
            name,
            "nlbook.objectives is empty or not a list",
            f"list what the learner can do afterwards, each {{id, text}}; {say}",
        )
    else:
        ids = [o.get("id") if isinstance(o, dict) else None for o in objectives]
        want = [f"{number:02d}.{k}" for k in range(1, len(ids) + 1)] if isinstance(number, int) else ids
        if ids != want:
            yield Problem(name, f"nlbook.objectives have the ids {ids}", f"quoted and numbered in order: {want}; {say}")
        if any(not isinstance(o, dict) or not str(o.get("text") or "").strip() for o in objectives):
            yield Problem(name, "an objective has no text", say)
    prerequisites = m.get("prerequisites")
    if not isinstance(prerequisites, list) or not all(
        isinstance(p, str) and re.fullmatch(r"\d\d", p) for p in prerequisites
    ):
        yield Problem(
            name,
            f"nlbook.prerequisites is {prerequisites!r}",
            f'give a list of quoted numbers such as ["00", "01"]; {say}',
        )
    elif isinstance(number, int) and (late := [p for p in prerequisites if int(p) >= number]):
        yield Problem(name, f"nlbook.prerequisites names {late}", f"a prerequisite comes earlier in the book; {say}")
    equations = m.get("equations")
    if not isinstance(equations, list) or not all(isinstance(e, int) and e in EQUATIONS for e in equations):
        yield Problem(
            name, f"nlbook.equations is {equations!r}", f"give a list of the paper's equation numbers, 1 to 121; {say}"
        )
    elif len(set(equations)) != len(equations):
        yield Problem(name, "nlbook.equations names one twice", say)


def _tag_order(nb: NotebookNode, name: str, kind: str) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, c in _cells(nb):
        for tag in _tags(c):
            first.setdefault(tag, i)
    wanted = TAGS[kind]
    if missing := [t for t in wanted if t not in first]:
        yield Problem(
            name, f"no cell is tagged {', '.join(missing)}", f"a {kind} has, in this order: {', '.join(wanted)}"
        )
    have = [t for t in wanted if t in first and t not in ANYWHERE]
    for before, after in pairwise(have):
        if first[after] < first[before]:
            yield Problem(
                name,
                f"the first `{after}` comes before the first `{before}` (cell {first[before]})",
                f"the order is: {', '.join(wanted)}",
                first[after],
            )


def _limits(nb: NotebookNode, name: str) -> Iterator[Problem]:
    lines = [len(c.source.strip().splitlines()) for _, c in _cells(nb) if c.cell_type == "code" and c.source.strip()]
    if len(nb.cells) > CELLS:
        yield Problem(
            name, f"{len(nb.cells)} cells", f"at most {CELLS}: split the chapter or move code into the package"
        )
    if lines and statistics.median(lines) > CODE_MEDIAN:
        yield Problem(
            name,
            f"the median code cell has {statistics.median(lines):g} lines",
            f"at most {CODE_MEDIAN}: move code into the package",
        )
    for i, c in _cells(nb):
        if c.cell_type == "code" and (n := len(c.source.strip().splitlines())) > CODE_LINES:
            yield Problem(
                name, f"{n} lines of code", f"at most {CODE_LINES}: split the cell or move code into the package", i
            )
        if c.cell_type == "markdown" and (n := words(c.source)) > WORDS:
            yield Problem(name, f"{n} words", f"at most {WORDS}: split the cell, or cut", i)


def words(markdown: str) -> int:
    """Words that a reader reads: a formula counts as one, the marks of Markdown and the addresses of links as none."""
    text = re.sub(r"\]\([^)]*\)|<[^>]+>", "] ", MATHS.sub(" x ", markdown))
    return sum(bool(re.search(r"\w", w)) for w in text.split())


def _pace(nb: NotebookNode, name: str) -> Iterator[Problem]:
    """At least about every ten minutes the reader does something: the reading minutes are spread over the cells by
    their length."""
    reading = _dig(nb.metadata, "nlbook", "minutes", "reading")
    if not _number(reading) or not nb.cells:
        return
    acts = [
        bool(READER_ACTS & set(_tags(c))) or bool(c.cell_type == "code" and CHECK_CALL.search(c.source))
        for _, c in _cells(nb)
    ]
    load = [
        0.0
        if act
        else words(c.source)
        if c.cell_type == "markdown"
        else 8.0 * len(c.source.splitlines())  # a line of code: 8 words
        for act, (_, c) in zip(acts, _cells(nb))
    ]
    minute = reading / (sum(load) or 1.0)
    since, start = 0.0, 1
    for (i, _), act, weight in zip(_cells(nb), acts, load):
        since = 0.0 if act else since + weight * minute
        start = i + 1 if act else start
        if since > GAP_MINUTES:
            yield Problem(
                name,
                f"more than {GAP_MINUTES:g} minutes of reading since cell {start} without a prediction or a check",
                "let the reader predict, check or recall something at least about every ten minutes",
                i,
            )
            since, start = 0.0, i + 1


def _text(nb: NotebookNode, name: str) -> Iterator[Problem]:
    for i, c in _cells(nb):
        if c.cell_type == "code":
            if found := MAGIC.search(c.source):
                yield Problem(
                    name,
                    f"a shell command or a magic: {found.group().strip()}",
                    "a chapter is plain Python: no %pip, no shell, no timing",
                    i,
                )
            continue
        if REMOTE_IMAGE.search(c.source):
            yield Problem(name, "a remote image", "draw it in the package, or keep the file in the repository", i)
        if found := DIRECTIVE.search(c.source):
            yield Problem(
                name,
                f"a MyST directive or role: {found.group().strip()}",
                "GitHub and Lab show it as code: use $…$, $$…$$, links, > quotes",
                i,
            )
        for alt in IMAGE_ALT.findall(c.source):
            if len(alt.split()) < ALT_WORDS:
                yield Problem(
                    name,
                    f"an image whose alternative text is {alt!r}",
                    f"say in at least {ALT_WORDS} words what it shows",
                    i,
                )


def _outputs(nb: NotebookNode, name: str) -> Iterator[Problem]:
    for i, c in _cells(nb):
        for o in c.get("outputs", []):
            if o.output_type == "stream" and o.get("name") == "stderr":
                yield Problem(
                    name,
                    f"a warning is saved in its output: {o.text.strip().splitlines()[0][:80]!r}",
                    "mend its cause, or silence it and say why",
                    i,
                )
            shown = o.get("text", "") + "".join(
                str(o.get("data", {}).get(k, "")) for k in ("text/plain", "text/html", "text/markdown")
            )
            if found := MACHINE_PATH.search(shown):
                yield Problem(
                    name,
                    f"a path of the building machine is saved in its output: {found.group()}",
                    "print a relative path or a name",
                    i,
                )
            if any(k.startswith("image/") for k in o.get("data", {})) and len(alt_text(o).split()) < ALT_WORDS:
                yield Problem(
                    name,
                    f"a picture whose alternative text is {alt_text(o)!r}",
                    f"use viz.load, or viz.show(fig, alt=…) with at least {ALT_WORDS} words on what it shows",
                    i,
                )


def alt_text(output: NotebookNode) -> str:
    """The alternative text of a picture in an output: metadata `image/png`.alt, or alt."""
    m = output.get("metadata", {})
    return str(
        next(
            (m[k]["alt"] for k in m if k.startswith("image/") and isinstance(m[k], dict) and "alt" in m[k]),
            m.get("alt", ""),
        )
    )


def _exercises(nb: NotebookNode, name: str) -> Iterator[Problem]:
    code = [(i, c) for i, c in _cells(nb) if c.cell_type == "code"]
    for (i, c), (_, after) in zip(code, [*code[1:], (0, None)]):
        if "raise NotImplementedError" not in c.source:
            continue
        if "exercise" not in _tags(c):
            yield Problem(name, "an exercise's stub without the tag `exercise`", "add the tag", i)
        if after is None or "check.exercise(" not in after.source:
            yield Problem(
                name,
                "an exercise's stub that no check follows",
                'let the next code cell be check.exercise("NN-name", function)',
                i,
            )


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
