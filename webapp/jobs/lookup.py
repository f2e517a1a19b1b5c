"""Reads jobs for those who ask: one, its attempts, a page."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from webapp.flow.reach import Reach
from webapp.infra.postgres.engine import Read, in_one_trip
from webapp.jobs import explain, job_logs, pages, retention, store
from webapp.jobs.errors import JobGone, JobNotFound
from webapp.jobs.filters import Filter
from webapp.jobs.job_logs import JobLog
from webapp.jobs.model import MAX_ATTEMPT, AttemptRow, JobRow


class Lookup:
    """Looks jobs up, each time in one exchange with the database. What a caller does not reach is not there.

    Args:
        engine: the database.
        retention_days: days a final job is kept; 0: for ever.
    """

    def __init__(self, engine: Engine, retention_days: int) -> None:
        self._engine = engine
        self._retention_days = retention_days

    def get(self, job_id: UUID, reach: Reach) -> JobRow:
        """One job.

        Raises:
            JobNotFound: there is none with this id.
            JobGone: it was deleted for its age.
        """
        return in_one_trip(self._engine, lambda connection: self.found(connection, job_id, reach))

    def watch(self, job_id: UUID, reach: Reach) -> JobRow:
        """One job, which from now on tells of its changes.

        Raises:
            JobNotFound: there is none with this id.
            JobGone: it was deleted for its age.
        """

        def watched(connection: Connection) -> JobRow:
            self.check(connection, job_id, reach)
            store.watch(connection, job_id)
            return self.found(connection, job_id, reach)

        return in_one_trip(self._engine, watched)

    def explain(
        self, job_id: UUID, workers_of: Callable[[str], int | None], reach: Reach
    ) -> explain.Explanation:
        """Why a job is not running now.

        Args:
            workers_of: how many live workers listen to a queue; None when that is not known.

        Raises:
            JobNotFound: there is no job with this id.
            JobGone: it was deleted for its age.
        """

        def look(connection: Connection) -> explain.Situation:
            job = self.found(connection, job_id, reach)
            return explain.situation(connection, job, workers_of(job.queue), reach)

        return explain.explain(in_one_trip(self._engine, look))

    def attempts(
        self, job_id: UUID, reach: Reach, *, before: int | None, limit: int
    ) -> tuple[list[AttemptRow], bool]:
        """A job's attempts from the newest on, as many as fit into a page; and whether there may be more.

        Args:
            before: only attempts with a smaller number.

        Raises:
            JobNotFound: there is no job with this id.
            JobGone: it was deleted for its age.
        """
        newest = before if before is not None else MAX_ATTEMPT

        def look(connection: Connection) -> tuple[list[AttemptRow], bool]:
            ended_at = self.found(connection, job_id, reach).finished_at
            return store.attempts(
                connection, job_id, ended_at, before=newest, limit=limit, room=pages.PAGE_BYTES
            )

        return in_one_trip(self._engine, look)

    def log(self, job_id: UUID, reach: Reach) -> tuple[JobRow, JobLog]:
        """A job, and what its handler has logged.

        Raises:
            JobNotFound: there is no job with this id.
            JobGone: it was deleted for its age.
        """

        def look(connection: Connection) -> tuple[JobRow, JobLog]:
            return self.found(connection, job_id, reach), job_logs.read(connection, job_id)

        return in_one_trip(self._engine, look)

    def page(
        self,
        wanted: Filter,
        reach: Reach,
        *,
        limit: int,
        offset: int = 0,
        before: UUID | None = None,
        large: Collection[str] = pages.LARGE,
        read: Read | None = None,
    ) -> pages.Page:
        """Jobs from the newest on, and how many there are in all.

        Args:
            limit: most jobs.
            offset: matching jobs that are passed over.
            before: only jobs older than this one.
            large: fields that may be large and are wanted.
            read: reads them; None: from the primary.
        """
        within = wanted.within(reach)
        if within.queues == ():
            return pages.EMPTY

        def work(connection: Connection) -> pages.Page:
            return pages.page(connection, within, limit=limit, offset=offset, before=before, large=large)

        found = in_one_trip(self._engine, work) if read is None else read(work)
        return found if reach.is_everything else found.without_strangers()

    def check(self, connection: Connection, job_id: UUID, reach: Reach) -> None:
        """Sees to it that a job is reached before it is touched; who reaches everything pays nothing for it.

        Raises:
            JobNotFound, JobGone: as for `found`.
        """
        if not reach.is_everything:
            self.found(connection, job_id, reach)

    def found(self, connection: Connection, job_id: UUID, reach: Reach) -> JobRow:
        """One job; one that is not reached is not there.

        Raises:
            JobNotFound: there is none with this id.
            JobGone: there is none, and one of this age would have been deleted.
        """
        row = store.find(connection, job_id, reach)
        if row is not None:
            return row
        past = retention.is_past(job_id, datetime.now(UTC), self._retention_days)
        raise JobGone(job_id) if past else JobNotFound(job_id)
