"""What runs in a worker's children: by Celery's set of accepted messages, and by the table of running jobs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery.worker import state

from tasks.processes import run_table
from tasks.processes.process_group import is_child
from webapp.infra.broker.messages import EXECUTE_DUE, EXECUTE_JOB, EXECUTE_JOBS

#: The tasks that run jobs.
EXECUTING = frozenset({EXECUTE_JOB, EXECUTE_JOBS, EXECUTE_DUE})


def busy_children() -> set[int]:
    """The pids of the children that have accepted a message with jobs, and are not done with it."""
    return {request.worker_pid for request in _active_requests() if request.type in EXECUTING}


def running_jobs() -> dict[UUID, int]:
    """The jobs that living children of this worker run, or are about to settle, with the pid of each."""
    return {run.job_id: pid for pid, run in run_table.current().running() if is_child(pid)}


def something_runs() -> bool:
    """True while a child has accepted a message with jobs, or runs one."""
    return bool(busy_children() or running_jobs())


def messages_received() -> int:
    """How many messages the worker has taken since it started."""
    return sum(state.total_count.values())


def pid_of(holder: str) -> int:
    """The pid in the name of a lease holder."""
    return int(holder.rpartition("/")[2])


def is_tracked(holder: str) -> bool:
    """True if a lease holder is at work on a message that Celery knows of."""
    return pid_of(holder) in busy_children()


def jobs_of(args: Any) -> list[UUID]:
    """The jobs that a message names; a ticket and a forged message name none."""
    try:
        (given,) = args
        return [UUID(one) for one in (given if isinstance(given, list) else [given])]
    except (ValueError, TypeError, AttributeError):
        return []


def _active_requests() -> list[Any]:
    """The messages that children of this worker have accepted."""
    while True:
        try:
            return [request for request in list(state.active_requests) if request.worker_pid]
        except RuntimeError:
            # The worker's main thread changed the set meanwhile.
            continue
