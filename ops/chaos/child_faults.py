"""Faults of jobs that submit jobs: what has a name is submitted once, however often the job that submits is tried."""

from __future__ import annotations

from contextlib import suppress

from ops.chaos.database_faults import database_down
from ops.chaos.limit_faults import flush_once
from ops.chaos.posts import Posted, Posts
from ops.chaos.process_faults import kill_children, kill_once
from ops.chaos.stage import Stage
from ops.chaos.system import await_that

#: Jobs that submit, how many each submits, and how long each takes after that, milliseconds: long enough to be killed in.
PARENTS, CHILDREN, MS = 60, 3, 300
#: Of how many the first attempt fails: one in so many.
FAILING = 3
#: What their children are found by.
TAG = "of-a-job"
#: Longest that they get to end, seconds.
DONE_WITHIN = 90.0

# Jobs that have not each of their children, and none twice.
_WRONG = """
SELECT count(*) FROM unnest(%s::text[]) AS parent
 WHERE (SELECT count(*) FROM jobs WHERE tags @> ARRAY[%s] AND payload->>'of' = parent) <> %s
    OR (SELECT count(DISTINCT payload->>'number') FROM jobs WHERE tags @> ARRAY[%s] AND payload->>'of' = parent) <> %s"""
_LEFT = "SELECT count(*) FROM jobs WHERE tags @> ARRAY[%s] AND status <> 'completed'"
_AGAIN = "SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND attempt > 1"


def children_once(stage: Stage) -> None:
    """Jobs that submit others are killed, fail and are tried again, while Redis is flushed and PostgreSQL restarts."""
    posts = Posts(stage)
    ids = posts.post([_parent(number) for number in range(PARENTS)])
    kill_children(stage)
    flush_once(stage)
    database_down(1, immediate=True)(stage)
    stage.hold(2)
    kill_once("worker")(stage)
    posts.await_final(ids, DONE_WITHIN)
    with suppress(TimeoutError):
        await_that(
            lambda: stage.system.rows(_LEFT, TAG) == [(0,)], DONE_WITHIN * stage.slack, "children to end"
        )
    ((again,),) = stage.system.rows(_AGAIN, ids)
    stage.say(f"{len(ids)} jobs submitted {CHILDREN} each; {again} of them were tried again")
    ((wrong,),) = stage.system.rows(_WRONG, ids, TAG, CHILDREN, TAG, CHILDREN)
    if wrong:
        stage.broken["L22 children not once"] = f"{wrong} jobs lack a child, or have one twice"
    if left := stage.system.rows(_LEFT, TAG)[0][0]:
        stage.broken["L22 children left"] = f"{left} children have not completed"


def _parent(number: int) -> Posted:
    payload = {"task": "chaos.effect", "ms": MS, "children": CHILDREN, "fails": int(number % FAILING == 0)}
    return "held", payload, {}
