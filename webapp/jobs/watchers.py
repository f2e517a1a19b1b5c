"""Requests that wait for a job: bounded in number, and woken by PostgreSQL the moment something happens to it.

A waiter marks its job as watched and looks at it again; from then on a trigger of the table `jobs` notifies the
channel `djps_watched` of every change. One connection for each API process listens for all its waiters. A notification
that is lost (the connection broke, PostgreSQL was started again) is made up for within a second, by one statement for
all jobs that are waited for. Waiters hold no connection of their own.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg2

from webapp.infra.background import NeededThread
from webapp.infra.postgres import deadlines
from webapp.infra.postgres.engine import IS_READ_ONLY, engine_options, for_driver
from webapp.infra.postgres.hosts import Hosts
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.infra.telemetry import metrics
from webapp.jobs.retention import may_end_from
from webapp.settings.database_url import connect_arguments

logger = logging.getLogger(__name__)

_VERSIONS = for_driver(read_sql(__file__, "versions"))

#: The channel of the trigger `jobs_watched`.
CHANNEL = "djps_watched"
#: Seconds between two looks that make up for lost notifications.
LOOK_EVERY = 1.0
#: Seconds the connection is kept once no request waits.
LINGER = 10.0
#: Seconds before a connection that broke is made again.
RECONNECT_AFTER = 0.5
#: Longest one exchange of the listener with PostgreSQL may take, seconds.
EXCHANGE_BUDGET = 3.0


class TooManyWaiters(Exception):
    """As many requests wait in this process as may."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} requests wait in this process already (MAX_WAITERS); ask without wait, or later"
        )
        self.limit = limit


