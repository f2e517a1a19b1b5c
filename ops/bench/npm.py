"""npm packages of peers: installed on demand from a lock file, where this machine has Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ops.bench import installation
from ops.bench.processes import MissingError
from ops.stack.venv import ROOT

HERE = Path(__file__).resolve().parent
#: A package.json with its package-lock.json, by name.
FOLDERS = {"graphile": HERE / "graphile"}
FILES = ("package.json", "package-lock.json")
#: The oldest major version of Node that the packages are run with.
OLDEST_NODE = 18
#: Seconds Node gets to say its version.
VERSION_PATIENCE = 20.0
#: Nothing that is installed runs a script of its own, and npm asks for nothing but the packages.
OPTIONS = ("--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--no-update-notifier")
#: What the lock file does without: addresses of a registry, and of pages that ask for money.
NOT_LOCKED = ("resolved", "funding")


def installed(name: str, say: Callable[[str], None]) -> tuple[Path, Path]:
    """Node, and the `node_modules` that hold the packages, which are installed first when they are not there.

    Args:
        name: a key of `FOLDERS`.
        say: shows progress.

    Raises:
        MissingError: there is no Node.
        BenchError: the packages cannot be installed.
    """
    found = node()
    folder = installation.HOME / f"npm-{name}"
    marker = installation.Marker(folder, *(FOLDERS[name] / file for file in FILES))
    if not marker.fits():
        say(f"installing the packages of {FOLDERS[name].relative_to(ROOT)} into {folder.relative_to(ROOT)}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in FILES:
            shutil.copy(FOLDERS[name] / file, folder)
        installation.step(["npm", "ci", "--prefix", str(folder), *OPTIONS])
        marker.write()
    return found, folder / "node_modules"


def node() -> Path:
    """The Node of this machine.

    Raises:
        MissingError: there is none that is new enough, or it has no npm.
    """
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        raise MissingError(f"needs Node {OLDEST_NODE} or newer with npm, which are not on PATH")
    version = _version(found)
    if version < OLDEST_NODE:
        raise MissingError(f"needs Node {OLDEST_NODE} or newer; this is {version}")
    return Path(found)


def _version(program: str) -> int:
    """The major version of a Node; 0 when it does not say one."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=VERSION_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    major = done.stdout.strip().removeprefix("v").partition(".")[0]
    return int(major) if major.isdecimal() else 0


def pins(name: str) -> dict[str, str]:
    """The versions that a `package.json` names."""
    found: dict[str, str] = json.loads((FOLDERS[name] / "package.json").read_text())["dependencies"]
    return found


def without_addresses(lock: str) -> str:
    """The text of a lock file without what `NOT_LOCKED` names: npm finds a package by name, version and hash."""
    found: dict[str, Any] = json.loads(lock)
    for package in found["packages"].values():
        for key in NOT_LOCKED:
            package.pop(key, None)
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
