"""Switches of schedules: places to die at while they fire, and mutants of what keeps a time from being fired twice or lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import text


def places(die_if_asked: Callable[[str], None]) -> None:
    """Puts places to die into the transaction of a firing."""
    from webapp.schedules import store
    from webapp.schedules.making import JobMaker

    real_store, real_move = JobMaker.store, store.move

    def stored(self: Any, connection: Any, jobs: Sequence[Any]) -> Any:
        if jobs:
            die_if_asked("in-firing")
        return real_store(self, connection, jobs)

    def moved(connection: Any, moves: Sequence[Any]) -> None:
        if moves:
            die_if_asked("before-moving")
        real_move(connection, moves)

    JobMaker.store = stored  # type: ignore[method-assign]
    store.move = moved


def _fired_apart() -> None:
    """What has fired is committed before its jobs are stored."""
    from webapp.schedules.making import JobMaker

    real = JobMaker.store

    def stored(self: Any, connection: Any, jobs: Sequence[Any]) -> Any:
        connection.connection.dbapi_connection.commit()
        return real(self, connection, jobs)

    JobMaker.store = stored  # type: ignore[method-assign]


def _fired_by_all() -> None:
    """A schedule is not locked while it fires, and a time that is on record fires again."""
    from webapp.schedules import store

    unlocked = re.sub(r"FOR UPDATE OF s SKIP LOCKED", "", store._TAKE_DUE.text)
    store._TAKE_DUE = text(unlocked)
    real = store.record

    def recorded(connection: Any, entries: Sequence[Any], **more: Any) -> Any:
        real(connection, entries, **more)
        return {one.key for one in entries}

    store.record = recorded


def _overtaken() -> None:
    """A job that has not ended holds no time back."""
    from webapp.schedules import store

    store.open_jobs = lambda _connection, _ids: set()


MUTANTS: dict[str, Callable[[], None]] = {
    "fired-apart": _fired_apart,
    "fired-by-all": _fired_by_all,
    "overtaken": _overtaken,
}
