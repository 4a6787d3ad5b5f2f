"""Is this machine ready for the book? Each check says ok, warn or fail, what it found, and what to do.

    from nlbook_tools import doctor
    print(doctor.summary())      # one line, the same on every machine that is ready
    print(doctor.check())        # everything, with versions

A warning costs a convenience (no GPU tests, no browser test), a failure breaks a chapter.
"""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import os
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout, where there is one
OK, WARN, FAIL = "ok", "warn", "fail"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Check:
    """One finding. `mend` says what to do and is empty where nothing is."""

    name: str
    status: str
    found: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.status:<5} {self.name:<10} {self.found}" + (f"\n{'':17}-> {self.mend}" if self.mend else "")


class Report(tuple[Check, ...]):
    """All findings, in a fixed order and number."""

    @property
    def ready(self) -> bool:
        return all(c.status != FAIL for c in self)

    def summary(self) -> str:
        """One line without versions, paths or counts of hardware; the failures, if any, below it."""
        failed = [c for c in self if c.status == FAIL]
        head = f"{'Ready' if self.ready else 'Not ready'}: {len(self) - len(failed)} of {len(self)} checks passed"
        return "\n".join([head, *(f"  {c.name}: {c.mend}" for c in failed)])

    def __str__(self) -> str:
        return "\n".join([*map(str, self), self.summary()])

    __repr__ = __str__


Finding = tuple[str, str] | tuple[str, str, str]  # status, what was found, what to do


# ---- the checks ------------------------------------------------------------------------------------------------------
def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= (3, 15):  # older than 3.11 cannot even install nlbook
        return WARN, found, "the book is tested on 3.11 to 3.14; if it breaks: `make clean setup PY=python3.14`"
    return OK, found


def requirements() -> list[str]:
    """The dependencies of library and book as pyproject.toml states them; outside a checkout, as the package does."""
    if (ROOT / "pyproject.toml").is_file():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["book"]]
    return [r for r in metadata.requires("nlbook") or [] if "extra ==" not in r or "'book'" in r or '"book"' in r]


def _problems(required: list[str]) -> Iterator[str]:
    from packaging.requirements import Requirement

    for text in required:
        r = Requirement(text)
        if r.marker and not r.marker.evaluate({"extra": "book"}):
            continue
        try:
            version = metadata.version(r.name)
        except metadata.PackageNotFoundError:
            yield f"{r.name} is missing"
            continue
        if not r.specifier.contains(version, prereleases=True):
            yield f"{r.name} {version} is not {r.specifier}"


def _packages() -> Finding:
    required = requirements()
    if problems := list(_problems(required)):
        return FAIL, "; ".join(problems), "`make setup` (or `pip install 'nlbook[book]'` again) brings them into range"
    return OK, f"{len(required)} dependencies in range"


def _torch() -> Finding:
    import torch

    if not torch.equal(torch.ones(2, 2) @ torch.ones(2, 2), torch.full((2, 2), 2.0)):
        return FAIL, f"{torch.__version__} multiplies wrongly", "remove .venv, then `make setup`"
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if not torch.version.cuda and shutil.which("nvidia-smi"):
        return WARN, f"{torch.__version__}, CPU build beside a GPU", "to use the GPU: `make clean setup TORCH=auto`"
    return OK, f"{torch.__version__}, {build} build"


def _triton() -> Finding:
    if sys.platform != "linux":
        return OK, "not published for this system: the chunked forms run everywhere"
    from packaging.requirements import Requirement

    try:
        version = metadata.version("triton")
        importlib.import_module("triton")
    except (metadata.PackageNotFoundError, ImportError) as error:
        return WARN, f"not importable ({error})", "chapter B needs it: `make setup`"
    pins = [Requirement(r) for r in metadata.requires("torch") or [] if Requirement(r).name == "triton"]
    for pin in pins:  # the CUDA wheel names the triton it was built with; the CPU wheel names none
        if (pin.marker is None or pin.marker.evaluate({"extra": ""})) and not pin.specifier.contains(version):
            return FAIL, f"{version}, but torch needs {pin.specifier}", f"pip install 'triton{pin.specifier}'"
    return OK, f"{version}, fits torch"


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return OK, "none: every chapter runs on the CPU"
    major, minor = torch.cuda.get_device_capability()
    found = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
    if major < 8:
        return WARN, found, "below 8.0 the fused kernels are not used; the chunked forms are"
    return OK, found


def _cores() -> Finding:
    import psutil

    usable = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1
    if usable < 2:
        return WARN, f"{usable} core", "the chapters were timed on two cores: allow twice the minutes"
    return OK, f"{usable} cores"


def _memory() -> Finding:
    import psutil

    gib = psutil.virtual_memory().available / 2**30
    if gib < 2:
        return WARN, f"{gib:.1f} GiB free", "close other programs: a chapter needs up to 1.5 GiB"
    return OK, f"{gib:.1f} GiB free"


def _chromium() -> Finding:
    place = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if place is None:
        return WARN, "not found", "only the browser test needs it: `apt-get install chromium`"
    return OK, place


def _fonts() -> Finding:
    from matplotlib import font_manager

    try:
        return OK, font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    except ValueError:
        return WARN, "DejaVu Sans not found", "pictures fall back to another font: reinstall matplotlib"


def _kernels() -> Finding:
    try:
        module = importlib.import_module("nlkernels")
    except ImportError as error:
        return FAIL, str(error), "`make setup` installs nlkernels with nlbook"
    return OK, f"nlkernels at {Path(module.__file__ or '').parent}"


def _store() -> Finding:
    named = os.environ.get("NLBOOK_STORE")
    place = Path(named) if named else Path.cwd() / ".nlbook"
    existing = next(p for p in (place, *place.absolute().parents) if p.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return OK, f"predictions are kept in {place}"
    except OSError as error:
        return FAIL, f"{place}: {error.strerror}", "set NLBOOK_STORE to a folder that you may write"


def _data() -> Finding:
    from nlbook.book import data
    from nlbook.errors import NLBookError

    try:
        names = [data.path(name).name for name in data.checksums()]
    except NLBookError as error:
        return FAIL, str(error), "`git checkout -- data`, or reinstall nlbook"
    return OK, f"{len(names)} file{'s' * (len(names) != 1)} as in checksums.txt"


def _notebooks() -> Finding:
    from nlbook.book.chapters import files

    found = files(ROOT / "notebooks")
    if not found:
        return WARN, "none here", "the chapters are in the repository: clone it; `make book` builds them"
    return OK, f"{len(found)} chapter{'s' * (len(found) != 1)}, {found[0].name} first"


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "packages": _packages,
    "torch": _torch,
    "triton": _triton,
    "gpu": _gpu,
    "cores": _cores,
    "memory": _memory,
    "chromium": _chromium,
    "fonts": _fonts,
    "kernels": _kernels,
    "store": _store,
    "data": _data,
    "notebooks": _notebooks,
}


def _run(name: str, look: Callable[[], Finding]) -> Check:
    try:
        return Check(name, *look())
    except Exception as error:  # a check that breaks is a finding, not a crash of the doctor
        return Check(name, FAIL, f"{type(error).__name__}: {error}", "`make setup`; if it stays, report this line")


def check() -> Report:
    """Run every check. The number and the order of the findings are the same on every machine."""
    return Report(_run(name, look) for name, look in CHECKS.items())


def summary() -> str:
    """`check().summary()`: the same text on every machine that is ready, fit for a notebook that is committed."""
    return check().summary()
