"""Shared by every test: the marks, and fixed threads so that two workers do not fight over two cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import nlbook_tools.notebooks  # noqa: F401  first, because it shortens the import of nbformat
import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    executed = Path(__file__).resolve().parent.parent / "build" / "executed"
    parser.addoption("--nb-profile", default="quick", choices=["quick", "full"], help="the notebooks' parameters")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too (an hour and more)")
    parser.addoption("--fuzz", type=int, default=2000, help="calls with random input in test_fuzz.py")
    parser.addoption("--nb-out", default=str(executed), help="where executed copies of the notebooks are written")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "eq(*numbers): the test proves these equations of the paper")
    if os.environ.get("NLBOOK_REQUIRE_BROWSER") == "1" and not browser.chromium():
        raise pytest.UsageError("NLBOOK_REQUIRE_BROWSER=1, but no chromium is on the PATH (apt-get install chromium)")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What a fixture failed of is said when it fails: the summary comes after the last test."""
    if report.when == "setup" and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        cause = next((x for x in report.longreprtext.splitlines() if x.startswith("E ")), report.longreprtext[-200:])
        print(f"\nFIXTURE FAILED, {report.nodeid}: {cause}", file=sys.stderr, flush=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: pytest --slow, or make test-full"))


@pytest.fixture
def float64() -> Iterator[None]:
    """Float64 as torch's default dtype for one test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def chromium() -> None:
    """Who asks for it is skipped where no browser is; where one is required, pytest has not even started."""
    if not browser.chromium():
        pytest.skip("no chromium on the PATH: apt-get install chromium, or name one in $CHROMIUM")


@pytest.fixture(scope="module")
def views_page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chromium: None
) -> Iterator[Any]:
    """JupyterLab in a real browser with the pictures of the module's VIEWS run, in a page HEIGHT pixels high."""
    import nbformat

    root = tmp_path_factory.mktemp("lab")
    cells = [
        nbformat.v4.new_code_cell(f'from nlbook.book import viz\nviz.load("{key}")') for key in request.module.VIEWS
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "views.ipynb")
    shots = Path(__file__).resolve().parent.parent / "build" / "shots"
    with browser.lab(root) as server, browser.chrome(shots) as new_page:
        page = new_page(height=request.module.HEIGHT)
        browser.open_notebook(page, server, "views.ipynb")
        browser.run_all(page)
        yield page
