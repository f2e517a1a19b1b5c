"""Restarts what runs handlers when their files change: `ops up --reload`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path

from ops.stack import preflight
from ops.stack.stack import Stack, StackError

#: What has the handlers in memory: the API checks payloads by them.
NAMES = ("api", "worker", "maintenance")
#: Seconds between two looks at the files.
LOOK_EVERY = 0.5
#: Most files that are looked at, and most that a line names.
MOST_FILES, MOST_NAMED = 5_000, 3

#: Files, each with its time and size.
Look = Mapping[Path, tuple[int, int]]


def folders_of(modules: Sequence[str], path: Sequence[str]) -> dict[Path, bool]:
    """The folders of modules, and whether what is below belongs to them: it does in a package.

    Args:
        modules: dotted names.
        path: where Python looks for them.
    """
    found: dict[Path, bool] = {}
    for module in modules:
        spec = PathFinder.find_spec(module.partition(".")[0], list(path))
        if spec is None:
            continue
        for folder in spec.submodule_search_locations or ():
            found[Path(folder)] = True
        if not spec.submodule_search_locations and spec.origin:
            found.setdefault(Path(spec.origin).parent, False)
    return found


def look(folders: Mapping[Path, bool]) -> Look:
    """The Python files of some folders, hidden ones left out."""
    found: dict[Path, tuple[int, int]] = {}
    for folder, is_deep in folders.items():
        files = folder.rglob("*.py") if is_deep else folder.glob("*.py")
        for file in islice(files, MOST_FILES):
            if any(part.startswith(".") for part in file.relative_to(folder).parts):
                continue
            try:
                stat = file.stat()
            except OSError:
                # It went between the two calls.
                continue
            found[file] = (stat.st_mtime_ns, stat.st_size)
    return found


class Changes:
    """What changes in files; it counts once a look finds nothing new, for an editor writes in several steps.

    Args:
        look: what there is now.
    """

    def __init__(self, look: Callable[[], Look]) -> None:
        self._look = look
        self._known = self._last = look()

    def seen(self) -> list[Path]:
        """The files that changed since this said so last; none while more changes come."""
        now = self._look()
        if now != self._last:
            self._last = now
            return []
        known, self._known = self._known, now
        return sorted(file for file in {*now, *known} if now.get(file) != known.get(file))


def wait(stack: Stack, supervisor: subprocess.Popen[bytes]) -> int:
    """Restarts what runs handlers after each change, until the supervisor ends; returns its exit code."""
    environment = stack.environment()
    path = environment["PYTHONPATH"].split(os.pathsep)
    folders = folders_of(stack.settings.handler_modules, path)
    changes = Changes(lambda: look(folders))
    while True:
        try:
            return supervisor.wait(LOOK_EVERY)
        except subprocess.TimeoutExpired:
            if files := changes.seen():
                print(after(stack, files), flush=True)


def after(stack: Stack, files: Sequence[Path]) -> str:
    """Restarts what runs handlers, unless they cannot be loaded; returns what there is to say."""
    names = ", ".join(file.name for file in files[:MOST_NAMED])
    if len(files) > MOST_NAMED:
        names += f" and {len(files) - MOST_NAMED} more"
    began = time.monotonic()
    try:
        preflight.try_handlers(stack.environment())
        for name in NAMES:
            stack.restart(name)
    except preflight.Refused as error:
        return f"{names} changed and cannot be loaded, what runs stays as it was: {error}"
    except StackError as error:
        return f"{names} changed: {error}"
    return f"{names} changed: {', '.join(NAMES)} restarted in {time.monotonic() - began:.1f} s"
