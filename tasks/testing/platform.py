"""DJPS in a test's process: the real application over a database and a broker of its own, with no worker beside it.

A test submits, says when jobs run, and moves the clock. Jobs run in the test's own process, by the worker's own code, so that
what a test replaces in a handler's module is replaced.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from celery.exceptions import Retry as MessageDone
from flask_migrate import upgrade
from redis import Redis
from sqlalchemy import ColumnElement, DateTime, Engine, Table, and_, func, select, update
from werkzeug.serving import make_server

from tasks import dead_letter
from tasks.execution import JobsFailed, execute_job
from tasks.runtime import forget_parent, runtime
from tasks.sweeps.callbacks import run_callbacks
from tasks.sweeps.expire import run_expiry
from webapp import create_app
from webapp.audit.tables import AuditEventRow, AuditSealRow
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.base import Base
from webapp.jobs.service import Jobs
from webapp.jobs.tables import Job, LivingJob
from webapp.settings import Settings, use
from webapp.settings.targets import read_targets

#: Most attempts of one `drain`: jobs that submit jobs could go on for ever.
MOST_ATTEMPTS = 10_000
#: Longest that a drain waits for another one, seconds.
TURN_PATIENCE = 60.0
#: How many jobs are looked for at once.
BATCH = 100
#: Settings that say which handlers there are.
OF_HANDLERS = ("HANDLERS", "DEFAULT_HANDLER", "QUEUES")
#: Requests that make jobs.
_SUBMISSIONS = frozenset({"/jobs", "/jobs/batch"})
_ACCEPTED = frozenset({200, 201})


class NotDrained(AssertionError):
    """Jobs keep coming."""


class Refused(AssertionError):
    """A submission was refused; the message is what the response says."""


class Platform:
    """DJPS without workers: what it keeps, it keeps until a test says `drain`.

    Args:
        settings: they name servers that nothing else uses.

    Example:
        >>> def test_a_mail_is_sent(djps):  # doctest: +SKIP
        ...     job = djps.submit({"task": "send-mail", "to": "ada@example.org"})
        ...     djps.drain()
        ...     assert djps.job(job["id"])["status"] == "completed"
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        with _logging_as_it_was():
            self._app = create_app(settings, command_line=True)
            with self._app.app_context():
                upgrade()
                self._engine: Engine = self._app.extensions["sqlalchemy"].engine
                # Migrations wait longer for locks, and their connection would go on doing so.
                self._engine.dispose()
        self._redis = Redis.from_url(settings.redis_url)
        self._client = self._app.test_client()
        self._inline = False
        self._turn = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the application under test reaches this DJPS by HTTP."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def submit(self, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Submits a job as `POST /jobs` does; returns it as the response has it.

        Args:
            payload: with `task`.
            options: `max_retries`, `delay`, `queue`, `idempotency_key`, ...

        Raises:
            Refused: the submission was refused.
            TypeError: the payload is no mapping.
        """
        if not isinstance(payload, Mapping):
            raise TypeError(f"a payload is a mapping such as {{'task': 'noop'}} (given: {payload!r:.80})")
        answer = self._client.post("/jobs", json={"payload": dict(payload), **options})
        said: Any = answer.json
        if answer.status_code not in _ACCEPTED:
            raise Refused(f"{answer.status_code}: {said['detail']}")
        self._drain_if_inline()
        return self.job(said["id"])

    def job(self, job_id: str | UUID) -> dict[str, Any]:
        """A job, as `GET /jobs/{id}` shows it.

        Raises:
            KeyError: there is no such job.
        """
        answer = self._client.get(f"/jobs/{job_id}")
        if answer.status_code not in _ACCEPTED:
            raise KeyError(str(job_id))
        return cast("dict[str, Any]", answer.json)

    def jobs(self, **filters: Any) -> list[dict[str, Any]]:
        """The newest jobs, as `GET /jobs` lists them, with its filters: `status`, `task`, `queue`, `tag`, `limit`, ...

        Raises:
            Refused: a filter breaks its rule.
        """
        answer = self._client.get("/jobs", query_string=filters)
        said: Any = answer.json
        if answer.status_code not in _ACCEPTED:
            raise Refused(f"{answer.status_code}: {said['detail']}")
        return cast("list[dict[str, Any]]", said["items"])

    def drain(self, *, to_the_end: bool = False) -> list[dict[str, Any]]:
        """Runs every job that is due, and those that these submit, until none is; returns a job for each attempt, as it was after it.

        Jobs run one after the other, the most urgent first. Retries, dead letters, expiry and callbacks are as in a worker.

        Args:
            to_the_end: move the clock on to what is due next, until no job waits any more.

        Raises:
            NotDrained: there were ten thousand attempts, and still jobs wait; or another drain does not end.
        """
        if not self._turn.acquire(timeout=TURN_PATIENCE):
            raise NotDrained("another drain is running, perhaps the one that runs this handler")
        try:
            return self._drain(to_the_end=to_the_end)
        finally:
            self._turn.release()

    def advance(self, seconds: float) -> None:
        """Moves the clock: all that is stored becomes so much older.

        Args:
            seconds: above 0.

        Raises:
            ValueError: the clock does not go back.
        """
        if not isinstance(seconds, (int, float)):
            raise TypeError(f"the clock goes on by a number of seconds (given: {seconds!r:.80})")
        if not seconds > 0:
            raise ValueError(f"the clock goes on by more than 0 seconds (given: {seconds!r})")
        older = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        with self._engine.begin() as connection:
            for table in _tables():
                times = [column for column in table.columns if isinstance(column.type, DateTime)]
                if times:
                    connection.execute(update(table).values({column: column - older for column in times}))

    @contextmanager
    def inline(self) -> Iterator[None]:
        """Runs every job as soon as it is submitted: when a submission is answered, its job has made its attempt.

        Jobs that are submitted by HTTP run in a thread, where time limits do not work.
        """
        self._inline = True
        try:
            yield
        finally:
            self._inline = False

    def allow_calls(self, target: str) -> None:
        """Lets callbacks and `http` jobs reach a receiver of the test's own, as HTTP_ALLOWED_TARGETS does; until `empty`.

        Args:
            target: host and port, such as `127.0.0.1:5000`.

        Raises:
            ValueError: it is no such thing.
        """
        read_targets(target)
        use(self._settings.model_copy(update={"http_allowed_targets": target}))

    def empty(self) -> None:
        """Forgets every job, and what was allowed."""
        use(self._settings)
        self._app.extensions["jobs"].flush()
        names = ", ".join(table.name for table in _tables())
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"TRUNCATE {names}")
        self._redis.flushdb()

    def close(self) -> None:
        """Ends the HTTP server, and closes connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._redis.close()
        self._engine.dispose()
        runtime().engine.dispose()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._app(environ, start_response)
        if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] in _SUBMISSIONS:
            self._drain_if_inline()
        return answer

    def _drain_if_inline(self) -> None:
        # A job that submits jobs is run by a drain already, which runs those, too.
        if self._inline and self._turn.acquire(blocking=False):
            try:
                self._drain(to_the_end=False)
            finally:
                self._turn.release()

    def _drain(self, *, to_the_end: bool) -> list[dict[str, Any]]:
        attempts: list[dict[str, Any]] = []
        # What a test has paused a moment ago is paused.
        runtime().book.forget()
        while True:
            run_expiry(runtime())
            run_callbacks(runtime())
            due = self._due()
            for job_id in due:
                if len(attempts) >= MOST_ATTEMPTS:
                    raise NotDrained(f"{MOST_ATTEMPTS} attempts were made, and jobs still wait")
                self._attempt(job_id)
                attempts.append(self.job(job_id))
            if not due and not (to_the_end and self._next_is_due()):
                return attempts

    def _due(self) -> list[UUID]:
        statement = (
            select(Job.id)
            .where(_waits_its_turn(), Job.run_at <= func.now())
            .order_by(Job.priority.desc(), Job.run_at, Job.id)
            .limit(BATCH)
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(statement))

    def _next_is_due(self) -> bool:
        """Moves the clock to the next job that waits; False where none does."""
        statement = select(func.extract("epoch", func.min(Job.run_at) - func.now())).where(_waits_its_turn())
        with self._engine.connect() as connection:
            seconds = connection.scalar(statement)
        if seconds is None:
            return False
        # A little more, for what is stored is rounded.
        self.advance(max(float(seconds), 0.0) + 0.001)
        return True

    def _attempt(self, job_id: UUID) -> None:
        """One attempt of a job, by the task that a worker runs."""
        try:
            execute_job.run(str(job_id))
        except MessageDone:
            # It is queued again, or was cancelled.
            return
        except JobsFailed:
            jobs: Jobs = self._app.extensions["jobs"]
            dead_letter.move(runtime().engine, job_id, jobs.get(job_id, EVERYTHING).attempt)


