"""The first key of an API that others than this machine reach: `up` makes it, for without one the API does not start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ops.stack.venv import ROOT
from webapp.settings import Settings

#: Where it is kept, in the data folder.
FILE = Path("secrets") / "admin.key"
#: Who is on record as the maker of keys that the stack makes for itself: they are not what an operator needs.
MADE_BY_UP = "ops up"
#: Most keys among which one of an operator's is looked for.
MOST_LOOKED_AT = 1_000
#: Longest that one command may take, seconds.
PATIENCE = 60.0


class NoFirstKey(Exception):
    """The key could not be made; the message says why."""


def is_needed(settings: Settings) -> bool:
    """True if the API asks for keys and does not start without one."""
    return not settings.is_on_loopback and settings.api_auth != "open"


def make(data: Path, environment: Mapping[str, str]) -> Path | None:
    """Makes an admin key where no key is live but the stack's own, into a file that its owner alone may read; returns the file, None where there was a key.

    Args:
        data: the data folder.
        environment: what the stack's processes get.

    Raises:
        NoFirstKey: a command failed.
    """
    listed = run(environment, "key", "list", "--limit", str(MOST_LOOKED_AT), "--json")
    if any(key["created_by"] != MADE_BY_UP for key in json.loads(listed)["items"]):
        return None
    file = data / FILE
    keep(file, lambda: run(environment, "init"))
    return file


def keep(file: Path, make_key: Callable[[], str]) -> None:
    """Writes a key that is made now into a file that its owner alone may read."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    # Made before the key, so that no key is lost for the sake of a file.
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(make_key())


def run(environment: Mapping[str, str], *words: str, given: str = "") -> str:
    """Runs a command of `flask --app wsgi access`; returns what it prints.

    Args:
        given: what it reads.

    Raises:
        NoFirstKey: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "access", *words],
        env=dict(environment),
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise NoFirstKey(f"a key of the API could not be made: {said[:300]}")
    return done.stdout
