"""What only the chapters import: checks, pictures, data, the ledger, and a folder for each chapter.

The first cell of a chapter imports from here. Where the extra `book` is not installed, as on a fresh Colab or Kaggle
machine, that import says what is missing and how to get it; nothing is installed by itself.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

_WAYS = {  # an environment variable that the place sets -> the place, and what to do there
    "COLAB_RELEASE_TAG": ("Colab", "%pip install 'nlbook[book]' in a cell of its own, then Runtime > Restart session"),
    "KAGGLE_KERNEL_RUN_TYPE": (
        "Kaggle",
        "switch Internet on under Settings, %pip install 'nlbook[book]' in a cell of its own, then restart",
    ),
}
if _missing := [name for name in ("anywidget", "ipywidgets", "matplotlib", "IPython") if not find_spec(name)]:
    _here = (way for variable, way in _WAYS.items() if variable in os.environ)
    _place, _todo = next(_here, ("this Python", "pip install 'nlbook[book]'"))
    raise ModuleNotFoundError(f"the chapters need {', '.join(_missing)}, which {_place} lacks: {_todo}")
