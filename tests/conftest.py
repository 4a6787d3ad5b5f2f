"""Shared by every test: the marks, and fixed threads so that two workers do not fight over two cores."""
from __future__ import annotations

import sys
from pathlib import Path

# jsonschema imports rfc3987_syntax, which builds a grammar that nobody here uses: 2 s of CPU in every process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    executed = Path(__file__).resolve().parent.parent / "build" / "executed"
    parser.addoption("--nb-profile", default="quick", choices=["quick", "full"], help="the notebooks' parameters")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too (an hour and more)")
    parser.addoption("--nb-out", default=str(executed), help="where executed copies of the notebooks are written")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "eq(*numbers): the test proves these equations of the paper")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: pytest --slow, or make test-full"))
