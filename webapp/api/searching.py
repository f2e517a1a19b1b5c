"""Searches have a place of their own: one at a time in each process, so that they take nothing from what answers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from flask import Flask, current_app

from webapp.api.work_slots import work_slots
from webapp.infra.postgres import deadlines
from webapp.jobs.filters import Filter

#: Searches of one process at the same time.
AT_ONCE = 1
#: Most searches that wait for their turn; each has a thread.
MOST_WAITING = 16
#: How long a search waits for its turn, seconds.
LONGEST_WAIT = 10.0
#: How long a search waits for PostgreSQL once it is its turn, seconds.
SEARCH_BUDGET = 3.0


class TooManySearches(Exception):
    """Others are searching, and more wait than may."""

    def __init__(self) -> None:
        super().__init__("too many searches at once; send this one again")


class Turns:
    """Lets one search after the other."""

    def __init__(self) -> None:
        self._waiting = threading.BoundedSemaphore(MOST_WAITING + AT_ONCE)
        self._searching = threading.BoundedSemaphore(AT_ONCE)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn for the length of a block.

        Raises:
            TooManySearches: it did not come in time.
        """
        if not self._waiting.acquire(blocking=False):
            raise TooManySearches
        try:
            if not self._searching.acquire(timeout=LONGEST_WAIT):
                raise TooManySearches
            try:
                yield
            finally:
                self._searching.release()
        finally:
            self._waiting.release()


def init_app(app: Flask) -> None:
    """Gives the application its turns."""
    app.extensions["turns"] = Turns()


@contextmanager
def searching(wanted: Filter) -> Iterator[None]:
    """Waits for a turn where jobs have to be looked at one by one; a request that waits holds no work slot.

    Raises:
        TooManySearches: it did not come in time.
    """
    if not wanted.is_search:
        yield
        return
    slots = work_slots()
    slots.leave()
    with cast("Turns", current_app.extensions["turns"]).turn():
        slots.take()
        deadlines.bound(SEARCH_BUDGET)
        yield
