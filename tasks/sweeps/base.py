"""The guarded runner of all sweeps: what beat asks for again and again.

What they are is listed in `webapp.settings.sweeps`. What a sweep raises is logged with its traceback, counted and goes no
further: the next tick asks for it again. Within a sweep, a queue or a row that raises costs the others nothing; an error that
is the server's ends the sweep at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from celery import signals
from sqlalchemy import Connection, Engine

from webapp.infra.background import Step
from webapp.infra.broker.client import celery
from webapp.infra.postgres.database_errors import Trouble, is_of_database, trouble_of
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.settings.sweeps import SweepPlan

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Troubles that are the database's and not a row's: the rest would fail as well.
_OF_THE_SERVER = frozenset(
    {Trouble.AWAY, Trouble.NO_CONNECTION, Trouble.READ_ONLY, Trouble.FULL, Trouble.REFUSED}
)
#: What is named by Celery as a task of this module's.
_PREFIX = "tasks."


def sweep(plan: SweepPlan) -> Callable[[Callable[[], object]], Any]:
    """Makes a function that sweeps once a Celery task of the plan's name, which runs guarded.

    Example:
        >>> @sweep(sweeps.EXPIRE)  # doctest: +SKIP
        ... def expire():
        ...     run_expiry(runtime())
    """

    def register(function: Callable[[], object]) -> Any:
        step = Step(plan.name, function, kind="sweep")

        def run() -> None:
            run_guarded(step)

        run.__doc__ = function.__doc__
        run.__module__ = function.__module__
        return celery.task(name=_PREFIX + plan.name, send_events=False)(run)

    return register


def run_guarded(step: Step) -> bool:
    """Runs a sweep once, counts how it ended and how long it took; False when it failed.

    Raises:
        BaseException: one that is no `Exception`: it asks the process to end. It is counted, too.
    """
    began = time.monotonic()
    outcome = "failed"
    try:
        if step.turn(began) is None:
            outcome = "completed"
    finally:
        metrics.count_sweep(step.name, outcome, time.monotonic() - began)
    return outcome == "completed"


@signals.task_failure.connect  # type: ignore[untyped-decorator] # Celery ships no types
def _note_failure(
    sender: Any = None, exception: BaseException | None = None, traceback: Any = None, **_: Any
) -> None:
    """Counts a message of ours that failed outside of the runner: before it, or with its process.

    Celery tells of it in the child, and of a child that died in the parent.
    """
    name = str(getattr(sender, "name", "")).removeprefix(_PREFIX)
    if name in metrics.SWEEPS:
        metrics.count_sweep(name, "failed", None)
        logger.error(
            "sweep failed",
            exc_info=(type(exception), exception, traceback if hasattr(traceback, "tb_frame") else None)
            if exception is not None
            else None,
            extra={"step": name},
        )


class Each:
    """Does several things of which one that raises costs the others nothing; the first error is raised at the end.

    Args:
        what: what they are, for the log.

    Example:
        >>> with Each("queue") as each:
        ...     made = [each.do(name, lambda: 1) for name in ("a", "b")]
        >>> made
        [1, 1]
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._error: Exception | None = None
        #: Names of those that raised; they are not tried again.
        self.failed: set[Hashable] = set()

    def __enter__(self) -> Self:
        """Nothing has failed yet."""
        return self

    def do(self, name: Hashable, work: Callable[[], T]) -> T | None:
        """Does one of them; None when it raised, now or before.

        Raises:
            DBAPIError: the server cannot serve the others either.
        """
        if name in self.failed:
            return None
        try:
            return work()
        except Exception as error:
            if is_of_the_server(error):
                raise
            self.failed.add(name)
            self._error = self._error or error
            logger.exception("part of a sweep failed", extra={self._what: str(name)})
            return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises the first error, unless another is on its way."""
        if kind is None and self._error is not None:
            raise self._error


def is_of_the_server(error: Exception) -> bool:
    """True for an error that has nothing to do with the row or queue at hand."""
    return is_of_database(error) and trouble_of(error) in _OF_THE_SERVER


def of_rows(
    engine: Engine,
    each: Each,
    take: Callable[[Connection], Sequence[T]],
    name_of: Callable[[T], Hashable],
    work: Callable[[Connection, T], object],
) -> list[tuple[T, Any]]:
    """Takes rows and does something with each in one transaction; rows that raise are left as they were.

    Only when one raises is it done again with a savepoint around each.

    Args:
        each: knows which rows raised before; they are passed over.
        take: locks and returns rows.
        name_of: what a row is called there.

    Returns:
        The rows that went well, with what came of them.
    """

    def taken(connection: Connection) -> Iterable[T]:
        return [row for row in take(connection) if name_of(row) not in each.failed]

    def in_savepoint(connection: Connection, row: T) -> tuple[T, Any]:
        with connection.begin_nested():
            return row, work(connection, row)

    try:
        return in_transaction(
            engine, lambda connection: [(row, work(connection, row)) for row in taken(connection)]
        )
    except Exception as error:
        if is_of_the_server(error):
            raise
    done = in_transaction(
        engine,
        lambda connection: [
            each.do(name_of(row), partial(in_savepoint, connection, row)) for row in taken(connection)
        ],
    )
    return [one for one in done if one is not None]
