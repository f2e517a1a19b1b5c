"""Starts Valkey: `python -m ops.stack.valkey_start FOLDER COMMAND ...`.

When the Valkey before it ended without being asked to, its append-only file may be why: then it is tried out first, and
set aside when Valkey cannot read it. What is in Redis are hints, heartbeats and counts of the rate limit; DJPS makes
all of it anew from PostgreSQL.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

#: In the environment of a process whose predecessor ended without being asked to; the supervisor puts it there.
DIED_BEFORE = "DJPS_DIED_BEFORE"
#: The folder of the append-only file, in Valkey's.
FILES = "appendonlydir"
#: What is set aside is called so; there is one at most.
ASIDE = "appendonlydir.unreadable"
#: Longest a trial may take, seconds.
TRIAL_PATIENCE = 60.0
#: What Valkey says when the file is at fault, and not the disk or someone's rights.
_UNREADABLE = re.compile(
    r"Bad file format|bad file format|AOF|append.?only|manifest|RDB|Unexpected end of file", re.IGNORECASE
)
_ELSEWHERE = re.compile(r"No space left|Permission denied|Cannot allocate|Too many open files")


def mend(folder: Path, command: Sequence[str]) -> str | None:
    """Sets an append-only file aside that Valkey cannot read; returns a sentence about it, or None when it is well.

    Args:
        folder: Valkey's.
        command: what starts it.
    """
    if not (folder / FILES).exists():
        return None
    said = _trial(command)
    if said is None or _ELSEWHERE.search(said) or not _UNREADABLE.search(said):
        return None
    shutil.rmtree(folder / ASIDE, ignore_errors=True)
    (folder / FILES).rename(folder / ASIDE)
    reason = next(line for line in reversed(said.splitlines()) if _UNREADABLE.search(line)).strip()
    return (
        f"Valkey could not read its append-only file ({reason}); it was moved to {folder / ASIDE},"
        " and what was in it is made anew from PostgreSQL"
    )


def _trial(command: Sequence[str]) -> str | None:
    """Has Valkey read its files without listening on its port; returns what it said when it ended by itself."""
    with tempfile.TemporaryDirectory() as place:
        door = Path(place) / "trial.sock"
        tried = subprocess.Popen(
            # Without its password: who is asked for one is not told that files are being read.
            [*command, "--port", "0", "--requirepass", "", "--unixsocket", str(door)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        end = time.monotonic() + TRIAL_PATIENCE
        while tried.poll() is None and time.monotonic() < end and not _is_loaded(door):
            time.sleep(0.02)
        ended = tried.poll() is not None
        tried.kill()
        said, _ = tried.communicate()
        return said if ended else None


def _is_loaded(door: Path) -> bool:
    """True once Valkey has read its files: until then it answers LOADING."""
    if not door.exists():
        return False
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1)
        try:
            line.connect(str(door))
            line.sendall(b"PING\r\n")
            return line.recv(5) == b"+PONG"
        except OSError:
            return False


def main(arguments: Sequence[str]) -> None:
    """Becomes Valkey."""
    folder, command = Path(arguments[0]), list(arguments[1:])
    if os.environ.pop(DIED_BEFORE, None):
        try:
            said = mend(folder, command)
        except OSError as error:
            said = f"Valkey's append-only file could not be looked at: {error}"
        if said:
            print(said, flush=True)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
