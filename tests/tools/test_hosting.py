"""The files that only a host reads: workflows, issue forms, the container, the citation. Each against its schema and
against what the repository has."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
SCHEMAS = {
    "github-workflows": WORKFLOWS,
    "github-issue-forms": FORMS,
    "github-issue-config": [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
}


def check(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_file_keeps_its_schema(schema):
    assert SCHEMAS[schema]
    done = check(schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout


def test_a_broken_workflow_is_noticed(tmp_path):
    (tmp_path / "a.yml").write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert check("github-workflows", tmp_path / "a.yml").returncode == 1


def commands() -> list[str]:
    jobs = [j for w in WORKFLOWS for j in yaml.safe_load(w.read_text())["jobs"].values()]
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_workflows_call_what_there_is_and_ask_for_few_rights():
    make = (ROOT / "Makefile").read_text()
    said = "\n".join(commands())
    for target in re.findall(r"\bmake ([a-z-]+)", said):
        assert re.search(rf"^{target}[ :]", make, re.MULTILINE), target
    for path in re.findall(r"pytest (\S+)", said):
        assert (ROOT / path).exists(), path
    for workflow in WORKFLOWS:
        told = yaml.safe_load(workflow.read_text())
        assert "permissions" in told and all("timeout-minutes" in j for j in told["jobs"].values()), workflow.name
        assert "secrets." not in workflow.read_text()
        assert not re.search(r"run: .*\$\{\{", workflow.read_text())  # what a stranger names is never run as a command


def test_every_python_that_is_promised_is_tested():
    promised = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+", c)}
    tested = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["book"]["strategy"]["matrix"]
    assert promised == set(tested["python"]) == {"3.11", "3.12", "3.13", "3.14"}


def test_the_container_builds_what_the_editor_asks_for():
    told = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    file = (ROOT / ".devcontainer" / told["build"]["dockerfile"]).resolve()
    text = file.read_text()
    assert file == ROOT / "Containerfile" and re.search(rf"^FROM \S+ AS {told['build']['target']}$", text, re.M)
    for copied in re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in copied.split()), copied


def test_badges_are_there_exactly_when_the_project_has_an_address():
    address = PROJECT.get("urls", {}).get("Repository", "")
    badges = re.findall(
        r"\]\((https://colab\S+|https://mybinder\S+|https://codespaces\S+)\)", (ROOT / "README.md").read_text()
    )
    assert bool(badges) == bool(address) and all(address.removeprefix("https://github.com/") in b for b in badges)


def test_the_changelog_has_a_section_for_this_version():
    import nlbook

    assert re.search(
        rf"^## \[{re.escape(nlbook.__version__)}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )


def test_the_places_that_the_changelog_moves_to_exist():
    table = (ROOT / "CHANGELOG.md").read_text().partition("### Moving from 0.1")[2]
    places = re.findall(
        r"`(nlbook[\w.]*)`", " ".join(row.split("|")[2] for row in table.splitlines() if row.count("|") > 2)
    )
    assert len(places) > 15 and not [p for p in places if importlib.util.find_spec(p) is None]
