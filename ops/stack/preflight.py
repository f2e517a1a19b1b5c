"""What is looked at before anything is started: another `up`, the handlers."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ops.stack.venv import ROOT

#: Longest an `up` waits for another one that is at work, seconds.
TURN_PATIENCE = 300.0
#: Longest the handlers may take to be imported, seconds.
IMPORT_PATIENCE = 60.0


class Refused(Exception):
    """The stack cannot be started as things are; the message is one sentence that says why."""


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Waits until no other `up` of a data folder is at work, and keeps others waiting for the length of a block.

    Raises:
        Refused: the other one takes too long.
    """
    (data / "run").mkdir(parents=True, exist_ok=True)
    with (data / "run" / "up.lock").open("w") as lock:
        end = time.monotonic() + TURN_PATIENCE
        said = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    print(f"another `python3 -m ops up` is at work in {data}; waiting for it", flush=True)
                    said = True
                if time.monotonic() > end:
                    raise Refused(
                        f"another `python3 -m ops up` has been at work in {data} for {TURN_PATIENCE:g} s;"
                        " `python3 -m ops down` ends what it has started"
                    ) from None
                time.sleep(0.1)
        yield


def try_handlers(environment: Mapping[str, str]) -> None:
    """Imports the handlers in a process of its own, as every process of the stack will.

    Args:
        environment: what the stack's processes get.

    Raises:
        Refused: they cannot be imported; the message names the setting.
    """
    try:
        tried = subprocess.run(
            [sys.executable, "-m", "webapp.startup"],
            env=dict(environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=IMPORT_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"HANDLERS: the modules were not imported within {IMPORT_PATIENCE:g} s") from None
    if tried.returncode != 0:
        lines = (tried.stderr.strip() or tried.stdout.strip() or "they end the process").splitlines()
        ours = lines[-1].startswith("djps: ")
        raise Refused(lines[-1].removeprefix("djps: ") if ours else f"HANDLERS: {lines[-1]}")
