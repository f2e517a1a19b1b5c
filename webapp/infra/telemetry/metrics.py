"""Every counter and histogram of DJPS, declared once, true across processes.

Values live in memory-mapped files under `PROMETHEUS_MULTIPROC_DIR`, which API, workers and beat of one
host share. Gauges are not here: they are read from PostgreSQL and Redis at each scrape
(`webapp.api.gauges`). No job or client id is ever a label, and a task or queue that no one registered is
`other`. `ops/docs/metrics.md` lists them all.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from webapp.infra.telemetry.counter_slots import Slots
from webapp.settings import current, sweeps

#: prometheus_client reads this variable at import, so it is set before the import below.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str((current().data_dir / "metrics").absolute())
FOLDER = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
with suppress(OSError):
    FOLDER.mkdir(parents=True, exist_ok=True)

from prometheus_client import CollectorRegistry, Counter, Histogram, multiprocess, values  # noqa: E402
from prometheus_client.metrics_core import Metric  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

from webapp.infra import patches  # noqa: E402
from webapp.infra.telemetry.counter_files import UNREADABLE, CounterFile, readable  # noqa: E402

# A process in memory has no file that could be deleted.
_slots = Slots(FOLDER, lambda: [one.path for one in CounterFile.opened if not one.in_memory])
patches.put("prometheus_client.values:MmapedDict", CounterFile)
values.ValueClass = values.MultiProcessValue(process_identifier=_slots.number)  # type: ignore[no-untyped-call]

#: Label of a task or queue that this process does not know.
OTHER = "other"
#: Most tasks, and most queues, that have labels of their own; each costs two histograms.
MOST_NAMES = 200

#: Seconds; from a no-op to the longest default timeout.
RUN_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: Seconds; the objective for starts is 5, and a retry's tick is 1.
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: Seconds from due to started that the objective allows.
LATE = 5.0
#: Seconds; a request that stores a job is refused after 0.8.
HTTP_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

#: What beat asks for, and the message that moves a job to the dead letter queue: all that maintenance runs.
SWEEPS = (*(plan.name for plan in sweeps.SWEEPS), "bury_job")

jobs_created = Counter(
    "jobs_created_total",
    "Jobs accepted and stored; those that came by `djps_submit` within a second after their commit.",
)
jobs_completed = Counter("jobs_completed_total", "Jobs that completed.")
jobs_failed = Counter("jobs_failed_total", "Jobs that went to the dead letter queue.")
jobs_cancelled = Counter("jobs_cancelled_total", "Jobs that were cancelled on request.")
jobs_expired = Counter("jobs_expired_total", "Jobs that were cancelled since they were not started in time.")
jobs_requeued = Counter("jobs_requeued_total", "Failed and cancelled jobs that were queued again on request.")
jobs_snoozed = Counter("jobs_snoozed_total", "Attempts that asked to come back later; no retry is used up.")
jobs_released = Counter(
    "jobs_released_total", "Attempts that were given back before their end; no retry is used up."
)
callbacks_created = Counter("job_callbacks_created_total", "Callbacks; each is a created job as well.")
jobs_retried = Counter("jobs_retried_total", "Attempts that failed and were given another try.")
jobs_recovered = Counter("jobs_recovered_total", "Jobs taken back from a dead or silent worker.", ["reason"])
submissions = Counter(
    "job_submissions_total",
    "Submissions by outcome: created, replayed (answered with the job that owns or holds its key) or refused, then with the reason.",
    ["outcome", "reason"],
)
submissions_refused = Counter(
    "job_submissions_refused_total",
    "Submissions, and items of batches, that were refused for a bound of their queue: max_depth, max_age or key_max_depth.",
    ["queue", "reason"],
)
retries = Counter("job_retries_total", "Attempts that failed and were given another try, by task.", ["task"])
dead_letters = Counter(
    "job_burials_total", "Jobs that went to the dead letter queue, by task.", ["task", "reason"]
)
starts_late = Counter("job_starts_late_total", "Jobs that started later than 5 s after they were due.")
jobs_refused = Counter(
    "job_claims_refused_total", "Messages whose job was not there to claim: duplicates, stale."
)
leases_lost = Counter("job_leases_lost_total", "Results dropped because the attempt's lease was lost.")
jobs_dispatched = Counter(
    "jobs_dispatched_total",
    "Messages: submitted (by the API), due (by the dispatcher), unclaimed (again), ticket (for a backlog).",
    ["reason"],
)
dispatch_failures = Counter(
    "job_dispatch_failures_total", "Hints that could not be sent; the dispatcher sends them later."
)
database_refusals = Counter(
    "database_refusals_total",
    "Requests answered 503 for the database's sake: away, read_only, busy, slow, full, refused, no_connection.",
    ["reason"],
)
auth_refusals = Counter(
    "auth_refusals_total",
    "Requests refused for who asks: no_key, malformed, unknown, expired, too_many (attempts of an address), address, host, another_site, suspended, scope, database_away.",
    ["reason"],
)
list_reads = Counter(
    "database_list_reads_total",
    "Lists where a read replica is set, by the server that was read; reason: why not the replica.",
    ["server", "reason"],
)
lane_repairs = Counter(
    "lane_repairs_total", "Lanes of limited queues that were out of order and were mended."
)
audit_breaks = Counter(
    "audit_breaks_total", "Looks at a seal of the record of acts that found that it does not fit."
)
schedule_firings = Counter(
    "djps_schedule_firings_total",
    "Times of schedules by what became of them: fired, buffered, skipped, refused, missed, paused.",
    ["outcome"],
)
schedule_lag = Histogram(
    "djps_schedule_lag_seconds", "From a schedule's time to its firing.", buckets=WAIT_BUCKETS
)
batches_created = Counter("djps_batches_created_total", "Batches that were made.")
batches_ended = Counter(
    "djps_batches_ended_total",
    "Batches all of whose members had ended; one that goes on afterwards ends anew.",
)
batch_events = Counter(
    "djps_batch_events_total", "Jobs that tell of batches: failure, complete, success.", ["event"]
)
workflows_ended = Counter(
    "djps_workflows_ended_total",
    "Ends of workflows: completed, failed, cancelled; one that goes on after it ended may end again.",
    ["status"],
)
workflow_steps = Counter(
    "djps_workflow_steps_total",
    "Steps of workflows by what they came to: completed, failed, cancelled, skipped.",
    ["status"],
)
sweep_runs = Counter(
    "sweep_runs_total", "Runs of what beat asks for, by outcome: completed or failed.", ["sweep", "outcome"]
)
sweep_seconds = Histogram("sweep_seconds", "How long such a run took.", ["sweep"], buckets=RUN_BUCKETS)
job_log_lines_dropped = Counter(
    "job_log_lines_dropped_total",
    "Lines of handlers that were to be kept and are not: too many at once, or the database was away.",
)
background_failures = Counter(
    "background_failures_total",
    "Turns that failed of what a process does beside its work: presence, beat, outbox, listener.",
    ["part", "step"],
)
job_duration = Histogram(
    "job_duration_seconds", "How long attempts ran.", ["task", "queue"], buckets=RUN_BUCKETS
)
job_wait = Histogram("job_wait_seconds", "From due to started.", ["task", "queue"], buckets=WAIT_BUCKETS)

# A series that appears with its first event hides that event from `rate` and `increase`.
for _reason in ("child_died", "worker_died", "lease_expired"):
    jobs_recovered.labels(_reason)
for _outcome in ("fired", "buffered", "skipped", "refused", "missed", "paused"):
    schedule_firings.labels(_outcome)
for _event in ("failure", "complete", "success"):
    batch_events.labels(_event)
for _status in ("completed", "failed", "cancelled"):
    workflows_ended.labels(_status)
for _status in ("completed", "failed", "cancelled", "skipped"):
    workflow_steps.labels(_status)
for _reason in ("submitted", "due", "unclaimed", "ticket"):
    jobs_dispatched.labels(_reason)
for _outcome in ("created", "replayed"):
    submissions.labels(_outcome, "")
for _reason in ("database_away", "error"):
    # What the objective of submissions counts as failed.
    submissions.labels("refused", _reason)
for _reason in ("away", "busy", "full", "no_connection", "read_only", "refused", "slow"):
    database_refusals.labels(_reason)
for _reason in ("no_key", "malformed", "unknown", "expired", "too_many", "database_away"):
    auth_refusals.labels(_reason)
for _reason in ("address", "another_site", "host", "scope", "suspended"):
    auth_refusals.labels(_reason)

for _sweep in SWEEPS:
    sweep_seconds.labels(_sweep)
    for _outcome in ("completed", "failed"):
        sweep_runs.labels(_sweep, _outcome)

_tasks: frozenset[str] = frozenset()
_queues: frozenset[str] = frozenset()


def know(tasks: Iterable[str], queues: Iterable[str]) -> None:
    """Says which tasks and queues have labels of their own: those that are registered, at most `MOST_NAMES`."""
    global _tasks, _queues  # noqa: PLW0603 - one registry of handlers per process, one set of labels
    _tasks = frozenset(sorted(tasks)[:MOST_NAMES])
    _queues = frozenset(sorted(queues)[:MOST_NAMES])
    _of_job.cache_clear()


def know_replica(reasons: Iterable[str]) -> None:
    """Says that there is a read replica, and why the primary may answer in its place: each has its series from now on."""
    list_reads.labels("replica", "")
    for reason in reasons:
        list_reads.labels("primary", reason)


def _among(known: Collection[str], name: str) -> str:
    return name if name in known else OTHER


def task_label(name: str) -> str:
    """The label of a task: its name when it is registered, else `other`."""
    return _among(_tasks, name)


def queue_label(name: str) -> str:
    """The label of a queue: its name when a handler uses it, else `other`."""
    return _among(_queues, name)


@cache
def _of_job(task: str, queue: str) -> tuple[Histogram, Histogram]:
    """Wait and run histogram of a task in a queue: looking them up by label costs as much as an observation."""
    labels = (task_label(task), queue_label(queue))
    return job_wait.labels(*labels), job_duration.labels(*labels)


def observe_wait(task: str, queue: str, seconds: float) -> None:
    """Counts a start, and how long after it was due."""
    _of_job(task, queue)[0].observe(max(0.0, seconds))
    _count_late([seconds])


def observe_run(task: str, queue: str, seconds: float) -> None:
    """Counts an attempt's end, and how long it ran."""
    _of_job(task, queue)[1].observe(seconds)


