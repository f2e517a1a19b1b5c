"""The sweep that ends attempts whose lease ran out: their processes are gone, or cannot be reached."""

from __future__ import annotations

from tasks.presence import lost_jobs
from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import sweep
from webapp.jobs import store
from webapp.settings import sweeps

PLAN = sweeps.RECOVER_STUCK


@sweep(PLAN)
def recover_stuck() -> None:
    """Takes over jobs whose lease ran out."""
    run_recovery(runtime())


def run_recovery(parts: Runtime, batch: int = PLAN.batch) -> int:
    """Settles every job whose lease ran out as lost; returns how many.

    Right after PostgreSQL was restarted nothing is taken for one lease: live workers renew theirs first.
    """
    with parts.engine.connect() as connection:
        if store.seconds_since_start(connection) < parts.settings.stuck_job_threshold:
            return 0
    return lost_jobs.settle(
        parts.engine,
        parts.policy,
        "lease_expired",
        lambda connection: store.take_stuck(connection, batch),
        send_alone=parts.dispatcher.send_each,
    )
