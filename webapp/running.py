"""Where the stack of `ops up` is, as it says itself in its data folder: its note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The folder that a relative data folder stands in, for `ops` as for all others.
ROOT = Path(__file__).resolve().parent.parent


def note_of(data_dir: Path) -> Path:
    """The file in which the stack of a data folder says where it is."""
    return ROOT / data_dir / "run" / "stack.json"


def read_note(data_dir: Path) -> dict[str, Any]:
    """What the stack of a data folder says of itself; empty when it is down or cannot be read."""
    try:
        found = json.loads(note_of(data_dir).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
