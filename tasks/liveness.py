"""The liveness file that every worker and beat keeps fresh, and the probe that reads it.

`python -m tasks.liveness worker` is what systemd, Kubernetes or a compose file runs to know whether a process is
alive; with `--ready`, whether it can work. It reads one file and asks no server, so it is cheap enough to run every
few seconds, and it does not fail when Redis or PostgreSQL do: restarting a worker would not bring them back.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Older than this, a liveness file says that its process is dead, seconds. Its owner writes it at least every second.
FRESH = 20.0
#: Size of the file, bytes: within one block, so that it is written at once.
SIZE = 2_048
#: Longest sentence in it, characters; JSON may write each as six bytes.
MOST_SAID = 300
#: The ending of the files.
SUFFIX = ".alive"
#: How often a file is read that makes no sense, and the seconds in between.
READ_TRIES, READ_AGAIN = 3, 0.02


def folder(data_dir: str | Path) -> Path:
    """Where liveness files are, in a data folder."""
    return Path(data_dir) / "run"


class LivenessFile:
    """The liveness file of this process.

    Args:
        data_dir: the DJPS_DATA_DIR setting.
        name: the process's node name, such as `worker@host`, or `beat`.
    """

    def __init__(self, data_dir: Path, name: str) -> None:
        self._file = folder(data_dir) / f"{name}{SUFFIX}"

    def write(self, *, ready: bool, says: str) -> None:
        """Says that this process is alive.

        The file is written in place and always of one size: a full disk still takes that, once the file is there.

        Args:
            ready: it can work.
            says: one sentence about its state.

        Raises:
            OSError: it cannot be written; what a reader finds is the file of before, which grows old.
        """
        state = {"pid": os.getpid(), "ready": ready, "says": says[:MOST_SAID]}
        text = json.dumps(state).encode().ljust(SIZE)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(handle, text, 0)
        finally:
            os.close(handle)

    def remove(self) -> None:
        """Says that this process ends in order; a file that cannot be taken away grows old."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def look(data_dir: str | Path, name: str, *, ready: bool) -> tuple[bool, str]:
    """Reads the liveness files of a name; returns whether all is well, and a sentence that says what was seen.

    Args:
        name: a node name, or what stands before its @ (then every such node of this host counts).
        ready: ask not only for life, but for readiness.
    """
    found = [
        file
        for file in sorted(folder(data_dir).glob(f"*{SUFFIX}"))
        if name in (file.stem, file.stem.partition("@")[0])
    ]
    if not found:
        return False, f"no liveness file of {name!r} in {folder(data_dir)}: it is not running"
    for file in found:
        try:
            age = time.time() - file.stat().st_mtime
            state = _read(file)
        except FileNotFoundError:
            return False, f"{file.stem} has just ended"
        except (OSError, ValueError) as error:
            return False, f"{file.stem} says nothing: its file {file} cannot be read ({type(error).__name__})"
        if age > FRESH:
            return False, f"{file.stem} has not been heard of for {age:.0f} s (limit {FRESH:g} s)"
        if ready and not state["ready"]:
            return False, f"{file.stem} is not ready: {state['says']}"
    return True, f"{name} is {'ready' if ready else 'alive'}"


def _read(file: Path) -> dict[str, Any]:
    """What a liveness file says; it is looked at again when it was read while it was being written.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty, or no such file.
    """
    for tries_left in reversed(range(READ_TRIES)):
        try:
            state = json.loads(file.read_bytes())
        except ValueError:
            if not tries_left:
                raise
            time.sleep(READ_AGAIN)
        else:
            break
    if not isinstance(state, dict) or not {"ready", "says"} <= state.keys():
        raise ValueError("no liveness file")
    return state


def main(arguments: Sequence[str]) -> int:
    """The probe: exit code 0 when all is well, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.liveness", description="Is a worker or beat alive?"
    )
    parser.add_argument("name", help="node name (worker@host), or what stands before its @; or beat")
    parser.add_argument("--ready", action="store_true", help="alive, and able to work")
    parser.add_argument(
        "--dir", default=os.environ.get("DJPS_DATA_DIR", ".djps"), help="the DJPS_DATA_DIR of that process"
    )
    wanted = parser.parse_args(arguments)
    well, sentence = look(wanted.dir, wanted.name, ready=wanted.ready)
    print(sentence, file=sys.stdout if well else sys.stderr)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
