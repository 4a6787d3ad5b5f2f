"""Text sources and their built images: notebooks/src/*.md (md:myst, what people review) <-> notebooks/*.ipynb
(executed, what readers open).

The text is the source. A conflict in an .ipynb is never merged by hand: take either side and `build`. The built file
is in a normal form that two builds in one environment give byte for byte: cell ids from the content, counts 1..n, no
timings, no widget state, no addresses.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import re
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from nbformat import NotebookNode

from nlbook_tools.notebooks import write_whole
from nlbook_tools.notebooks.contract import WIDGET_VIEW, Problem

if TYPE_CHECKING:
    from nlbook_tools.notebooks.run import Run

FORMAT = {"extension": ".md", "format_name": "myst"}
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
VOLATILE = {"execution", "papermill", "collapsed", "scrolled", "ExecuteTime", "vscode", "colab", "outputId"}
VOLATILE |= {"id", "trusted", "editable", "slideshow"}
KEPT = ("nlbook", "nlbook_build")  # the front matter, and the versions that drew the pictures
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")
KERNEL_FILE = re.compile(r"\S*ipykernel_\d+[/\\]\d+\.py")  # a cell's file name in a warning
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)


class SourceError(Exception):
    """A text source that cannot be read, or that a tool for it is missing; the message says what to do."""


def normal(nb: NotebookNode, stem: str) -> NotebookNode:
    """A copy of `nb` in normal form: nothing that differs between two runs of the same text, nothing that only a live
    kernel can show."""
    nb = nbformat.from_dict(nb)
    nb.cells = [
        c for c in nb.cells if not {"injected-parameters", "papermill-error-cell-tag"} & set(c.metadata.get("tags", []))
    ]
    count = 0
    for c in nb.cells:
        c.metadata = nbformat.from_dict(
            {k: v for k, v in sorted(c.metadata.items()) if k not in VOLATILE and not (k == "tags" and not v)}
        )
        c.source = c.source.strip("\n")
        if c.cell_type != "code":
            continue
        ran = bool(c.get("outputs") or c.get("execution_count"))
        count += ran
        c.execution_count = count if ran else None
        c.outputs = _outputs(c.get("outputs", []), c.execution_count)
    nb.metadata = nbformat.from_dict(
        {
            **{k: nb.metadata[k] for k in KEPT if k in nb.metadata},
            "kernelspec": KERNELSPEC,
            "language_info": {"name": "python"},
        }
    )
    nb.nbformat, nb.nbformat_minor = 4, 5
    _name_cells(nb, stem)
    nbformat.validate(nb)
    return nb


def _outputs(outputs: list[NotebookNode], count: int | None) -> list[NotebookNode]:
    kept: list[NotebookNode] = []
    for o in outputs:
        if o.output_type == "stream":
            o = nbformat.from_dict({"output_type": "stream", "name": o.name, "text": _clean(o.text)})
            if kept and kept[-1].output_type == "stream" and kept[-1].name == o.name:
                kept[-1].text += o.text  # where a stream was cut in two depends on the clock
                continue
        if "data" in o:
            if WIDGET_VIEW in o.data:  # no state is kept: a viewer without a kernel must fall back to the picture
                del o.data[WIDGET_VIEW]
                if set(o.data) <= {"text/plain"}:
                    continue  # a bare widget: its repr says nothing to a reader
            for mime in [m for m in o.data if m.startswith("text/") or m == "image/svg+xml"]:
                o.data[mime] = _clean(o.data[mime])
        if o.output_type == "execute_result":
            o.execution_count = count
        o.pop("transient", None)
        kept.append(o)
    return kept


def _clean(text: str) -> str:
    return KERNEL_FILE.sub("<cell>", ADDRESS.sub("0x…", text))


def _name_cells(nb: NotebookNode, stem: str) -> None:
    """Ids that depend on the text only: the same text gives the same file on every machine."""
    seen: dict[str, int] = {}
    for c in nb.cells:
        digest = hashlib.sha256(f"{stem}:{c.cell_type}:{c.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        c["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def dumps(nb: NotebookNode) -> str:
    return nbformat.writes(nb, version=4).rstrip("\n") + "\n"


def read_text(src: Path) -> NotebookNode:
    """The notebook that a text source says, in normal form, without outputs."""
    if not src.is_file():
        raise SourceError(
            f"there is no text source {src}: name a chapter such as 01 or 01_memory, or write the file first"
        )
    return _parsed(src.read_text(encoding="utf-8-sig"), src)


def _parsed(text: str, src: Path) -> NotebookNode:
    jupytext = _jupytext()
    try:
        return normal(jupytext.reads(text, fmt=FORMAT), src.stem)
    except Exception as e:
        raise SourceError(
            f"{src.name} cannot be read as md:myst: {type(e).__name__}: {str(e).splitlines()[0]}. "
            "Is the YAML between the --- lines sound (quote texts that hold a colon), is every ```{code-cell} closed?"
        ) from None


def build(src: Path, out: Path, **how: Any) -> Run:
    """Execute the text source with its quick parameters in an isolated kernel and write its image, which is the run's
    `nb`.

    Raises NotebookFailed, and then leaves `out` as it was. `how` goes to nlbook_tools.notebooks.run.execute (copy=,
    on_cell=).
    """
    from nlbook_tools.notebooks.run import Failure, NotebookFailed, execute, plan

    try:
        nb = read_text(src)
    except SourceError as e:
        why, _, todo = str(e).partition(": ")
        raise NotebookFailed(Failure(out.name, "text", why, todo)) from None
    done = execute(nb, out.name, plan(nb, out.name, "quick"), cwd=out.parent, **how)
    built = replace(done, nb=image(done.nb, src.stem))
    write_whole(out, dumps(built.nb))
    return built


def image(executed: NotebookNode, stem: str) -> NotebookNode:
    """What is committed of an executed notebook: its normal form, and the versions that made its outputs."""
    executed = nbformat.from_dict(executed)
    executed.metadata["nlbook_build"] = versions()
    return normal(executed, stem)


def versions() -> dict[str, str]:
    """What decides the bytes of the outputs, and may differ elsewhere."""
    return {p: importlib.metadata.version(p).split("+")[0] for p in ("matplotlib", "numpy", "torch")}


def check(src: Path, out: Path) -> list[Problem]:
    """Is `out` the image of `src`, in normal form? Without executing anything."""
    if not src.exists():
        todo = "write one with `nlbook notebooks text`, or remove the notebook"
        return [Problem(out.name, f"it has no text source {src.name}", todo)]
    if not out.exists():
        return [Problem(out.name, "never built", f"run `nlbook notebooks build {src.stem}`")]
    todo = f"run `nlbook notebooks build {src.stem}`, or `… text {src.stem}` if the notebook is the newer one"
    have, want = nbformat.read(out, 4), read_text(src)
    if have.metadata.get("nlbook") != want.metadata.get("nlbook"):
        return [Problem(out.name, f"its metadata differs from the front matter of {src.name}", todo)]
    a, b = _told(have), _told(want)
    if a != b:
        i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        return [Problem(out.name, f"differs from {src.name}", todo, i + 1)]
    if dumps(normal(have, src.stem)) != out.read_text(encoding="utf-8"):
        todo = f"run `nlbook notebooks build {src.stem}`"
        return [Problem(out.name, "not in normal form: a run by hand was saved", todo)]
    return []


def _told(nb: NotebookNode) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    return [(c.cell_type, c.source, dict(c.metadata), c.get("attachments") or {}) for c in normal(nb, "").cells]


def write_text(notebook: Path, src: Path) -> None:
    """After an edit in Lab: the notebook's cells and metadata into its text source.

    A front matter that says the same as before keeps its hand-written layout. SourceError, and `src` stays as it was,
    if the text would not be read back as the same cells: a pasted picture, a line `+++`, U+2028, a lone CR.
    """
    nb = normal(nbformat.read(notebook, 4), notebook.stem)
    told = _told(nb)
    nb.metadata.pop("nlbook_build", None)
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}  # jupytext: ```{code-cell} ipython3
    for c in nb.cells:
        c.pop("id", None)
    nb.metadata["jupytext"] = {
        "notebook_metadata_filter": "kernelspec,nlbook,-language_info,-jupytext",
        "cell_metadata_filter": "all",
    }
    text = _jupytext().writes(nb, fmt=FORMAT)
    old = FRONT_MATTER.match(src.read_text(encoding="utf-8-sig")) if src.exists() else None
    if old and read_text(src).metadata.get("nlbook") == nb.metadata.get("nlbook"):
        text = FRONT_MATTER.sub(lambda _: old.group(), text, count=1)
    text = text.rstrip("\n") + "\n"
    back = _told(_parsed("\n".join(text.splitlines()), src))
    if lost := [i for i, (a, b) in enumerate(zip_longest(told, back), 1) if a != b]:
        raise SourceError(
            f"cell {lost[0]} of {notebook.name} would not be read back from {src.name} as it is: it holds a pasted "
            "picture (put it into notebooks/images), a line `+++`, or a line end that is none (U+2028, a lone CR)"
        )
    write_whole(src, text)


def same_outputs(a: NotebookNode, b: NotebookNode, tolerance: float = 0.0, images: bool = True) -> list[str]:
    """The cells whose outputs differ between two runs of one notebook: one line each, empty if they are the same.

    With `tolerance` 0 texts and image bytes must be equal. Otherwise a number in a text may differ by that fraction of
    itself, or by 1e-6, and a picture by that fraction of the full scale on average: other processors round otherwise.
    `images=False` only counts the pictures: another version of matplotlib draws them anew. A cell with the tag "varies"
    shows what training came to, which rounding can move far: with a tolerance, its words must agree, not its numbers.
    """
    a, b = normal(a, ""), normal(b, "")
    if [c.source for c in a.cells] != [c.source for c in b.cells]:
        return ["the two notebooks do not have the same cells"]
    bad = []
    for i, (x, y) in enumerate(zip(a.cells, b.cells), 1):
        shown, again = _shown(x), _shown(y)
        far = tolerance > 0 and "varies" in x.metadata.get("tags", [])
        if [m for m, _ in shown] != [m for m, _ in again]:
            bad.append(f"cell {i}: shows {[m for m, _ in shown]}, then {[m for m, _ in again]}")
            continue
        for (mime, was), (_, now) in zip(shown, again):
            if mime.startswith("image/"):
                if images and not far and not _same_picture(was, now, tolerance):
                    bad.append(f"cell {i}: another picture ({mime})")
            elif not _same_text(was, now, float("inf") if far else tolerance):
                bad.append(f"cell {i}: {_first_difference(was, now)}")
    return bad


def _shown(cell: NotebookNode) -> list[tuple[str, str]]:
    """(mime type, content) of everything that a reader of the saved notebook sees under this cell."""
    shown: list[tuple[str, str]] = []
    for o in cell.get("outputs", []):
        shown += sorted(o.data.items()) if "data" in o else [(o.output_type, o.get("text", ""))]
    return [(mime, value) for mime, value in shown if isinstance(value, str)]


def _same_text(a: str, b: str, tolerance: float) -> bool:
    if a == b or not tolerance:
        return a == b
    x, y = [float(n) for n in NUMBER.findall(a)], [float(n) for n in NUMBER.findall(b)]
    rest = [re.sub(r"\s+", " ", NUMBER.sub("#", t)) for t in (a, b)]  # columns move when a digit comes or goes
    return rest[0] == rest[1] and all(abs(p - q) <= max(1e-6, tolerance * max(abs(p), abs(q))) for p, q in zip(x, y))


def _same_picture(a: str, b: str, tolerance: float) -> bool:
    if a == b or not tolerance:
        return a == b
    import numpy as np
    from matplotlib.image import imread

    try:
        x, y = (imread(io.BytesIO(base64.b64decode(p))) for p in (a, b))
    except Exception:  # not a PNG: only equal bytes are the same picture
        return False
    return x.shape == y.shape and float(np.abs(x - y).mean()) <= tolerance


def _first_difference(a: str, b: str) -> str:
    """The first line that differs, in both."""
    pairs = zip_longest(a.splitlines(), b.splitlines(), fillvalue="(nothing)")
    return ", then ".join(repr(line.strip()[:120]) for line in next((p for p in pairs if p[0] != p[1]), (a, b)))


def _jupytext() -> Any:
    try:
        import jupytext
    except ImportError:
        raise SourceError(
            "text sources need jupytext, which is not installed: run `make dev`, or install the test group "
            "(`uv pip install --group test -e .`)"
        ) from None
    return jupytext
