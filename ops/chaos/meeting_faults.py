"""Two who end one job meet at its row: the second has waited, and must see what the first has left."""

from __future__ import annotations

from http import HTTPStatus

from sqlalchemy import Engine, create_engine

from ops.chaos.clients import Line
from ops.chaos.database_faults import slow_statements
from ops.chaos.posts import Posts
from ops.chaos.stage import Broken, Stage
from ops.stack import postgres
from webapp.jobs import ends
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.model import LeasedJob
from webapp.jobs.states import AttemptOutcome

#: Meetings of each kind.
MEETINGS = 8
#: How long a job of these runs, milliseconds, and how long until the one who comes late is seen, seconds.
RUNS_MS, MEETS_WITHIN = 600, 10.0
#: How long one runs while statements become slow, milliseconds.
SLOW_RUNS_MS = 2_000
#: Longest until a job whose last end is on record is moved to the dead letters, seconds: a lease and a few sweeps.
MOVED_WITHIN = 30.0
#: Pause between two looks, seconds.
GLANCE = 0.005

#: How the statement that ends attempts begins.
_ENDING = "WITH given AS%%"
_HELD = """
SELECT id, task, queue, attempt, retry_count, max_retries, worker_id, false FROM jobs
 WHERE id = %s AND status = 'processing' AND EXISTS (SELECT FROM effects WHERE job_id = jobs.id)"""
_WAITS = f"""
SELECT 1 FROM pg_stat_activity
 WHERE application_name LIKE 'djps-worker%%' AND query LIKE '{_ENDING}' AND %s = ANY(pg_blocking_pids(pid))"""  # noqa: S608 - a constant of this file
#: The session that has moved the job's row, and has not committed.
_ENDS = f"""
SELECT 1 FROM jobs_living JOIN pg_stat_activity ON backend_xid = jobs_living.xmax
 WHERE id = %s AND query LIKE '{_ENDING}'"""  # noqa: S608 - as above


def two_ends(stage: Stage) -> None:
    """Last attempts are ended, as by a sweeper that takes them for lost, while their processes end them as completed.

    The end that came first is the job's: it failed, and is a dead letter. The checker sees one that is not.
    """
    posts = Posts(stage)
    engine = create_engine(postgres.url(stage.system.postgres_port))
    ids: list[str] = []
    try:
        with stage.fault(f"two ends of one last attempt meet, {MEETINGS} times"):
            for _ in range(MEETINGS):
                ids += posts.post([("fated", {"task": "chaos.effect", "ms": RUNS_MS}, {"max_retries": 0})])
                _end_first(stage, engine, ids[-1])
    finally:
        engine.dispose()
    posts.await_final(ids, MOVED_WITHIN)


def _end_first(stage: Stage, engine: Engine, job_id: str) -> None:
    """Ends the attempt that runs, and commits once its own process waits to end it as well."""
    stage.await_that(lambda: stage.system.rows(_HELD, job_id), MEETS_WITHIN, "the job to run", GLANCE)
    held = LeasedJob(*stage.system.rows(_HELD, job_id)[0])
    error = ErrorReport("chaos.Meeting", "another one has ended it")
    with engine.begin() as connection:
        (pid,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
        if ends.end_attempt(connection, ends.last(held, AttemptOutcome.LOST, error)) is None:
            raise Broken("a job's process was quicker, so nothing was tested")
        stage.await_that(
            lambda: stage.system.rows(_WAITS, pid), MEETS_WITHIN, "its process to end it", GLANCE
        )


def cancels_at_the_end(stage: Stage) -> None:
    """Statements that end jobs are slow, and while one runs its job is cancelled: the answer waits, and is that it has completed.

    Raises:
        Broken: it was another answer.
    """
    posts = Posts(stage)
    answers = []
    with stage.fault(f"{MEETINGS} jobs are cancelled while they end"):
        for _ in range(MEETINGS):
            (job_id,) = posts.post([("plain", {"task": "chaos.effect", "ms": SLOW_RUNS_MS}, {})])
            answers.append(_cancel_at_the_end(stage, job_id))
    stage.say(f"cancels were answered {sorted(answers)}")
    if wrong := set(answers) - {HTTPStatus.CONFLICT}:
        raise Broken(f"a cancel that met its job's end was answered {sorted(wrong)}")


def _cancel_at_the_end(stage: Stage, job_id: str) -> int:
    """Cancels a job whose end is written and not committed; returns what was answered."""
    stage.await_that(lambda: stage.system.rows(_HELD, job_id), MEETS_WITHIN, "the job to run", GLANCE)
    # Only now: with slow statements all along, a job would wait for its turn for many seconds.
    with slow_statements(stage):
        stage.await_that(lambda: stage.system.rows(_ENDS, job_id), MEETS_WITHIN, "the job to end", GLANCE)
        line = Line(stage.system.api_port)
        status, _, _ = line.ask("POST", f"/jobs/{job_id}/cancel")
        line.close()
    return status
