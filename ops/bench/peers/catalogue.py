"""The catalogue of peers: how each is set up, run and tuned."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a peer's workers.

    Args:
        command: words; `{program}` is the interpreter, `{file}` the peer's file, `{bin}` the folder of the
            commands that its packages brought.
        processes: how often it is started.
        environment: more variables.
        what: how a table calls it.
        share: part of the peer's backlog that it gets, where it executes far less than the others.
    """

    command: tuple[str, ...]
    processes: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    what: str = ""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A job queue to compare with.

    Args:
        key: what its figures begin with.
        title: what a table calls it.
        package: its package, for the version.
        module: the file beside this one with its job and its client.
        jobs: backlog of a full run: what it executes in a few seconds.
        variants: `default` and `tuned`, the ways that the plan names; others add to them.
        bulk: many jobs can be sent at once.
        postgres: it keeps its jobs in PostgreSQL.
        packages: which of the sets of packages it is part of, as `ops.bench.runtimes` names them.
        quick: it is part of a quick run.
    """

    key: str
    title: str
    package: str
    module: str
    jobs: int
    variants: dict[str, Variant]
    bulk: bool = False
    postgres: bool = False
    packages: str = "peers"
    quick: bool = False


def _api(
    number: int, processes: int, what: str, *, share: float = 1.0, environment: dict[str, str] | None = None
) -> Variant:
    """A worker that the peer's API runs: `FILE work NUMBER`."""
    command = ("{program}", "{file}", "work", str(number))
    return Variant(command, processes, environment or {}, what, share)


_DRAMATIQ = ("{bin}/dramatiq", "dramatiq_jobs", "--processes", "2", "--threads", "8")
_CELERY = ("{bin}/celery", "-A", "celery_jobs", "--quiet", "worker", "-c", "2", "--loglevel", "WARNING")
_TASKIQ = ("{bin}/taskiq", "worker", "taskiq_jobs:broker", "--workers", "2", "--log-level", "WARNING")
_HUEY = ("{bin}/huey_consumer", "huey_jobs.huey", "-k", "process", "-q")
_SAQ = ("{bin}/saq", "saq_jobs.settings", "--workers", "2", "--quiet")
_RQ = ("{bin}/rq", "worker", "--quiet", "--url", "{redis}")
_STREAQ = ("{bin}/streaq", "run", "streaq_jobs:worker", "--workers", "2")

PEERS = (
    Peer(
        "pgqueuer",
        "PgQueuer",
        "pgqueuer",
        "pgqueuer_jobs",
        60_000,
        {
            "default": _api(10, 2, "batch 10, 2 processes"),
            # Which is faster depends on what PostgreSQL leaves of the cores, so both are run.
            "tuned": _api(100, 1, "batch 100"),
            "tuned_pair": _api(100, 2, "batch 100, 2 processes"),
        },
        bulk=True,
        postgres=True,
        quick=True,
    ),
    Peer(
        "dramatiq",
        "Dramatiq",
        "dramatiq",
        "dramatiq_jobs",
        20_000,
        {
            "default": Variant(_DRAMATIQ, what="2 x 8"),
            "tuned": Variant(
                _DRAMATIQ, environment={"dramatiq_queue_prefetch": "200"}, what="2 x 8, prefetch 200"
            ),
        },
        quick=True,
    ),
    Peer(
        "oban",
        "oban for Python",
        "oban",
        "oban_jobs",
        20_000,
        {
            "default": _api(10, 2, "limit 10, 2 processes"),
            "tuned": _api(50, 2, "limit 50, 2 processes"),
        },
        bulk=True,
        postgres=True,
        packages="oban",
        quick=True,
    ),
    Peer(
        "celery",
        "Celery prefork, no results",
        "celery",
        "celery_jobs",
        6_000,
        {
            "default": Variant(_CELERY, what="2 children"),
            "tuned": Variant(
                (*_CELERY, "--without-gossip", "--without-mingle", "--without-heartbeat"),
                environment={"BENCH_PREFETCH": "64"},
                what="2 children, prefetch 64, no gossip",
            ),
        },
        quick=True,
    ),
    Peer(
        "graphile",
        "Graphile Worker",
        "graphile-worker",
        "graphile_jobs",
        60_000,
        {
            "default": _api(1, 1, "as it comes", share=0.05),
            # As the perfTest of its repository runs it, in as many processes as this system has children.
            "tuned": _api(
                24,
                2,
                "24 at a time, local queue of 500, 2 processes",
                environment={"BENCH_LOCAL_QUEUE": "500", "NO_LOG_SUCCESS": "1"},
            ),
        },
        bulk=True,
        postgres=True,
        packages="graphile",
        quick=True,
    ),
    Peer(
        "taskiq",
        "taskiq, list",
        "taskiq",
        "taskiq_jobs",
        20_000,
        {
            "default": Variant(_TASKIQ, what="2 processes"),
            "tuned": Variant(
                (*_TASKIQ, "--no-parse", "--ack-type", "when_received", "--max-prefetch", "100"),
                what="2 processes, no parsing, prefetch 100",
            ),
        },
    ),
    Peer(
        "huey",
        "Huey",
        "huey",
        "huey_jobs",
        20_000,
        {
            "default": Variant((*_HUEY, "-w", "2"), what="2 processes"),
            "tuned": Variant(
                (*_HUEY, "-w", "4"), environment={"BENCH_RESULTS": "0"}, what="4 processes, no results"
            ),
        },
    ),
    Peer(
        "saq",
        "SAQ",
        "saq",
        "saq_jobs",
        10_000,
        {
            "default": Variant(_SAQ, what="2 processes"),
            "tuned": Variant(
                _SAQ, environment={"BENCH_CONCURRENCY": "100"}, what="2 processes, concurrency 100"
            ),
        },
        packages="saq",
    ),
    Peer(
        "streaq",
        "streaq",
        "streaq",
        "streaq_jobs",
        8_000,
        {
            "default": Variant(_STREAQ, what="2 processes"),
            "tuned": Variant(
                _STREAQ, environment={"BENCH_CONCURRENCY": "100"}, what="2 processes, concurrency 100"
            ),
        },
        bulk=True,
    ),
    Peer(
        "procrastinate",
        "Procrastinate",
        "procrastinate",
        "procrastinate_jobs",
        4_000,
        {
            "default": _api(1, 2, "concurrency 1, 2 processes"),
            "tuned": _api(10, 2, "concurrency 10, 2 processes"),
        },
        bulk=True,
        postgres=True,
    ),
    Peer(
        "rq",
        "RQ",
        "rq",
        "rq_jobs",
        2_000,
        {
            "default": Variant(_RQ, processes=2, what="2 workers that fork"),
            "tuned": Variant(
                (*_RQ, "--worker-class", "rq.worker.SimpleWorker"), processes=2, what="2 SimpleWorkers"
            ),
        },
        bulk=True,
    ),
)
