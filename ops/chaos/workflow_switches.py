"""Switches of workflows: places to die at while they are moved on, and mutants of what has each step begin, and begin once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import text


def places(die_if_asked: Callable[[str], None]) -> None:
    """Puts places to die around and into the transaction that moves a workflow on."""
    from webapp.workflows import advancer, store
    from webapp.workflows.advancer import Advancer

    real_after, real_move, real_tell = Advancer.after, store.move_steps, advancer.tell

    def after(self: Any, groups: Any) -> None:
        die_if_asked("before-advance")
        real_after(self, groups)

    def moved(connection: Any, workflow_id: Any, moves: Any) -> int:
        if moves:
            die_if_asked("in-advance")
        return real_move(connection, workflow_id, moves)

    def told(means: Any, done: Any) -> None:
        if done.jobs:
            die_if_asked("behind-advance")
        real_tell(means, done)

    Advancer.after = after  # type: ignore[method-assign]
    store.move_steps = moved
    advancer.tell = told


def _noted_apart() -> None:
    """The notes of a workflow are gone before its steps are moved."""
    from webapp.workflows import store

    real = store.take_notes

    def taken(connection: Any, workflow_id: Any) -> Any:
        noted = real(connection, workflow_id)
        connection.connection.dbapi_connection.commit()
        return noted

    store.take_notes = taken


def _begun_by_all() -> None:
    """A workflow is not locked while it is moved on, and a step begins however it stands by then."""
    from webapp.workflows import store

    unlocked = re.sub(r"FOR NO KEY UPDATE OF g SKIP LOCKED", "", store._WORKFLOWS["try_lock"].text)
    store._WORKFLOWS["try_lock"] = text(unlocked)
    anyhow = store._STEPS["move"].text.replace(" AND s.status = g.before", "")
    store._STEPS["move"] = text(anyhow)


MUTANTS: dict[str, Callable[[], None]] = {
    "noted-apart": _noted_apart,
    "begun-by-all": _begun_by_all,
}
