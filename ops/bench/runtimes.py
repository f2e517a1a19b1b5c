"""What the programs of a peer run on: a Python with its packages, or Node with its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ops.bench import npm, venvs
from ops.bench.processes import BenchError


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where a peer's file is run.

    Args:
        program: the interpreter.
        programs: the folder of the commands that the packages brought.
        suffix: how the name of a peer's file ends.
        environment: variables with which the packages are found.
    """

    program: Path
    programs: Path
    suffix: str
    environment: dict[str, str] = field(default_factory=dict)


_failed: dict[str, BenchError] = {}


def ready(packages: str, say: Callable[[str], None]) -> Runtime:
    """A runtime with its packages, which are installed first when they are not there.

    Args:
        packages: a key of `venvs.REQUIREMENTS` or of `npm.FOLDERS`.
        say: shows progress.

    Raises:
        BenchError: it cannot be made; asking again says the same at once.
    """
    if packages in _failed:
        raise _failed[packages]
    try:
        return _node(packages, say) if packages in npm.FOLDERS else _python(packages, say)
    except BenchError as error:
        _failed[packages] = error
        raise


def _python(packages: str, say: Callable[[str], None]) -> Runtime:
    python = venvs.python(packages, say)
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return Runtime(python, python.parent, ".py", {"PATH": path})


def _node(packages: str, say: Callable[[str], None]) -> Runtime:
    node, modules = npm.installed(packages, say)
    return Runtime(node, modules / ".bin", ".js", {"NODE_PATH": str(modules)})


def pins(packages: str) -> dict[str, str]:
    """The versions that are pinned, by package."""
    return npm.pins(packages) if packages in npm.FOLDERS else venvs.pins(packages)
