"""Where predictions and results are kept: small JSON files in `.nlbook/` beside the notebook, or in $NLBOOK_STORE.

Nothing leaves the machine. Where the folder cannot be written the session keeps them in memory: a read-only
notebook still runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_memory: dict[str, dict[str, Any]] = {}


def folder() -> Path:
    """The store's folder; the variable is read at each call, so a test can move it."""
    named = os.environ.get("NLBOOK_STORE")
    return Path(named) if named else Path.cwd() / ".nlbook"


def load(name: str) -> dict[str, Any]:
    """The records of `name`; a file that is not JSON is set aside as `.broken`, never overwritten."""
    path = folder() / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        raise ValueError("not a table")
    except FileNotFoundError:
        pass
    except ValueError:
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".broken"))
    except OSError:
        pass
    return json.loads(json.dumps(_memory.get(str(path), {})))


def save(name: str, records: dict[str, Any]) -> bool:
    """Write the records in one move; False when they could only be kept in memory."""
    path = folder() / f"{name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(records, file, indent=1, ensure_ascii=False, sort_keys=True)
        os.replace(temporary, path)
        _memory.pop(str(path), None)
        return True
    except OSError:
        _memory[str(path)] = records
        return False


def now() -> str:
    """The time, in UTC, as it is stored."""
    return datetime.now(UTC).isoformat(timespec="seconds")
