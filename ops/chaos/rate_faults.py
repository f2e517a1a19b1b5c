"""Faults of a queue under a rate: no more start in any stretch of its period, whatever dies meanwhile, and none pays with an attempt."""

from __future__ import annotations

import time

from ops.chaos import spans
from ops.chaos.limit_changes import LimitChanges
from ops.chaos.limit_faults import backlog, flush_once, forge_tickets, kill_some
from ops.chaos.posts import Posts
from ops.chaos.stage import Stage

#: Starts in a period, the period in seconds, and starts that may come at once.
STARTS, PERIOD, BURST = 50, 1.0, 1
#: A start that came late by up to this part of the period is made up for.
MADE_UP_FOR = 1 / 40
#: What a claim is noted later than it was judged lets one more into a stretch.
NOTED_LATE = 1
#: Jobs that wait, and before them those that fail once, or twice: each of their attempts is a start.
PLAIN, FAIL_ONCE, FAIL_TWICE = 500, 100, 20
#: Milliseconds each takes.
MS = 5
#: Children that are killed before and after Redis is flushed.
KILLED = 3
#: Jobs that a child has at most: what one start is early, and the burst, for each of them may be given back when it dies.
HELD = BURST + 2
#: How long the starts are counted when all is well, seconds, and the least share of the rate that they are.
WATCHED, STEADY = 5.0, 0.93

# Attempts that nothing asked for, of jobs that were told to fail so often.
_BURNT = """
SELECT count(*) FROM attempts a JOIN jobs j ON j.id = a.job_id
 WHERE j.idempotency_key LIKE %s AND (a.outcome IN ('lost', 'released') OR (a.outcome = 'failed' AND a.attempt > coalesce((j.payload ->> 'fails')::int, 0)))"""


def rate_holds(stage: Stage) -> None:
    """A backlog runs under a rate while children die, Redis is flushed and tickets are forged; then it must go on at its pace."""
    changes, posts = LimitChanges(stage), Posts(stage)
    with changes.limited({"rate": {"limit": STARTS, "per": PERIOD, "burst": BURST}}):
        since = time.time()
        jobs = backlog(PLAIN, MS)
        jobs += backlog(FAIL_ONCE, MS, fails=1) + backlog(FAIL_TWICE, MS, fails=2)
        posts.post(jobs)
        for fault in (flush_once, forge_tickets):
            kill_some(stage, KILLED)
            fault(stage)
        stage.hold(WATCHED + 1)
        until = time.time()
    claims = [span.began for span in spans.held(stage.system, stage.prefix) if since < span.began < until]
    _judge(stage, claims, until)


def _judge(stage: Stage, claims: list[float], until: float) -> None:
    most = spans.most_in_a_window(claims, PERIOD)
    steady = sum(1 for at in claims if at > until - WATCHED) / WATCHED / (STARTS / PERIOD)
    ((burnt,),) = stage.system.rows(_BURNT, f"{stage.prefix}-%")
    stage.say(
        f"{len(claims)} starts; most in {PERIOD:g} s: {most}; then {steady:.1%} of the rate; {burnt} attempts burnt"
    )
    if most > STARTS * (1 + MADE_UP_FOR) + BURST + NOTED_LATE:
        stage.broken["L4 started above the rate"] = f"{most} started within {PERIOD:g} s"
    if steady < STEADY / stage.slack:
        stage.broken["L5 slower than the rate"] = f"starts were {steady:.1%} of the rate while jobs waited"
    kills = 2 * KILLED
    if burnt > kills * HELD:
        stage.broken["L6 attempts burnt"] = (
            f"{burnt} attempts were for nothing, where {kills} children were killed"
        )