def observe_many(task: str, queue: str, waits: Sequence[float], runs: Sequence[float]) -> None:
    """Counts many starts and ends of one task: `observe_wait` and `observe_run` with one addition to each bucket.

    An observation touches two values in mapped files; for hundreds of jobs in a moment that adds up, and the
    library has no call for many values.
    """
    for histogram, seconds in zip(
        _of_job(task, queue), ([max(0.0, one) for one in waits], runs), strict=True
    ):
        counts = Tally(bisect_left(histogram._upper_bounds, value) for value in seconds)
        histogram._sum.inc(sum(seconds))
        for bucket, count in counts.items():
            histogram._buckets[bucket].inc(count)

    _count_late(waits)


def _count_late(waits: Iterable[float]) -> None:
    """The histogram of a task is born with its first job; this is there before, so that no rate misses a late one."""
    if late := sum(seconds > LATE for seconds in waits):
        starts_late.inc(late)


def count_retry(task: str) -> None:
    """Counts an attempt that failed and gets another try."""
    jobs_retried.inc()
    retries.labels(task_label(task)).inc()


def count_dead_letter(task: str, reason: str) -> None:
    """Counts a job that went to the dead letter queue."""
    jobs_failed.inc()
    dead_letters.labels(task_label(task), reason).inc()


