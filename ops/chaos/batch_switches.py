"""Switches of batches: places to die at while one counts or adds, and mutants of what has each end count and be told once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text


def places(die_if_asked: Callable[[str], None]) -> None:
    """Puts places to die into the transactions that count and that add."""
    from webapp.batches import course, store

    real_judge, real_join = course.judge, store.join

    def judged(connection: Any, ids: Any, *rest: Any) -> Any:
        if ids:
            die_if_asked("in-count")
        return real_judge(connection, ids, *rest)

    def joined(connection: Any, batch_id: Any, number: int, **more: Any) -> Any:
        die_if_asked("in-adding")
        return real_join(connection, batch_id, number, **more)

    course.judge = judged
    store.join = joined


def _counted_twice() -> None:
    """One note of eight is counted and stays."""
    from webapp.groups import store

    stay = """FROM (SELECT * FROM taken UNION ALL
        SELECT group_id, was, became FROM group_ends WHERE id = ANY(ARRAY(SELECT id FROM oldest WHERE id % 8 = 0))) AS taken GROUP BY"""
    taken = "DELETE FROM group_ends WHERE id = ANY(ARRAY(SELECT id FROM oldest"
    for name in ("_COUNT", "_COUNT_ONE"):
        edited = getattr(store, name).text.replace(taken, taken + " WHERE id % 8 > 0")
        setattr(store, name, text(edited.replace("FROM taken GROUP BY", stay)))


def _told_twice() -> None:
    """That an event was told is not kept."""
    from webapp.batches import store

    store.note_events = lambda *_: None


def _closed_unjudged() -> None:
    """Who closes a batch does not look whether all have ended."""
    from webapp.batches.course import Followed
    from webapp.batches.service import Batches

    Batches._judged = lambda *_: Followed()  # type: ignore[method-assign]


def _parts_forgotten() -> None:
    """A part that was added is added again."""
    from webapp.batches import store

    real = store.take_part

    def taken(connection: Any, *rest: Any) -> bool:
        real(connection, *rest)
        return True

    store.take_part = taken
    store.find_part = lambda *_: None


MUTANTS: dict[str, Callable[[], None]] = {
    "counted-twice": _counted_twice,
    "told-twice": _told_twice,
    "closed-unjudged": _closed_unjudged,
    "parts-forgotten": _parts_forgotten,
}
