"""What `pip install` brings: wheel and sdist, built here, installed beside nothing but what they ask for, and used from
a folder outside the repository. Nothing is downloaded: the dependencies are links to those of this environment."""

from __future__ import annotations

import email
import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import nlbook

ROOT = Path(__file__).resolve().parents[2]
BOOKISH = re.compile(r"jupyter|notebook|^ipy|^nb(format|client|convert)|papermill|matplotlib|click|psutil|widget")
LICENCES = {"LICENSE", "LICENSE-TEXT"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=ROOT, check=True, timeout=120)
    return {p.suffix: p for p in out.iterdir()}


@pytest.fixture(scope="module")
def about(built: dict[str, Path]) -> Message:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(wheel.read(name))


def brought(about: Message, extra: str = "") -> set[str]:
    """Names of the distributions that `pip install nlbook[extra]` brings into an empty environment."""
    found: set[str] = set()
    waiting = [(Requirement(r), {extra}) for r in about.get_all("Requires-Dist", [])]
    while waiting:
        r, extras = waiting.pop()
        name = re.sub(r"[-_.]+", "-", r.name).lower()
        if name not in found and (r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras | {""})):
            found.add(name)
            waiting += [(Requirement(n), r.extras) for n in metadata.requires(name) or []]
    return found


@pytest.fixture(scope="module")
def environments(built, about, tmp_path_factory) -> dict[str, Path]:
    """An environment with the wheel alone and one with its extra `book`: the Python of each."""
    return {extra: environment(built[".whl"], brought(about, extra), tmp_path_factory) for extra in ("", "book")}


def environment(wheel: Path, names: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True, timeout=120)
    python = where / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--offline", "--no-deps", "-p", str(python), str(wheel)]
    subprocess.run(uv, check=True, timeout=120)
    (packages,) = where.glob("lib/python*/site-packages")
    for name in names:
        files = metadata.distribution(name).files or []
        for top in {f.parts[0] for f in files if f.parts[0] not in ("..", "__pycache__")}:
            link = packages / top
            if not link.exists():
                link.symlink_to(metadata.distribution(name).locate_file(top))
    return python


def used(python: Path, *words: str, cwd: Path) -> str:
    """What this environment's Python prints, away from the repository and from everything of this one."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NLBOOK_STORE")}
    done = subprocess.run([str(python), *words], cwd=cwd, env=kept, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_the_data_and_the_licences_and_is_small(built, about):
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = set(wheel.namelist())
    assert built[".whl"].stat().st_size < 4_000_000
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"nlbook", "nlkernels", "nlbook_tools"}
    data = {p.name for p in (ROOT / "data").iterdir() if p.is_file()} | {"ledger.json"}
    assert {f"nlbook/_data/{n}" for n in data} <= names
    assert {"nlbook/py.typed", "nlkernels/py.typed", "nlbook/hope/plain.py"} <= names
    assert {n.rsplit("/", 1)[1] for n in names if "/licenses/" in n} == LICENCES
    assert about["Version"] == nlbook.__version__ and set(about.get_all("License-File")) == LICENCES


def test_the_sdist_holds_what_a_clone_needs_and_is_small(built):
    with tarfile.open(built[".gz"]) as sdist:
        names = {n.partition("/")[2] for n in sdist.getnames()}
    assert built[".gz"].stat().st_size < 12_000_000
    wanted = ["README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "notebooks/00_talk_to_it.ipynb", *LICENCES]
    assert {*wanted, "tests/conftest.py", "data/digits.npz", "kernels/nlkernels/py.typed"} <= names
    assert not [n for n in names if n.startswith((".venv", "build/", ".nlbook")) or n.endswith(".pyc")]


def test_the_library_alone_brings_nothing_of_jupyter(about):
    alone, book = brought(about), brought(about, "book")
    assert {"torch", "numpy", "safetensors"} <= alone and not [n for n in alone if BOOKISH.search(n)]
    assert {"jupyterlab", "papermill", "matplotlib", "click"} <= book


def example() -> str:
    """The README's library example."""
    section = (ROOT / "README.md").read_text().partition("## The library")[2]
    return re.search(r"```python\n(.*?)```", section, re.S)[1]


def test_the_readmes_example_runs_with_the_library_alone(environments, tmp_path):
    where = "import nlbook, sys; assert nlbook.__file__.startswith(sys.prefix), nlbook.__file__\n"
    used(environments[""], "-c", where + example(), cwd=tmp_path)
    done = subprocess.run([environments[""].with_name("nlbook")], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'nlbook[book]'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({}, "this Python lacks: pip install 'nlbook[book]'"),
        ({"COLAB_RELEASE_TAG": "1"}, "Colab lacks: %pip"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "Kaggle lacks: switch Internet on"),
    ],
    ids=["here", "Colab", "Kaggle"],
)
def test_a_chapters_first_cell_says_what_a_place_lacks(environments, tmp_path, monkeypatch, place, said):
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    import_ = [environments[""], "-c", "from nlbook.book import check, viz"]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(import_, cwd=tmp_path, env=clean, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: the chapters need anywidget, ipywidgets, matplotlib") and said in last


def test_the_commands_work_from_a_wheel(environments, tmp_path):
    command = str(environments["book"].with_name("nlbook"))
    assert "13 of 13 checks passed" in used(environments["book"], command, "doctor", cwd=tmp_path)
    assert "57" in used(environments["book"], command, "paper", "57", cwd=tmp_path)
    listed = used(environments["book"], command, "ledger", "--list", cwd=tmp_path)
    assert len(listed.splitlines()) > 20 and "not run yet" not in listed
    assert list(tmp_path.iterdir()) == []  # nothing of it writes
