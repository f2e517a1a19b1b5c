"""Passwords of the stack's own servers: made at their first start, and kept where their owner alone may read them.

Loopback is no wall between the users of a machine, and a port that is forwarded by mistake is none at all.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from webapp.settings.local import ROOT

#: Where they are kept, in the data folder.
FOLDER = Path("secrets")
#: Random bytes of a password.
LENGTH = 24


def file_of(data: Path, server: str) -> Path:
    """The file of a server's password.

    Args:
        data: the data folder; a relative one is of the project.
        server: as `processes` names it.
    """
    return ROOT / data / FOLDER / f"{server}.password"


def kept(data: Path, server: str) -> str:
    """A server's password; empty where none has been made."""
    try:
        return file_of(data, server).read_text().strip()
    except FileNotFoundError:
        return ""


def new() -> str:
    """A new password, of letters, digits, - and _."""
    return secrets.token_urlsafe(LENGTH)


def keep(data: Path, server: str, password: str) -> None:
    """Keeps a server's password."""
    write(file_of(data, server), password + "\n")


def write(file: Path, content: str) -> None:
    """Writes a file that its owner alone may read, as a whole or not at all."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(content)
    draft.replace(file)