def count_failed_step(part: str, steps: Iterable[str]) -> Callable[[str], None]:
    """Gives the function that counts failed steps of a part of a process, such as `presence`.

    Args:
        steps: their names; each has its series from now on, for one that is born with its first event hides that.
    """
    for name in steps:
        background_failures.labels(part, name)
    return lambda step: background_failures.labels(part, step).inc()


def count_sweep(sweep: str, outcome: str, seconds: float | None) -> None:
    """Counts a run of a sweep, and how long it took where that is known."""
    sweep_runs.labels(sweep, outcome).inc()
    if seconds is not None:
        sweep_seconds.labels(sweep).observe(seconds)


class Stored(Collector):
    """What the processes of this host have counted, summed; without what Flower counts for itself."""

    def collect(self) -> Iterator[Metric]:
        """Reads every process's file; the folder is made when someone has deleted it."""
        with suppress(OSError):
            FOLDER.mkdir(parents=True, exist_ok=True)
        files = [str(file) for file in FOLDER.glob("*.db")]
        try:
            families = self._merged(files)
        except (OSError, *UNREADABLE):
            families = self._merged(readable(files))
        return (family for family in families if not family.name.startswith("flower_"))

    @staticmethod
    def _merged(files: list[str]) -> list[Metric]:
        return list(multiprocess.MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]


def stored() -> CollectorRegistry:
    """A registry that sums the counters and histograms of all processes."""
    registry = CollectorRegistry()
    registry.register(Stored())
    return registry
