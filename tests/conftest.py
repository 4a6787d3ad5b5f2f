"""Shared by every test: the marks, and fixed threads so that two workers do not fight over two cores."""
from __future__ import annotations

import sys

# jsonschema imports rfc3987_syntax, which builds a grammar that nobody here uses: 2 s of CPU in every process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "eq(*numbers): the test proves these equations of the paper")
