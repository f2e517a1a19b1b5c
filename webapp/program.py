"""Submits jobs from a Python program of the owner's own, without HTTP: `from webapp.jobs import submit`.

It composes the front door of jobs as `create_app` does for HTTP, without Flask. It stands beside the rooms and not in one:
the domain (`webapp.jobs`) knows neither the broker nor Celery, and what it offers under its name is loaded from here when it is
first called.

What DJPS changes in a process of its own it does not change here: logging, the wait of psycopg2, the current application of
Celery, the values of prometheus_client.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from webapp.settings import Settings, current

if TYPE_CHECKING:
    from typing import Self

    from webapp.jobs.submission import Placed
    from webapp.jobs.submitter import OriginFront

#: Connections to PostgreSQL that a program keeps open; two more are made where several threads submit at once.
POOL = 1
#: Longest a statement may run and wait for a lock, milliseconds.
STATEMENT_TIMEOUT_MS, LOCK_TIMEOUT_MS = 5_000, 2_000


class Program:
    """Submits jobs as the default tenant; may be used by many threads.

    Args:
        settings: those of the environment when None: DATABASE_URL, REDIS_URL, HANDLERS and QUEUES as API and workers have them.

    Raises:
        SettingsError: a variable breaks its rule, or a module of HANDLERS cannot be imported.

    Example:
        >>> with Program() as djps:  # doctest: +SKIP
        ...     djps.submit({"task": "send-mail", "to": "ada@example.org"}, priority=7)
    """

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or current()
        with _left_alone():
            self._compose(settings)

    def _compose(self, settings: Settings) -> None:
        from sqlalchemy import create_engine  # noqa: PLC0415 - a program that never submits loads none of this

        from webapp.flow.reach import EVERYTHING  # noqa: PLC0415
        from webapp.infra.broker.client import bind_celery, celery  # noqa: PLC0415
        from webapp.infra.broker.publish import Broker  # noqa: PLC0415
        from webapp.infra.postgres.engine import engine_options, watch_idle  # noqa: PLC0415
        from webapp.jobs import handlers  # noqa: PLC0415
        from webapp.jobs.service import Jobs  # noqa: PLC0415
        from webapp.jobs.submission import Limits, Origin, Rules  # noqa: PLC0415
        from webapp.jobs.submitter import OriginFront  # noqa: PLC0415
        from webapp.queues.dispatch import hand_back  # noqa: PLC0415
        from webapp.queues.outbox import Outbox  # noqa: PLC0415

        handlers.load(settings.handler_modules, settings.default_handler, settings.queue_names)
        if not celery.configured:
            # A worker's child has done so, and listens to what it says.
            bind_celery((*handlers.registry.queues(), handlers.MAINTENANCE_QUEUE))
        options = engine_options(
            "djps-program",
            pool_size=POOL,
            statement_timeout=STATEMENT_TIMEOUT_MS,
            lock_timeout=LOCK_TIMEOUT_MS,
            url=settings.database_url,
        )
        self._engine = watch_idle(create_engine(settings.database_url, **options))
        broker = Broker(
            settings.redis_url,
            buffer=settings.broker_buffer,
            chunk_of=handlers.registry.chunk_of,
            most=settings.max_tasks_per_child,
        )
        rules = Rules(handlers.registry, Limits.of(settings))
        self._jobs = Jobs(self._engine, rules, Outbox(broker, partial(hand_back, self._engine)))
        origin = Origin(None, None, EVERYTHING, None)
        self._front: OriginFront = OriginFront(self._jobs, origin, settings.max_payload_bytes)

    def submit(self, payload: Mapping[str, Any], **options: Any) -> Placed:
        """Submits a job. Arguments and errors as of `webapp.jobs.submit`."""
        from webapp.jobs import submitter  # noqa: PLC0415

        self._judge(payload)
        return submitter.submit(self._front, {**options, "payload": payload})

    def submit_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Placed]:
        """Submits many. Arguments and errors as of `webapp.jobs.submit_many`."""
        from webapp.jobs import submitter  # noqa: PLC0415

        for request in requests:
            self._judge(request.get("payload"))
        return submitter.submit_many(self._front, requests)

    def _judge(self, payload: object) -> None:
        """Sees to it that this program knows what runs a job.

        Raises:
            TaskNotJudged: it does not, and the workers may.
        """
        from webapp.jobs.errors import TaskNotJudged  # noqa: PLC0415

        if isinstance(payload, Mapping) and not self._jobs.can_judge(payload):
            raise TaskNotJudged(payload.get("task"))

    def close(self) -> None:
        """Waits a second at most until the workers are told, and closes all connections."""
        self._jobs.flush()
        self._engine.dispose()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()


@contextmanager
def _left_alone() -> Iterator[None]:
    """Puts back what the modules of DJPS change in a process when they are loaded, and what is the program's own."""
    from celery import _state  # noqa: PLC0415
    from prometheus_client import values  # noqa: PLC0415

    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    was, kind = getattr(_state._tls, "current_app", None), values.ValueClass  # noqa: SLF001 - the only way to it
    try:
        yield
    finally:
        _state._tls.current_app = was  # noqa: SLF001
        values.ValueClass = kind
        if folder is None:
            os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


_lock = threading.Lock()
_default: Program | None = None


def default() -> Program:
    """The one of this process, made when it is first asked for; a forked process makes its own."""
    global _default  # noqa: PLW0603 - of a process there is one
    with _lock:
        if _default is None:
            _default = Program()
        return _default


def close() -> None:
    """Closes that one, if there is one; the next submission makes another."""
    global _default  # noqa: PLW0603
    with _lock:
        if _default is not None:
            _default.close()
            _default = None


def _begin_anew() -> None:
    global _default, _lock
    # Its connections are the parent's: psycopg2 does not close what another process has opened.
    _lock, _default = threading.Lock(), None


os.register_at_fork(after_in_child=_begin_anew)
