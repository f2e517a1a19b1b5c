"""The virtual environment `.venv`: made once, from hash-locked requirements. Standard library only."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
#: What is installed, as {lock file: SHA-256 of its text}.
MARKER = VENV / "djps-installed.json"

OLDEST_PYTHON = (3, 11)

#: The lock files each command needs.
LOCKS = {
    "up": ("requirements.txt", "ops/requirements.txt"),
    "load": ("requirements.txt", "ops/requirements.txt", "ops/load/requirements.txt"),
    "test": (
        "requirements.txt",
        "ops/requirements.txt",
        "ops/load/requirements.txt",
        "tests/requirements.txt",
    ),
}


class VenvError(Exception):
    """The virtual environment cannot be made or filled."""


def enter(needs: str, arguments: Sequence[str]) -> None:
    """Makes sure that `.venv` holds what is needed, and starts the command over inside it.

    Args:
        needs: a key of `LOCKS`.
        arguments: the command line after `python3 -m ops`.

    Raises:
        VenvError: it could not be made; the message says what to do.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise VenvError(f"DJPS needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    if not os.access(ROOT, os.W_OK):
        raise VenvError(f"{ROOT} must be writable: .venv and .djps are made there")
    with (ROOT / ".venv.lock").open("w") as lock:
        # `up` and `test` may be started at the same moment in a fresh clone.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not PYTHON.exists():
            _make()
        _install([name for name in LOCKS[needs] if _installed().get(name) != _digest(name)])
    if Path(sys.prefix).resolve() != VENV.resolve():
        # A user's own entries stay, so that HANDLERS finds their modules; relative ones mean this folder.
        given = [
            str(Path(entry).absolute())
            for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if entry
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *given])}
        os.execve(PYTHON, [str(PYTHON), "-m", "ops", *arguments], environment)


def lacks(needs: str) -> bool:
    """True if `enter` has something to install.

    Args:
        needs: a key of `LOCKS`.
    """
    return not PYTHON.exists() or any(_installed().get(name) != _digest(name) for name in LOCKS[needs])


def _make() -> None:
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise VenvError("this Python has no venv module; install it (Debian: apt-get install python3-venv)")
    print(f"making {VENV}", flush=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise VenvError(f"{VENV} could not be made: {(made.stdout + made.stderr).strip().splitlines()[-1:]}")


def _installed() -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(MARKER.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _digest(name: str) -> str:
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def _install(names: Sequence[str]) -> None:
    """Installs lock files with pip, showing one counter."""
    if not names:
        return
    total = sum(line[:1].isalnum() for name in names for line in (ROOT / name).read_text().splitlines())
    command = [str(PYTHON), "-m", "pip", "install", "--require-hashes", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off"]
    for name in names:
        command += ["-r", str(ROOT / name)]
    print(f"installing {total} packages into {VENV}", flush=True)
    seen = 0
    tail: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            tail = [*tail[-14:], line.rstrip()]
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                seen += 1
                _show(seen, total, line.replace("Requirement already satisfied: ", "Collecting ").split()[1])
            elif line.startswith("Installing collected packages"):
                print(f"\n  unpacking {total} packages", flush=True)
    if pip.returncode != 0:
        raise VenvError("pip could not install the requirements:\n" + "\n".join(tail))
    MARKER.write_text(json.dumps(_installed() | {name: _digest(name) for name in names}))


def _show(seen: int, total: int, package: str) -> None:
    """One line that is written over on a terminal, a line for every ten packages elsewhere."""
    if sys.stdout.isatty():
        print(f"\r  {seen}/{total} {package[:40]:<40}", end="", flush=True)
    elif seen % 10 == 0:
        print(f"  {seen}/{total} {package[:40]}", flush=True)
