"""How a process ends that cannot start for a setting's sake: with one sentence and exit code 1.

`python -m webapp.startup` says beforehand whether one could: it loads settings and handlers, and starts nothing.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from webapp.settings import Settings, SettingsError


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turns a wrong setting into one sentence on standard error and exit code 1."""
    try:
        yield
    except SettingsError as error:
        sys.exit(f"djps: {error}")


@contextmanager
def loading() -> Iterator[None]:
    """Looks for no garbage while a process loads what it keeps: there is none, and looking is an eighth of its start."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def main() -> None:
    """Loads what every process loads first."""
    from webapp.jobs import handlers  # noqa: PLC0415 - it is what is tried

    with one_sentence():
        settings = Settings.load()
        handlers.load(settings.handler_modules, settings.default_handler, settings.queue_names)


if __name__ == "__main__":
    main()
