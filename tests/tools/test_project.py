"""The project itself: its files agree with each other, imports stay light, and nothing of one machine is committed."""

from __future__ import annotations

import ast
import graphlib
import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import nlbook
from nlbook.book.chapters import files

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = [Requirement(r) for r in PROJECT["project"]["dependencies"]]
TEST_GROUP = [Requirement(r) for r in PROJECT["dependency-groups"]["test"]]
EXTRAS = [Requirement(r) for extra in PROJECT["project"]["optional-dependencies"].values() for r in extra]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def tracked() -> list[Path]:
    """Files that git tracks (a checkout only)."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / n for n in names.split("\0") if n and (ROOT / n).is_file()]


# ---- files that must agree -------------------------------------------------------------------------------------------
def test_conda_and_make_install_the_same_book():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert environment["name"] == PROJECT["project"]["name"] and pip == "pip"
    assert python.startswith(f"python {PROJECT['project']['requires-python']},")
    assert packages == {"pip": ["-e .[book]"]}
    installed = re.findall(r"-e '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text())
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert installed and all("book" in (names := set(i.split(","))) and names <= extras for i in installed)


def test_the_library_needs_nothing_of_the_book():
    assert {r.name for r in DEPENDENCIES} == {"numpy", "safetensors", "torch", "triton"}


@pytest.mark.parametrize("missing", ["click", "nbformat"])
def test_the_command_says_what_to_install_where_the_book_is_missing(missing):
    code = (
        f"import sys; sys.modules['{missing}'] = None; from nlbook_tools.cli import main; main(['notebooks', 'check'])"
    )
    done = run("-c", code)
    assert done.returncode == 1 and done.stdout == "", done.stderr
    assert "pip install 'nlbook[book]'" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_constraints_fix_every_dependency_inside_its_range():
    fixed: dict[str, list[Version]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            fixed.setdefault(requirement.name.lower(), []).append(Version(specifier.version))
    for r in [*DEPENDENCIES, *TEST_GROUP, *EXTRAS]:
        assert r.name in fixed, f"{r.name} is not in constraints.txt: run `make lock`"
        assert all(r.specifier.contains(v) for v in fixed[r.name]), f"{r.name} {fixed[r.name]} is not {r.specifier}"


def test_torch_and_triton_belong_together():
    pins = [r for r in map(Requirement, metadata.requires("torch") or []) if r.name == "triton"]
    pins = [r for r in pins if r.marker is None or r.marker.evaluate({"extra": ""})]
    if not pins:
        pytest.skip("this torch names no triton: only the CUDA build does")
    assert all(r.specifier.contains(metadata.version("triton")) for r in pins)


def test_one_version_and_both_licences():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["project"]["dynamic"] == ["version"] and citation["version"] == nlbook.__version__
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert "arXiv:2512.24695" in str(citation["references"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "Attribution 4.0 International" in (ROOT / "LICENSE-TEXT").read_text()
    assert set(PROJECT["project"]["license-files"]) == {"LICENSE", "LICENSE-TEXT"}


def test_the_readme_starts_with_the_two_commands_and_the_model_and_make_has_them():
    readme, make = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    assert readme.index("make lab") < readme.index("make test") < readme.index("plain.py") < 900
    shown = readme.partition("```python\n")[2].partition("```")[0]
    assert len(shown) > 300 and shown in (ROOT / "nlbook/hope/plain.py").read_text()
    for target in set(re.findall(r"\bmake ([a-z][a-z-]*)\b", readme)):
        assert re.search(rf"^{target}[ :]", make, re.MULTILINE), f"README names `make {target}`"


def test_the_answers_of_contributing_are_folders():
    rows = re.findall(r"^\| .* \| `([\w/<>]+)/`", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert len(rows) >= 8
    for place in rows:
        assert list(ROOT.glob(re.sub(r"<\w+>", "*", place))), place


def test_no_chapter_is_missing_from_the_readme():
    chapters = files(ROOT / "notebooks")
    if not chapters:
        pytest.skip("no chapter is built yet")
    readme = (ROOT / "README.md").read_text()
    assert not [c.name for c in chapters if c.stem not in readme]


def test_every_mark_that_is_used_is_registered():
    known = {m.split(":")[0].split("(")[0] for m in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    built_in = {"eq", "parametrize", "skip", "skipif", "usefixtures", "xfail", "timeout", "filterwarnings"}
    for path in (ROOT / "tests").rglob("*.py"):
        used = set(re.findall(r"^\s*@pytest\.mark\.(\w+)", path.read_text(), re.MULTILINE))
        assert used <= known | built_in, (path.name, used - known - built_in)


# ---- packages and imports --------------------------------------------------------------------------------------------
def test_kernels_is_a_plain_folder():
    """A top-level package of that name would shadow Hugging Face's `kernels`."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (ROOT / "kernels" / "nlkernels" / "py.typed").is_file() and (ROOT / "nlbook" / "py.typed").is_file()


