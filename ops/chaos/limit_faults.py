"""Faults of what is under a limit: no more run at once whatever dies, is forged or is changed meanwhile, and no slot is lost by it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress

from ops.chaos import spans
from ops.chaos.database_faults import database_down
from ops.chaos.limit_changes import LimitChanges
from ops.chaos.message_faults import message
from ops.chaos.posts import Posted, Posts
from ops.chaos.process_faults import kill_once
from ops.chaos.redis_faults import redis_command
from ops.chaos.stage import Fault, Stage
from ops.chaos.system import LEASE, QUEUE, SWEEP, await_that
from webapp.infra.broker.transport import lists_of

#: Jobs that may run at once when nothing changes; there are twice as many children.
SLOTS = 3
#: What is put meanwhile, one after the other; None: no limit.
CHANGES = tuple({"concurrency": concurrency} for concurrency in (1, SLOTS, None, 2, SLOTS))
#: Seconds between two changes.
CHANGED_EVERY = 0.8
#: Jobs of a backlog, and how long each takes, milliseconds.
BACKLOG, MS = 300, 100
#: Jobs that wait and run when the limit comes.
BEFORE = 120
#: Tickets that are forged at once: far more than there are slots and children.
FORGED = 400
#: Messages of a list that are copied.
COPIED = 20
#: Children that are killed one after the other between two other faults.
KILLED = 4
#: A chunk whose jobs were claimed under a greater limit runs on for this long, seconds, with the job that runs then.
RUNS_ON = 1.5
#: Children whose worker was killed are gone within this, seconds.
GONE_WITHIN = 1.0
#: All slots run again within a lease, a sweep and this after the last fault, seconds.
BACK_WITHIN = 4.0
#: How long the slots are watched then, seconds, the share of that time for which they must be busy, and the share of claims that
#: must come with the settle of the job before: a ticket is good for three seconds, in which a process ends thirty of these jobs.
WATCHED, BUSY, HANDED_ON = 4.0, 0.5, 0.5


def backlog(count: int, ms: int, *, fails: int = 0, key: str | None = None) -> list[Posted]:
    """Jobs of one length, which wait behind those of the load; those that fail, and their retries, before the others."""
    # A payload that says how often it fails is left out where recoveries are measured: these wait for each other.
    payload = {"task": "chaos.effect", "ms": ms, "fails": fails}
    options = {"priority": 2 if fails else 1} | ({} if key is None else {"key": key})
    return [("held", payload, options) for _ in range(count)]


def kill_some(stage: Stage, count: int) -> None:
    """Kill -9 of children of both workers that hold a job."""
    for _ in range(count):
        with suppress(TimeoutError):
            await_that(lambda: _busy(stage), 2.0, "a child to be busy", 0.01)
        if pids := _busy(stage):
            with stage.fault("kill -9 of a child"), suppress(ProcessLookupError):
                os.kill(stage.rng.choice(pids), signal.SIGKILL)
        stage.hold(stage.rng.uniform(0.2, 0.6))


def _busy(stage: Stage) -> list[int]:
    held = stage.system.rows("SELECT DISTINCT worker_id FROM jobs WHERE status = 'processing'")
    pids = {int(row[0].rpartition("/")[2]) for row in held}
    children = [pid for name in ("worker", "second-worker") for pid in stage.system.children(name)]
    return sorted(pids.intersection(children))


def forge_tickets(stage: Stage, count: int = FORGED) -> None:
    """Tickets that no dispatcher sent, and the ones that are there again."""
    forged = [message("tasks.execute_due", [QUEUE, "chaos.effect", 300.0]) for _ in range(count)]
    with stage.fault(f"{count} tickets are forged"), stage.system.redis() as client:
        for name in lists_of(QUEUE):
            if messages := client.lrange(name, -COPIED, -1):
                client.rpush(name, *messages)
        client.rpush(QUEUE, *forged)


def flush_once(stage: Stage) -> None:
    """FLUSHALL."""
    with stage.fault("FLUSHALL"):
        redis_command(stage, "FLUSHALL")


def limits_hold(path: str) -> Fault:
    """A backlog runs under a limit that changes, while all that could exceed it happens; then all slots must be busy again.

    Args:
        path: what is limited.
    """

    def inject(stage: Stage) -> None:
        changes, posts = LimitChanges(stage, path), Posts(stage)
        with ExitStack() as stack:
            for name in ("second-beat", "second-maintenance"):
                stage.system.start(name)
                stack.callback(stage.system.stop, name)
            posts.post(backlog(BEFORE, MS))
            stack.enter_context(changes.limited({"concurrency": SLOTS}))
            posts.post(backlog(BACKLOG, MS))
            with changes.changing(CHANGES, CHANGED_EVERY):
                for fault in (flush_once, database_down(1, immediate=True), kill_once("second-worker")):
                    forge_tickets(stage)
                    kill_some(stage, KILLED)
                    fault(stage)
                    stage.hold(1)
            _judge_return(stage, posts)
            judge_limit(stage, changes)
        stage.say(f"{changes.answered} changes of limits")

    return inject


def _judge_return(stage: Stage, posts: Posts) -> None:
    """All slots run within a lease and a moment after the last fault, and go on running: none was lost."""
    healed, within = stage.faults[-1][1], LEASE + SWEEP + BACK_WITHIN * stage.slack
    posts.post(backlog(int((LEASE + SWEEP + BACK_WITHIN + WATCHED) * SLOTS * 1000 / MS), MS))

    def full_at() -> list[float]:
        # Who was killed holds a slot for a while yet: only what began when all of it was gone shows that it is free.
        since = [one for one in spans.run(stage.system, stage.prefix) if one.began > healed + GONE_WITHIN]
        return [at for at, found in spans.crowds(since) if found >= SLOTS]

    with suppress(TimeoutError):
        await_that(full_at, healed + within - time.time(), "all slots to run", 0.2)
    # Watched from that moment on: by the time that it was found out, a busy machine may have run all that waited.
    since = min(full_at(), default=time.time())
    stage.hold(max(0.0, since + WATCHED - time.time()))
    share = spans.busy(spans.run(stage.system, stage.prefix), since, since + WATCHED) / (SLOTS * WATCHED)
    handed = spans.handed_on(stage.system, stage.prefix, since, since + WATCHED)
    after = min((at - healed for at in full_at()), default=float("inf"))
    stage.say(f"all slots ran again after {after:.1f} s; then {share:.0%} busy, {handed:.0%} handed on")
    if after > within:
        stage.broken["L2 slots lost"] = f"{SLOTS} jobs ran at once {after:.1f} s after the last fault"
    if share < BUSY / stage.slack:
        stage.broken["L3 slots idle"] = f"the slots were busy for {share:.0%} of the time while jobs waited"
    if handed < HANDED_ON:
        stage.broken["L3 slots not handed on"] = (
            f"{handed:.0%} of the claims came with the settle of another job"
        )


def judge_limit(stage: Stage, changes: LimitChanges) -> None:
    """No claim and no start made more processes busy than the greatest limit that may have been in force."""
    # Claims are judged to the moment. Only where the machine is busy with other things, one may be on its way for longer.
    on_its_way = stage.slack - 1.0
    for name, found, before in (
        ("L1 claimed above the limit", spans.held(stage.system, stage.prefix), on_its_way),
        ("L1 ran above the limit", spans.run(stage.system, stage.prefix), RUNS_ON + on_its_way),
    ):
        above = spans.excesses(found, lambda at, before=before: changes.greatest(at - before, at))
        most = max((crowd for at, crowd in spans.crowds(found) if at > changes.since), default=0)
        stage.say(f"{name}: {len(above)} of {len(found)}; most at once {most}")
        if above:
            worst = max(above, key=lambda one: one.found)
            stage.broken[name] = (
                f"{len(above)} times; at worst {worst.found} at once under a limit of {worst.most}"
            )
