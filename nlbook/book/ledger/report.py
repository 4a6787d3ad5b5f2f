"""From outcomes to what is kept: ledger.json (all numbers), ledger.md (to read), one small picture a row."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nlbook.book.chapters import FOLDERS
from nlbook.book.ledger.code import code_hash
from nlbook.book.ledger.engine import Outcome, run, settings_hash
from nlbook.book.ledger.row import Cell, Results, Row, gather
from nlbook.book.ledger.tables import spread
from nlbook.book.ledger.verdicts import SYMBOLS, WORDS
from nlbook.errors import NLBookError
from nlbook.paper.show import table as markdown_table
from nlbook.paper.words import Table

Entry = dict[str, Any]


def enter(row: Row, profile: str, run_cells: Callable[[Sequence[Cell]], list[Outcome]]) -> Entry:
    """Run a row: tune, evaluate, judge. run_cells: cells -> outcomes (the engine with its options)."""
    trials = row.tuning(profile)
    tried = run_cells(trials)
    cells = row.cells(profile, gather(trials, _numbers(trials, tried)))
    found = run_cells(cells)
    results = gather(cells, _numbers(cells, found))
    failed = {c.name: o.error.strip().splitlines()[-1] for c, o in [*zip(trials, tried), *zip(cells, found)] if o.error}
    try:
        verdict = asdict(row.judge(results))
    except NLBookError as e:
        if not failed:
            raise
        verdict = {"word": "", "because": f"No verdict: runs failed ({e})."}
    return {
        "id": row.id,
        "title": row.title,
        "source": row.source,
        "verdict": verdict,
        "rule": row.rule,
        "paper": _plain(row.paper),
        "results": results,
        "tuning": [_kept(c, o) for c, o in zip(trials, tried)],
        "cells": [_kept(c, o) for c, o in zip(cells, found)],
        "failed": failed,
        "profile": profile,
        "cpu_seconds": round(sum(o.cpu for o in [*tried, *found]), 1),
        "made": today(),
        "versions": versions(),
        "command": command(row, profile),
    }


def enter_all(
    rows: Sequence[Row], profile: str, *, on_row: Callable[[Row, Entry], None] | None = None, **engine: Any
) -> list[Entry]:
    """`enter` for each row; keyword arguments go to `nlbook.book.ledger.engine.run`.

    The cells of all rows are run together, first those of the tuning and then the others, each once even where rows
    share it: processes start twice, not twice a row.
    """
    done: dict[str, Outcome] = {}

    def fetch(cells: Sequence[Cell]) -> list[Outcome]:
        new = {settings_hash(c): c for c in cells if settings_hash(c) not in done}
        done.update(zip(new, run(list(new.values()), **engine), strict=True))
        return [done[settings_hash(c)] for c in cells]

    trials = {row.id: row.tuning(profile) for row in rows}
    fetch([c for cells in trials.values() for c in cells])
    fetch(
        [
            c
            for row in rows
            for c in row.cells(profile, gather(trials[row.id], _numbers(trials[row.id], fetch(trials[row.id]))))
        ]
    )
    out = []
    for row in rows:
        out.append(enter(row, profile, fetch))
        if on_row is not None:
            on_row(row, out[-1])
    return out


def command(row: Row, profile: str) -> str:
    return f"nlbook ledger --only {row.id}" + ("" if profile == "quick" else f" --profile {profile}")


def today() -> str:
    """The day, as 2026-01-31; SOURCE_DATE_EPOCH (seconds since 1970) sets it."""
    now = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.datetime.fromtimestamp(int(now), datetime.UTC) if now else datetime.datetime.now(datetime.UTC)
    return moment.date().isoformat()


def versions() -> dict[str, str]:
    import torch

    import nlbook

    return {"nlbook": nlbook.__version__, "python": platform.python_version(), "torch": torch.__version__}


def _numbers(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    return {c.name: o.numbers for c, o in zip(cells, outcomes, strict=True) if o.error is None}


def _kept(cell: Cell, outcome: Outcome) -> Entry:
    return {
        "name": cell.name,
        "function": cell.function,
        "settings": cell.settings,
        "hash": settings_hash(cell),
        "code": code_hash(cell.function),
        "numbers": outcome.numbers,
        "cpu_seconds": outcome.cpu,
    }


def _plain(paper: Table | str) -> Any:
    return (
        paper
        if isinstance(paper, str)
        else {"title": paper.title, "columns": list(paper.columns), "rows": [list(r) for r in paper.rows]}
    )


# ---------------------------------------------------------------------- files
def ledger_file(folder: Path, profile: str) -> Path:
    """ledger.json for the quick profile, ledger-full.json for the full one."""
    return folder / ("ledger.json" if profile == "quick" else f"ledger-{profile}.json")


def load(file: Path) -> dict[str, Entry]:
    """The entries of a ledger file by id; {} where there is none."""
    if not file.is_file():
        return {}
    return {e["id"]: e for e in json.loads(file.read_text(encoding="utf-8"))["rows"]}


def write(entries: Sequence[Entry], rows: Sequence[Row], folder: Path, profile: str) -> list[Path]:
    """Write the ledger: new entries replace those of the same id, other rows keep theirs. Returns what was written."""
    file = ledger_file(folder, profile)
    held = load(file) | {e["id"]: e for e in entries}
    held |= {r.id: held[r.id] | words(r) for r in rows if r.id in held}
    kept = [held[r.id] for r in rows if r.id in held]
    folder.mkdir(parents=True, exist_ok=True)
    written = [file]
    for row in rows:
        if row.figure is not None and row.id in held and not held[row.id]["failed"]:
            picture, alt = row.figure(held[row.id]["results"])
            path = folder / "images" / "ledger" / f"{row.id}{'' if profile == 'quick' else '-' + profile}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.savefig(path, dpi=100, metadata={"Software": None})
            held[row.id]["figure"] = {"file": path.relative_to(folder).as_posix(), "alt": alt}
            written.append(path)
    file.write_text(_json({"profile": profile, "rows": kept}) + "\n", encoding="utf-8")
    page = file.with_suffix(".md")
    page.write_text(markdown(kept, rows, profile), encoding="utf-8")
    return [*written, page]


def _json(x: Any, depth: int = 0) -> str:
    """JSON that diffs well: a short thing on one line, a long one opened up; keys stay in their order."""
    flat = json.dumps(x, ensure_ascii=False)
    if len(flat) + depth <= 200 or not isinstance(x, dict | list) or not x:
        return flat
    inner, pad = depth + 1, " " * (depth + 1)
    if isinstance(x, dict):
        parts = [f"{pad}{json.dumps(k, ensure_ascii=False)}: {_json(v, inner)}" for k, v in x.items()]
    else:
        parts = [pad + _json(v, inner) for v in x]
    a, b = "{}" if isinstance(x, dict) else "[]"
    return a + "\n" + ",\n".join(parts) + "\n" + " " * depth + b


def words(row: Row) -> Entry:
    """What a row says in words, as it is now: so that the file can be read without this package."""
    return {"claim": row.claim, "limits": row.limits, "scale": row.scale, "look": [*row.chapters, *row.evidence]}


def markdown(entries: Sequence[Entry], rows: Sequence[Row], profile: str) -> str:
    """The page: a summary, then a section for each row."""
    known = {r.id: r for r in rows}
    head = [
        (
            f"[{e['source']}](#{anchor(e)})",
            e["title"],
            shown(e["verdict"]["word"]),
            known[e["id"]].scale.split(":")[0].rstrip("."),
        )
        for e in entries
    ]
    count = {w: sum(e["verdict"]["word"] == w for e in entries) for w in WORDS}
    runs = {c["hash"]: c["cpu_seconds"] for e in entries for c in [*e["tuning"], *e["cells"]]}  # rows share some
    total = sum(runs.values()) / 60
    intro = [
        "# The ledger",
        "What the paper claims, what a small counterpart of it shows, and how that was decided. Each "
        "rule below was written, and committed, before the run that it judges. Nothing here is at the paper's scale.",
        f"This page is written by `nlbook ledger{'' if profile == 'quick' else ' --profile ' + profile}` (about "
        f"{max(1, round(total))} minute{'s' if round(total) > 1 else ''} of processor time); the numbers of every run "
        "are in "
        f"`{'ledger' if profile == 'quick' else 'ledger-' + profile}.json`.",
        ", ".join(f"{shown(w)} {n}" for w, n in count.items() if n) + '. "At the paper\'s size" is a verdict of its '
        "own: what a claim says of models and data that no test here can reach.",
        markdown_table(("source", "what", "verdict of the small counterpart", "at the paper's size"), head),
    ]
    return "\n\n".join([*intro, *(section(known[e["id"]], e) for e in entries)]) + "\n"


def anchor(entry: Entry) -> str:
    """The anchor that a heading gets on the web."""
    text = f"{entry['source']}: {entry['title']}".lower()
    return "".join(c for c in text if c.isalnum() or c in " -_").replace(" ", "-")


def shown(word: str) -> str:
    return f"{SYMBOLS[word]} {word}" if word else "no verdict"


def section(row: Row, e: Entry) -> str:
    paper = row.paper if isinstance(row.paper, str) else row.paper.markdown()
    scale = [f"**At the paper's size:** {row.scale}"] if row.scale else []
    look = (
        [f"**Look at:** {', '.join(looked(x) for x in [*row.chapters, *row.evidence])}"]
        if (row.chapters or row.evidence)
        else []
    )
    tuned = [f"**Chosen on the tuning seeds:** {choices(e)}"] if e["tuning"] else []
    ours = (
        [
            f"**Ours** ({e['profile']}; {seeds(e)}; {e['cpu_seconds'] / 60:.1f} minutes of processor time)",
            our_table(row, e["results"]),
        ]
        if e["results"]
        else []
    )
    figure = [f"![{e['figure']['alt']}]({e['figure']['file']})"] if "figure" in e else []
    broken = "; ".join(f"{k}: {v}" for k, v in sorted(e["failed"].items()))
    failed = [f"**Failed runs:** {broken}"] if broken else []
    return "\n\n".join(
        [
            f"## {e['source']}: {e['title']}",
            f"**Verdict: {shown(e['verdict']['word'])}.** {e['verdict']['because']}",
            f"**The paper says:** {row.claim}",
            f"**The paper's numbers**\n\n{paper}",
            *ours,
            *figure,
            f"**Set-up:** {row.setup}" + (f" **Baselines:** {row.baselines}" if row.baselines else ""),
            *tuned,
            f"**Rule, written before the run:** {row.rule}",
            f"**What this does not show:** {row.limits}",
            *scale,
            *look,
            *failed,
            f"    {e['command']}",
        ]
    )


def looked(x: str) -> str:
    return f"chapter {x}" if x in FOLDERS else f"`{x}`"


def seeds(e: Entry) -> str:
    found = {c["settings"]["seed"] for c in e["cells"] if "seed" in c["settings"]}
    many = f"mean ± standard deviation over {len(found)} seeds"
    return many if len(found) > 1 else "one run: there is no chance in it"


def choices(e: Entry) -> str:
    """What tuning varied, and what each method chose."""
    tries: dict[str, list[Entry]] = {}
    for c in e["tuning"]:
        tries.setdefault(_method(c), []).append(c["settings"])
    varied = {
        m: sorted(k for k in s[0] if k != "seed" and len({json.dumps(x[k]) for x in s}) > 1) for m, s in tries.items()
    }
    picked: dict[str, list[str]] = {}
    for c in e["cells"]:
        own = max((m for m in tries if _method(c).startswith(m)), key=len, default="")
        words = ", ".join(f"{k} {c['settings'][k]}" for k in varied.get(own, ()) if k in c["settings"])
        if words and own not in picked.setdefault(words, []):
            picked[words].append(own)
    return "; ".join(f"{', '.join(methods)}: {words}" for words, methods in picked.items()) + "."


def _method(cell: Entry) -> str:
    return cell["name"].split(" @ ")[0].split(" #")[0]


def our_table(row: Row, results: Results) -> str:
    if row.table is not None:
        return markdown_table(*row.table(results))
    names = sorted({m for g in results.values() for m in g})
    columns = row.columns or [(m, m, ".3f") for m in names]
    return markdown_table(
        ("", *(h for _, h, _ in columns)),
        [(g, *(spread(results, g, m, f) if m in results[g] else "" for m, _, f in columns)) for g in results],
    )


# ---------------------------------------------------------------------- in step
def out_of_step(rows: Sequence[Row], folder: Path, profile: str = "quick") -> tuple[list[str], list[str]]:
    """What is wrong with a kept ledger, and what is merely old: rows without an entry, entries without a row, another
    rule, other settings or other words on the page are wrong; numbers made by older code are old.
    """
    file = ledger_file(folder, profile)
    held, wrong, old = load(file), [], []
    wrong += [f"{r.id}: has no entry" for r in rows if r.id not in held]
    wrong += [f"{i}: has an entry, but no row" for i in held if i not in {r.id for r in rows}]
    for row in rows:
        e = held.get(row.id)
        if e is None:
            continue
        trials = row.tuning(profile)
        tuned = gather(trials, {c["name"]: c["numbers"] for c in e["tuning"] if c["name"] not in e["failed"]})
        cells = [*trials, *row.cells(profile, tuned)]
        if row.rule != e["rule"]:
            wrong.append(f"{row.id}: the rule has changed since the run")
        if [settings_hash(c) for c in cells] != [c["hash"] for c in [*e["tuning"], *e["cells"]]]:
            wrong.append(f"{row.id}: the settings have changed since the run")
        elif any(code_hash(c.function) != k["code"] for c, k in zip(cells, [*e["tuning"], *e["cells"]])):
            old.append(f"{row.id}: its numbers were made by older code")
        if not e["failed"] and asdict(row.judge(e["results"])) != e["verdict"]:
            wrong.append(f"{row.id}: its verdict does not follow from its numbers")
    page = file.with_suffix(".md")
    if not wrong and (
        not page.is_file() or page.read_text(encoding="utf-8") != markdown([held[r.id] for r in rows], rows, profile)
    ):
        wrong.append(f"{page.name}: is not what its numbers say")
    return wrong, old