class Watch:
    """One request that waits for one job.

    Args:
        job_id: the job.
        leave: called when it waits no more.
        left: called once, when it has left.
        is_open: False when it is to wait no longer, because its client has gone or this process is about to end.
    """

    def __init__(
        self,
        job_id: UUID,
        leave: Callable[[Watch], None],
        is_open: Callable[[], bool],
        left: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        self._leave = leave
        self.left = left
        self.is_open = is_open
        self._changed = threading.Event()
        self._missed = False

    def miss(self) -> None:
        """Says that a look at the job failed: the next wait ends soon, whether or not something happens."""
        self._missed = True

    def wake(self) -> None:
        """Says that something may have happened to the job."""
        self._changed.set()

    def wait(self, seconds: float) -> bool:
        """Waits until something may have happened; False when nothing did, or there is nothing to wait for any more.

        Args:
            seconds: longest wait.
        """
        end = time.monotonic() + seconds
        while self.is_open() and (left := end - time.monotonic()) > 0:
            if self._changed.wait(min(left, LOOK_EVERY)):
                self._changed.clear()
                return True
            if self._missed:
                self._missed = False
                return True
        return False

    def leave(self) -> None:
        """Waits no more; may be called more than once."""
        self._leave(self)


class Watchers:
    """Those who wait in this process.

    Args:
        database_url: the database to listen to.
        limit: most that may wait at once.
    """

    def __init__(self, database_url: str, limit: int) -> None:
        self._url = database_url
        self._hosts = Hosts()
        self._limit = limit
        self._lock = threading.Lock()
        self._watches: dict[UUID, set[Watch]] = defaultdict(set)
        self._count = 0
        self._listening = False
        self._thread = NeededThread("watchers", self._listen)
        self._busy_at = 0.0
        #: Whether this process goes on; gunicorn's configuration puts its own answer here.
        self.is_open: Callable[[], bool] = lambda: True

    @property
    def count(self) -> int:
        """How many wait."""
        return self._count

    def enter(
        self,
        job_id: UUID,
        is_there: Callable[[], bool] = lambda: True,
        left: Callable[[], None] = lambda: None,
    ) -> Watch:
        """Begins to watch a job; the caller leaves again, and looks at the job after this and not before.

        Args:
            job_id: the job.
            is_there: False when the client has gone; asked at least every `LOOK_EVERY`.
            left: called once, when it waits no more.

        Raises:
            TooManyWaiters: as many as may do so already.
        """
        watch = Watch(job_id, self._leave, lambda: self._is_heard() and self.is_open() and is_there(), left)
        with self._lock:
            if self._count >= self._limit:
                raise TooManyWaiters(self._limit)
            self._count += 1
            self._watches[job_id].add(watch)
            self._busy_at = time.monotonic()
            self._keep_listening()
        return watch

    def _keep_listening(self) -> None:
        """Starts the thread that listens, unless one does; without one, waiters look at their deadline only."""
        if not (self._listening and self._thread.is_alive()):
            self._listening = True
            self._thread = NeededThread("watchers", self._listen)
            self._thread.ensure()

    def _is_heard(self) -> bool:
        """Asked by each waiter every second: a listener that died is started again."""
        if not self._thread.is_alive():
            with self._lock:
                self._keep_listening()
        return True

    def _leave(self, watch: Watch) -> None:
        with self._lock:
            there = self._watches.get(watch.job_id, set())
            if watch not in there:
                return
            there.remove(watch)
            if not there:
                del self._watches[watch.job_id]
            self._count -= 1
            self._busy_at = time.monotonic()
        watch.left()

    def _wake(self, job_id: UUID) -> None:
        with self._lock:
            for watch in self._watches.get(job_id, ()):
                watch.wake()

    def _is_over(self) -> bool:
        """True if no request has waited for a while; then the thread ends, and the next waiter starts another."""
        with self._lock:
            over = not self._count and time.monotonic() - self._busy_at > LINGER
            if over:
                self._listening = False
            return over

    def _listen(self) -> None:
        while True:
            try:
                if self._listen_until_over():
                    return
            except psycopg2.Error as error:
                logger.warning("listener lost its connection", extra={"error_type": type(error).__name__})
            except Exception:
                logger.exception("listener failed unexpectedly")
                metrics.background_failures.labels("listener", "listen").inc()
            time.sleep(RECONNECT_AFTER)

    def _listen_until_over(self) -> bool:
        options = engine_options("djps-watchers", pool_size=1, url=self._url)["connect_args"]
        with deadlines.within(EXCHANGE_BUDGET):
            connection = self._hosts.connect(connect_arguments(self._url) | options)
        try:
            connection.autocommit = True
            poller = select.poll()
            poller.register(connection.fileno(), select.POLLIN)
            with deadlines.within(EXCHANGE_BUDGET), connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            seen: dict[UUID, str] = {}
            look_at = 0.0
            while not self._is_over():
                now = time.monotonic()
                if now >= look_at:
                    look_at = now + LOOK_EVERY
                    seen = self._look(connection, seen)
                if not connection.notifies:
                    poller.poll(max(0.0, look_at - time.monotonic()) * 1000)
                    connection.poll()
                while connection.notifies:
                    # Anybody who may connect may send a notification; one that names no job is none of ours.
                    with suppress(ValueError):
                        self._wake(UUID(connection.notifies.pop(0).payload))
            return True
        finally:
            connection.close()

    def _look(self, connection: Any, seen: dict[UUID, str]) -> dict[UUID, str]:
        """Wakes those whose row is another version than at the last look, or is looked at for the first time."""
        with self._lock:
            ids = list(self._watches)
        if not ids:
            return {}
        with deadlines.within(EXCHANGE_BUDGET), connection.cursor() as cursor:
            cursor.execute(IS_READ_ONLY)
            if cursor.fetchone() == (True,):
                # After a failover the changes happen elsewhere, and this server tells of none.
                raise psycopg2.OperationalError("the server takes no writes")
            cursor.execute(_VERSIONS, {"ids": array_of(ids), "since": may_end_from(*ids)})
            found = {UUID(row[0]): row[1] for row in cursor.fetchall()}
        for job_id in ids:
            if job_id not in found or seen.get(job_id) != found[job_id]:
                self._wake(job_id)
        return found
