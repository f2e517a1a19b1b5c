"""What notes of members' ends cost those that have no group: the statements of the hot path with and without, in turns.

One database has the triggers and the index of groups, the other one those from before. The product's own statements insert, claim
and end jobs in both; what counts is the CPU of PostgreSQL's process that serves them, for it waits for no one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from uuid import UUID

from sqlalchemy import Connection, create_engine, text
from uuid_utils.compat import uuid7

from ops.bench.figures import Round
from ops.bench.plan import Plan
from ops.bench.servers import Servers
from ops.bench.size import Say
from ops.bench.system import DATABASE, MIGRATED, System
from webapp.infra.broker.hints import Ticket
from webapp.infra.postgres.engine import engine_options
from webapp.jobs import ends, insert, store
from webapp.jobs.submission import NewJob
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

#: The same database without what groups have added.
BEFORE = "bench_before_groups"
#: Rounds of a full run and of a quick one; the sides go first in turn.
ROUNDS, QUICK_ROUNDS = 11, 3
#: Jobs of one round that are inserted and ended in chunks, and those that are claimed and ended one by one.
JOBS, SINGLE_JOBS = 20_000, 2_000
#: Jobs of a chunk.
CHUNK = 100
_WORKER, _LEASE = "bench:1:boot/1", 600.0
_TICKET, _TERMS = Ticket("default", "noop", 300.0, 5), ClaimTerms(CHUNK, _WORKER, _LEASE)

_AS_BEFORE = (
    "DROP TRIGGER jobs_watched ON jobs",
    "DROP TRIGGER jobs_moved ON jobs",
    """CREATE TRIGGER jobs_watched AFTER UPDATE OF status, progress ON jobs
       FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""",
    """CREATE TRIGGER jobs_moved AFTER INSERT ON jobs
       FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""",
    """DO $$ DECLARE name text; BEGIN FOR name IN SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%(group_id, id)%'
       LOOP EXECUTE format('DROP INDEX %I', name); END LOOP; END $$""",
)
#: A group that all members are of.
_GROUP = "INSERT INTO groups (id, kind, status, total) VALUES ('{group}', 'batch', 'open', 1000000)"

#: Microseconds of PostgreSQL's CPU a job, by what was done.
Costs = dict[str, float]


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Measures both in turn; a figure is the median of the rounds' ratios, with groups to without.

    Raises:
        BenchError: the database cannot be made.
    """
    rounds = ROUNDS if plan.rounds > 1 else QUICK_ROUNDS
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as folder, System(servers, Path(folder)):
        servers.make_database(BEFORE, MIGRATED)
        servers.execute(BEFORE, *_AS_BEFORE)
        try:
            _measure(rounds, servers, say, figures)
        finally:
            servers.drop_database(BEFORE)


def _measure(rounds: int, servers: Servers, say: Say, figures: Round) -> None:
    group = uuid7()
    servers.execute(DATABASE, _GROUP.format(group=group))
    sides: Mapping[str, Callable[[], Costs]] = {
        "before": lambda: _round(servers, BEFORE, None),
        "now": lambda: _round(servers, DATABASE, None),
        "members": lambda: _round(servers, DATABASE, group),
    }
    found: dict[str, list[Costs]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            costs = sides[name]()
            # The first round warms up.
            found[name] += [costs] if number else []
    for part in found["now"][0]:
        before, now, members = ([one[part] for one in found[name]] for name in found)
        ratio = median(after / earlier for earlier, after in zip(before, now, strict=True))
        figures[f"groups_{part}_before_us"] = median(before)
        figures[f"groups_{part}_us"] = median(now)
        figures[f"groups_{part}_ratio"] = ratio
        figures[f"groups_{part}_least_ratio"] = min(now) / min(before)
        figures[f"groups_{part}_of_members_us"] = median(members)
        say(
            f"{part.replace('_', ' ')}: {median(before):.1f} us of PostgreSQL's CPU a job without groups, {median(now):.1f} with"
            f" (ratio {ratio:.3f}, of the least {min(now) / min(before):.3f}), {median(members):.1f} for a member"
        )


def _round(servers: Servers, database: str, group: UUID | None) -> Costs:
    servers.execute(
        database, "TRUNCATE jobs, job_attempts, dead_letters, idempotency_keys, group_ends", "CHECKPOINT"
    )
    options = engine_options("djps-bench", pool_size=1, finds_rows=True)
    engine = create_engine(servers.sqlalchemy_url(database), **options)
    costs: Costs = {}
    try:
        with engine.connect() as connection:
            backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with _costs(costs, "insert", JOBS, backend):
                for _ in range(JOBS // CHUNK):
                    insert.insert_many(connection, [_job(group) for _ in range(CHUNK)], dispatched=False)
                    connection.commit()
            with _costs(costs, "chunk", JOBS, backend):
                _chunks(connection)
            jobs = [_job(group) for _ in range(SINGLE_JOBS)]
            insert.insert_many(connection, jobs, dispatched=False)
            connection.commit()
            claims = []
            with _costs(costs, "claim_of_one", SINGLE_JOBS, backend):
                for job in jobs:
                    claims += store.claim(connection, [job.id], worker_id=_WORKER, lease=_LEASE)
                    connection.commit()
            with _costs(costs, "end_of_one", SINGLE_JOBS, backend):
                for claim in claims:
                    ends.complete_many(connection, [ends.completed(claim, None)])
                    connection.commit()
    finally:
        engine.dispose()
    return costs


def _job(group: UUID | None) -> NewJob:
    return NewJob(uuid7(), "noop", '{"task": "noop"}', "default", 3, 300.0, None, b"f", group=group)


def _chunks(connection: Connection) -> None:
    """Ends each chunk in the statement that claims the next one."""
    claims = tickets.claim_due(connection, _TICKET, _TERMS)
    connection.commit()
    while claims:
        done = [ends.completed(claim, None, 0.0, 0.0001) for claim in claims]
        _, claims = tickets.end_and_claim(connection, done, _TICKET, _TERMS)
        connection.commit()


@contextmanager
def _costs(costs: Costs, part: str, jobs: int, backend: int) -> Iterator[None]:
    """What a block costs PostgreSQL's process, a job; waits for what it writes are not in it."""
    before = _nanoseconds(backend)
    yield
    costs[part] = (_nanoseconds(backend) - before) / 1000 / jobs


def _nanoseconds(pid: int) -> int:
    """CPU time of a process so far; its usual clock goes in steps of 10 ms."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