def _waits_its_turn() -> ColumnElement[bool]:
    """That a job is queued, and not paused."""
    rules = runtime().book.rules()
    return and_(
        Job.status == "queued",
        Job.queue.not_in(rules.closed_queues),
        Job.task.not_in(rules.closed_tasks),
    )


def _tables() -> list[Table]:
    """What holds rows that may be changed; a partition's are its table's. The record of acts is only added to."""
    left_out = {LivingJob.__tablename__, AuditEventRow.__tablename__, AuditSealRow.__tablename__}
    return [table for table in Base.metadata.sorted_tables if table.name not in left_out]


def made(database_url: str, redis_url: str) -> Platform:
    """A platform over servers that nothing else uses.

    Of this process's environment only `HANDLERS`, `DEFAULT_HANDLER` and `QUEUES` count; all else is as by default. What a test has
    imported is known as a handler without them.

    Raises:
        SettingsError: one of these is wrong, or a module with handlers cannot be imported.
    """
    defaults = {
        field.alias or name: field.get_default(call_default_factory=True)
        for name, field in Settings.model_fields.items()
    }
    ours = {
        "database_url": database_url,
        "redis_url": redis_url,
        "rate_limit": "",
        # With modules of one's own, a task that is not known is refused, as it is in production; this one is known anyway.
        "handlers": "tasks.handlers.demo",
    }
    ours |= {name.lower(): os.environ[name] for name in OF_HANDLERS if os.environ.get(name)}
    settings = Settings.model_validate(defaults | ours)
    use(settings)
    forget_parent()
    return Platform(settings)


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """An application configures the logging of its process; a test's process has its own."""
    root, source, hook = logging.getLogger(), logging._srcfile, threading.excepthook  # noqa: SLF001 - it is put back
    handlers, level = root.handlers[:], root.level
    flags = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    shown = warnings.showwarning
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        warnings.showwarning = shown
        root.handlers[:], logging._srcfile, threading.excepthook = handlers, source, hook  # noqa: SLF001 - as above
        root.setLevel(level)
        logging.logThreads, logging.logProcesses, logging.logMultiprocessing = flags
