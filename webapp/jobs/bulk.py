"""The store's statements for many jobs at once: the chunks that workers run, pruning.

Like `webapp.jobs.store`, of which this is a part: statements are guarded by state and attempt, functions take a
connection and never commit. Values go as arrays, one for each column, so that any number of jobs is one statement.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

#: Longest a statement of a batch may run, milliseconds: ten thousand rows on a busy machine.
BATCH_TIMEOUT_MS = 15_000


def allow_time(connection: Connection) -> None:
    """Gives the statements of this transaction the time that a batch takes."""
    connection.execute(text(f"SET LOCAL statement_timeout = {BATCH_TIMEOUT_MS}"))


_FORGET_DISPATCHED = text("""
    UPDATE jobs SET dispatched_at = NULL WHERE id IN (
        SELECT id FROM jobs WHERE status = 'queued' AND dispatched_at IS NOT NULL FOR UPDATE SKIP LOCKED)""")


def forget_dispatched(connection: Connection) -> int:
    """Gives every job that was sent and not claimed back to the dispatcher: its message is gone."""
    return connection.execute(_FORGET_DISPATCHED).rowcount


_PRUNE = text("""
    WITH old AS (
        SELECT id FROM jobs WHERE finished_at < now() - make_interval(days => :days)
         ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED),
    attempts AS (DELETE FROM job_attempts WHERE job_id IN (SELECT id FROM old))
    DELETE FROM jobs WHERE id IN (SELECT id FROM old)""")


def prune(connection: Connection, *, days: int, limit: int) -> int:
    """Deletes final jobs that ended more than `days` ago, with their attempts; returns how many."""
    return connection.execute(_PRUNE, {"days": days, "limit": limit}).rowcount