HELP = "from nlbook_tools.cli import main; main(['--help'], standalone_mode=False)"
BOOK = ("jupyterlab", "matplotlib", "IPython", "ipywidgets", "papermill", "psutil")
ROOMS = "from nlbook import attention, cms, hope, levels, memory, optim, paper, titans, train; import nlkernels"


@pytest.mark.parametrize(
    ("code", "heavy"), [("import nlbook", (*BOOK, "torch", "numpy")), (HELP, (*BOOK, "torch", "numpy")), (ROOMS, BOOK)]
)
def test_the_first_import_is_light(code, heavy):
    """`import nlbook` and the command line's help load nothing that takes seconds, the library nothing of the book."""
    done = run("-c", f"import sys\n{code}\nprint(*[m for m in {heavy} if m in sys.modules], file=sys.stderr)")
    assert done.returncode == 0 and done.stderr.strip() == "", done.stderr


def test_nlkernels_stands_without_nlbook_and_without_triton():
    code = "import sys; sys.modules['triton'] = None; import nlkernels; sys.exit('nlbook' in sys.modules)"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


# Three floors over the kernels; imports go downwards only.
FLOORS = ("kernels/nlkernels", "nlbook", "nlbook/book", "tools/nlbook_tools")


def modules() -> dict[str, tuple[int, Path]]:
    """Dotted name -> (floor, file) of every module that the wheel holds."""
    found = {}
    for path in sorted(p for top in FLOORS for p in (ROOT / top).rglob("*.py")):
        inside = path.relative_to(ROOT).as_posix()
        floor = max(i for i, top in enumerate(FLOORS) if inside.startswith(top + "/"))
        name = inside.removesuffix(".py").removesuffix("/__init__").removeprefix("kernels/").removeprefix("tools/")
        found[name.replace("/", ".")] = (floor, path)
    return found


def arrows() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports anywhere, also inside a function."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, (_, path) in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {a.name for a in node.names} & set(known)
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{a.name}" for a in node.names}
                found[name] |= {w if w in known else node.module for w in whole if w in known or node.module in known}
        found[name].discard(name)
    return found


def imported(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, `from nlbook import x` counted as nlbook.x."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" for a in node.names} if node.module == "nlbook" else {node.module}
    return names


def test_imports_go_downwards():
    known = modules()
    wrong = [f"{a} imports {b}" for a, others in arrows().items() for b in others if known[b][0] > known[a][0]]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle():
    try:
        tuple(graphlib.TopologicalSorter(arrows()).static_order())
    except graphlib.CycleError as found:
        pytest.fail(" <- ".join(found.args[1]))


def test_kernels_import_torch_and_triton_only():
    allowed = {"torch", "triton", "nlkernels", "numpy", *sys.stdlib_module_names}  # triton interprets with NumPy
    for path in sorted((ROOT / "kernels").rglob("*.py")):
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path.name


def test_the_library_never_touches_the_global_generators():
    """A learner's function runs seeded, inside torch.random.fork_rng, which puts the generator back."""
    seeded = re.compile(r"\btorch\.manual_seed\(|\brandom\.seed\(|\btorch\.(cuda\.)?seed\(")
    for folder in ("nlbook", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert not seeded.search(text) or "fork_rng" in text, path.relative_to(ROOT)


# ---- what must never be committed ------------------------------------------------------------------------------------
PATH_OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+|opt/\w*pypi[\w-]*)/")


def private_hosts() -> set[str]:
    """Hosts of package indexes that this machine is set up with, other than the public ones."""
    settings = [v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "NPM_CONFIG_"))]
    settings += run("-m", "pip", "config", "list").stdout.split()
    urls = re.findall(r"https?://[^\s'\"]+", " ".join(settings))
    hosts = {host for host in (urlparse(u).hostname for u in urls) if host}
    return {h for h in hosts if not h.endswith(("pypi.org", "pytorch.org", "pythonhosted.org", "npmjs.org"))}


def test_no_path_host_or_secret_of_a_machine_is_committed():
    secret = re.compile(r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{30,}|-----BEGIN [A-Z ]*PRIVATE KEY|hf_[A-Za-z]{30,}")
    hosts = private_hosts() - {"localhost", "127.0.0.1"}
    found = []
    for file in tracked():
        text = file.read_bytes().decode("utf-8", errors="ignore")
        if PATH_OF_A_MACHINE.search(text) or secret.search(text) or any(h in text for h in hosts):
            found.append(str(file.relative_to(ROOT)))
    assert not found, found


def test_the_search_for_paths_can_fail():
    assert PATH_OF_A_MACHINE.search("open('" + "/ro" + "ot/data')")
    assert not PATH_OF_A_MACHINE.search("src/work/x, https://example.org/home/page")


def test_committed_files_are_small():
    assert not [f.name for f in tracked() if f.stat().st_size > 2_000_000]
