"""Write environment.yml from pyproject.toml, the one place where dependencies are written (`--check`: only compare)."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "environment.yml"


def text() -> str:
    """What environment.yml should hold."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = "\n".join(f'      - "{d}"' for d in project["dependencies"])
    return f"""\
# Made by tools/sync_env.py from pyproject.toml: change that file, then run `make env-file`.
#   conda env create -f environment.yml && conda activate {project["name"]}
# Only Python comes from conda. The rest comes from PyPI, so that conda, pip and uv users run the same builds.
# Linux without a GPU: PyPI's torch is the CUDA build (several GB). For the CPU build, first:
#   export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
name: {project["name"]}
channels: [conda-forge, nodefaults]
dependencies:
  - "python {project["requires-python"]},<3.14"
  - pip
  - pip:
{lines}
      - "-e ."
"""


def main(arguments: list[str]) -> None:
    if "--check" not in arguments:
        TARGET.write_text(text(), encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text():
        sys.exit("environment.yml is not what pyproject.toml gives: run `make env-file`")


if __name__ == "__main__":
    main(sys.argv[1:])
