"""Faults of jobs that kill their process, and of the limits around a job: what is lost must be the job that ran, and no other."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from ops.chaos.posts import Posts
from ops.chaos.stage import Broken, Stage
from ops.stack import postgres
from webapp.infra.broker.messages import HARD_LIMIT_GRACE

#: Quick jobs in a batch beside the one that kills its process.
NEIGHBOURS = 199
#: Longest until all of such a batch is final, seconds.
BATCH_PATIENCE = 30.0
#: Jobs that kill their process each time they run, and how often each is tried again.
KILLERS, RETRIES = 48, 20
#: Of those, how many at once, beside one that runs on.
AT_ONCE = 4
#: Longest from a child's death until its attempt's end is on record, at p99, seconds; the job ends its process at once.
RECOVERED_P99 = 2.0
#: Longest until a job is run again whose process died, ever, seconds: a slot that is blocked shows here.
AGAIN_EVER = 5.0
#: Longest until all of them are final, seconds.
KILLERS_PATIENCE = 120.0
#: How long the job beside them runs, milliseconds.
BESIDE_MS = 25_000
#: Seconds for which PostgreSQL is away from jobs whose time is over by then: longer than limit and grace together.
AWAY, SHORT_LIMIT = 11.0, 3.0
#: How long those jobs run, seconds.
RUNS = 2.0
#: Jobs with a limit of milliseconds, and that limit, seconds.
HASTY, HASTY_LIMIT = 50, 0.05


def poison_chunk(stage: Stage) -> None:
    """Among 200 quick jobs of one task there is one that kills its process, for three budgets of retries.

    Raises:
        Broken: a neighbour's attempt was lost, or did not complete.
    """
    posts = Posts(stage)
    for max_retries in (0, 1, 3):
        options = {"max_retries": max_retries}
        jobs = [("plain", {"task": "chaos.effect", "ms": 0}, options) for _ in range(NEIGHBOURS)]
        cause = stage.rng.randrange(NEIGHBOURS)
        jobs.insert(cause, ("killer", {"task": "chaos.effect", "exit": 139}, options))
        with stage.fault(f"a job with {max_retries} retries kills its process beside {NEIGHBOURS} others"):
            ids = posts.post(jobs)
            posts.await_final(ids, BATCH_PATIENCE)
        killer = ids.pop(cause)
        neighbours, own = posts.outcomes(ids), posts.outcomes([killer])
        stage.say(f"attempts of the neighbours: {neighbours}; its own: {own}")
        if neighbours.get("completed") != NEIGHBOURS or set(neighbours) - {"completed", "released"}:
            raise Broken(f"neighbours of a job that killed its process paid for it: {neighbours}")
        if own != {"lost": max_retries + 1}:
            raise Broken(f"a job with {max_retries} retries that kills its process ended with {own}")


def kill_and_retry(stage: Stage) -> None:
    """Jobs that kill their process are tried again at once, twenty times each, beside a job that runs on.

    Raises:
        Broken: one was not run again in time, the worker ended itself, or the job beside them ran twice.
    """
    posts = Posts(stage)
    exits = len(stage.system.members["worker"].exits)
    deaths = _Deaths()
    for _ in range(KILLERS // AT_ONCE):
        with stage.fault(f"{AT_ONCE} jobs kill their process {RETRIES + 1} times each"):
            beside = posts.post([("plain", {"task": "chaos.effect", "ms": BESIDE_MS}, {})])
            killers = posts.post(
                [("killer", {"task": "chaos.effect", "exit": 139}, {"max_retries": RETRIES, "timeout": 60})]
                * AT_ONCE
            )
            posts.await_final(killers, KILLERS_PATIENCE)
        deaths.note(stage, killers)
        posts.await_final(beside, 2 * BESIDE_MS / 1000)
        # Where it was claimed together with one of them, it is given back once; it must not be lost.
        found = posts.outcomes(beside)
        if found.get("completed") != 1 or set(found) - {"completed", "released"}:
            raise Broken(f"the job beside those that kill their processes ended with {found}")
    if len(stage.system.members["worker"].exits) != exits:
        raise Broken("the worker ended although only children of it died")
    deaths.judge(stage)


@dataclass(slots=True)
class _Deaths:
    """What jobs that kill their process have seen: seconds, one for each death."""

    recovered: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)

    def note(self, stage: Stage, ids: list[str]) -> None:
        """Takes in what became of these jobs."""
        rows = stage.system.rows(
            "SELECT extract(epoch FROM ended_at - started_at)::float8,"
            " extract(epoch FROM lead(started_at) OVER (PARTITION BY job_id ORDER BY attempt) - started_at)::float8"
            " FROM attempts WHERE job_id = ANY(%s::uuid[])",
            ids,
        )
        self.recovered += [recovered for recovered, _ in rows]
        self.again += [again for _, again in rows if again is not None]

    def judge(self, stage: Stage) -> None:
        """Says what was seen.

        Raises:
            Broken: it took too long.
        """
        recovered = sorted(self.recovered)[int(len(self.recovered) * 0.99)]
        again = sorted(self.again)
        stage.say(
            f"{len(self.recovered)} attempts ended within {recovered:.2f} s of their process's death (p99);"
            f" run again after {again[len(again) // 2]:.2f} s (p50), {again[-1]:.2f} s at most"
        )
        if recovered > RECOVERED_P99:
            raise Broken(f"an attempt ended {recovered:.1f} s after its process had died (p99)")
        if again[-1] > AGAIN_EVER:
            raise Broken(f"a job was run again {again[-1]:.1f} s after its process had died")


def limits_while_away(stage: Stage) -> None:
    """Jobs end while PostgreSQL is away for longer than their time limit; others have a limit of milliseconds.

    Raises:
        Broken: one of them was run again, or did not complete.
    """
    posts = Posts(stage)
    sleepers = [
        ("asleep", {"task": "sleep", "seconds": RUNS}, {"timeout": SHORT_LIMIT, "max_retries": 0})
    ] * 2
    ids = posts.post(sleepers)
    stage.await_that(
        lambda: (
            stage.system.rows(
                "SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND status = 'processing'", ids
            )
            == [(len(ids),)]
        ),
        10,
        "the jobs to run",
        0.02,
    )
    with stage.fault(
        f"PostgreSQL away for {AWAY:g} s; jobs' limit and grace are {SHORT_LIMIT + HARD_LIMIT_GRACE:g} s"
    ):
        # A plain SIGTERM would let those that are connected go on.
        stage.system.stop("postgres", signal.SIGINT)
        stage.hold(AWAY)
        stage.system.start("postgres")
        postgres.wait_and_create(stage.system.postgres_port)
    hasty = {"timeout": HASTY_LIMIT, "max_retries": 0}
    stage.await_that(lambda: stage.system.ready() == "ok", 30, "the API to be ready")
    ids += posts.post([("asleep", {"task": "noop"}, hasty)] * HASTY)
    posts.await_final(ids, BATCH_PATIENCE)
    if (found := posts.outcomes(ids)) != {"completed": len(ids)}:
        raise Broken(f"jobs that ended within their time limit ended with {found}")
