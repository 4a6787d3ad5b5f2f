"""`nlbook paper`: look an equation or a letter up, list the errata, see which equations have code, test and chapter."""

from __future__ import annotations

import json

import click


@click.command("paper")
@click.argument("number", type=int, required=False)
@click.option("--errata", "show_errata", is_flag=True, help="Every printed form that does not hold, and what does.")
@click.option("--coverage", "show_coverage", is_flag=True, help="Which equations have code, a test and a chapter.")
@click.option("--notation", "show_notation", is_flag=True, help="The paper's letters and the words for them in code.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def command(number: int | None, show_errata: bool, show_coverage: bool, show_notation: bool, as_json: bool) -> None:
    """The paper's 121 equations: `nlbook paper 57`, `--errata`, `--coverage`, `--notation`."""
    from nlbook import paper
    from nlbook.book import coverage

    if sum((number is not None, show_errata, show_coverage, show_notation)) != 1:
        raise click.UsageError("say one of: an equation's number, --errata, --coverage, --notation")
    try:
        if show_coverage:
            rows = coverage.coverage()
            click.echo(json.dumps(rows, indent=1) if as_json else coverage_table(rows))
        elif show_errata:
            found = paper.errata()
            click.echo(json.dumps([vars(e) for e in found], indent=1) if as_json else errata_text(found))
        elif show_notation:
            words = paper.notation()
            click.echo(json.dumps([dict(zip(words.columns, r)) for r in words], indent=1) if as_json else str(words))
        elif number is not None:
            e = paper.equation(number)
            code, tests = coverage.places(number)
            root = coverage.checkout()  # an installed book has no chapters
            told = coverage.scan_chapters(root).get(number, ()) if root else ()
            facts = {**vars(e), "code": code, "tests": tests, "chapters": told}
            click.echo(json.dumps(facts, indent=1) if as_json else equation_text(facts, str(e)))
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def equation_text(facts: dict, shown: str) -> str:
    lines = [shown, f"  section {facts['section']}"] + [f"  chapter: {stem}" for stem in facts["chapters"]]
    for name in ("shapes", "note", "check", "definition_only"):
        if facts[name]:
            lines.append(f"  {name.replace('_', ' ')}: {facts[name]}")
    lines += [f"  code: {place}" for place in facts["code"]] + [f"  test: {place}" for place in facts["tests"]]
    return "\n".join(lines)


def errata_text(found) -> str:
    return "\n\n".join(f"{e}\n  shown by {e.test}" for e in found)


def coverage_table(rows: list[dict]) -> str:
    """One line an equation with how many places carry it, and the count."""
    from nlbook import paper

    lines, covered = [f"{'eq.':>4}  {'code':>4}  {'test':>4}  {'chapter':<10}  name"], 0
    for row in rows:
        e = paper.equation(row["number"])
        has = bool(row["code"] or row["tests"])
        covered += has or bool(e.definition_only)
        chapter = " ".join(c.split("_")[0] for c in row["chapter"]) or "-"
        state = e.name if has else f"{e.name} ({'definition only' if e.definition_only else 'not covered'})"
        code, tests = (len(row[k]) or "-" for k in ("code", "tests"))
        lines.append(f"{e.number:>4}  {code:>4}  {tests:>4}  {chapter:<10}  {state}")
    return "\n".join([*lines, f"covered {covered} of {len(rows)}: code, a test, or an explained 'definition only'"])
