"""The file descriptors that a child needs itself, and what is done when a handler has closed them.

A handler that closes every file it knows nothing of (`os.closerange`, as daemons do) closes the connection to PostgreSQL and
the pipes to the worker's parent. Their numbers are then given to the next files that are opened, and what is meant for
PostgreSQL would be written into one of those. So after a job it is looked whether each number still is the file that it was.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, event

Identity = tuple[int, int]

#: Names of the standard streams, by the numbers of their files.
_STREAMS = ("stdin", "stdout", "stderr")


class FilesLost(Exception):
    """This process cannot go on with the files that it has."""


def identity(number: int) -> Identity | None:
    """What tells an open file from all others; None when nothing is open under this number."""
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class OwnDescriptors:
    """The pipes to the parent, and the connections to PostgreSQL."""

    def __init__(self) -> None:
        self._pipes: dict[int, Identity | None] = {}
        self._connections: weakref.WeakKeyDictionary[Any, Identity | None] = weakref.WeakKeyDictionary()
        self._on_loss: list[Callable[[], object]] = []
        #: Connections whose numbers may be other files' by now: Python must not close those.
        self._kept: list[Any] = []
        #: True when the parent cannot be told anything any more.
        self.is_cut_off = False

    def watch(self, engine: Engine) -> Engine:
        """Remembers each connection of an engine; returns the engine."""

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _record: Any) -> None:
            self._connections[connection] = identity(connection.fileno())

        self._on_loss.append(lambda: engine.dispose(close=False))
        return engine

    def on_loss(self, call: Callable[[], object]) -> None:
        """Has something called when files were lost, which must not raise."""
        self._on_loss.append(call)

    def set_pipes(self, pipes: Iterable[int]) -> None:
        """Remembers the ends of the pipes to the parent."""
        self._pipes = {number: identity(number) for number in pipes}

    def are_intact(self) -> bool:
        """True if every number is the file that it was."""
        return not self._lost_pipes() and all(
            identity(connection.fileno()) == known
            for connection, known in self._connections.items()
            if not connection.closed
        )

    def _lost_pipes(self) -> list[int]:
        return [number for number, known in self._pipes.items() if identity(number) != known]

    def let_go(self) -> None:
        """Lets go of what was lost, so that nothing is written to files that have taken its place.

        Raises:
            FilesLost: always; the job's end can still be written, and then this process must be replaced.
        """
        lost = self._lost_pipes()
        self.is_cut_off = self.is_cut_off or bool(lost)
        reserve(lost)
        self._pipes = {number: identity(number) for number in self._pipes}
        self._kept += list(self._connections)
        self._connections.clear()
        for call in self._on_loss:
            call()
        raise FilesLost


def reserve(numbers: Collection[int]) -> None:
    """Puts the null device under numbers of files: code that still has one must not find another file there."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        if number != null:
            with suppress(OSError):
                os.dup2(null, number, inheritable=False)
    if null not in numbers:
        os.close(null)


class StandardFiles:
    """The files 0 to 2, and Python's streams on them."""

    def __init__(self) -> None:
        self._known = [identity(number) for number in range(len(_STREAMS))]
        self._kept = [self._copy(number) for number in range(len(_STREAMS))]
        self._streams = [getattr(sys, name) for name in _STREAMS]

    @staticmethod
    def _copy(number: int) -> int | None:
        try:
            return os.dup(number)
        except OSError:
            return None

    def are_intact(self) -> bool:
        """True if all is as it was."""
        return all(
            identity(number) == self._known[number]
            and getattr(sys, name) is self._streams[number]
            and not getattr(self._streams[number], "closed", False)
            for number, name in enumerate(_STREAMS)
        )

    def put_back(self) -> None:
        """Makes them what they were.

        Raises:
            FilesLost: a file and its copy are gone.
        """
        for number, name in enumerate(_STREAMS):
            if identity(number) != self._known[number]:
                self._put_back_file(number)
            stream = self._streams[number]
            if getattr(stream, "closed", False):
                # Python's own is not opened again once it is closed, and log lines go through it.
                renewed = open(number, "r" if number == 0 else "w", buffering=1, closefd=False)  # noqa: SIM115
                _hand_over(stream, renewed)
                stream = self._streams[number] = renewed
            setattr(sys, name, stream)

    def _put_back_file(self, number: int) -> None:
        kept, known = self._kept[number], self._known[number]
        if kept is None or known is None or identity(kept) != known:
            reserve([number])
            self._known[number] = identity(number)
            raise FilesLost
        os.dup2(kept, number)


def _hand_over(old: Any, new: Any) -> None:
    """Makes what logs to a closed stream log to another."""
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    for handler in {handler for one in loggers for handler in one.handlers}:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.stream = new


#: Those of this process.
files = OwnDescriptors()
