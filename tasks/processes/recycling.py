"""Replaces a child after MAX_TASKS_PER_CHILD jobs, however many of them a message carries, and when it is unfit."""

from __future__ import annotations

import os

from billiard.process import current_process

from tasks.attempt import pace
from tasks.processes import fork_signals, process_state
from tasks.processes.file_descriptors import files
from webapp.infra.telemetry import traces

#: Exit code of a child that is replaced; billiard takes it for an end in order.
EXIT_CODE = 0

#: Most jobs that this child runs; None: it is no child, and runs as many as there are.
_most: int | None = None


def limit(most: int) -> None:
    """Makes this process, a child of the worker, take no message any more once it has run so many jobs.

    billiard counts messages, and its bound on them stays: a message may be about no job.
    """
    global _most  # noqa: PLW0603 - a process is one child
    # billiard has no hook between two messages; its process is asked for what it runs.
    worker = getattr(current_process(), "_target", None)
    if worker is None:
        return
    _most = most
    real = worker.wait_for_job

    def wait_for_job() -> object:
        # The first time: by now billiard has set the last of its signal handlers, and no job's time limit is at work.
        state = process_state.kept() or _begin()
        if files.is_cut_off:
            # The parent cannot be told.
            traces.flush()
            os._exit(EXIT_CODE)
        if room() == 0 or state.unfit:
            raise SystemExit(EXIT_CODE)
        return real()

    worker.wait_for_job = wait_for_job


def _begin() -> process_state.ProcessState:
    fork_signals.pass_over_interrupts()
    return process_state.keep()


def room() -> int | None:
    """How many more jobs this child may run; None: any number."""
    return None if _most is None else max(0, _most - pace.jobs_run())
