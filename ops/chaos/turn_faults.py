"""Faults of keys that take turns: never two jobs of one at once, whatever dies, and each is served whatever waits of the others."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from ops.chaos import spans
from ops.chaos.limit_changes import LimitChanges
from ops.chaos.limit_faults import backlog, flush_once, forge_tickets, judge_limit, kill_some
from ops.chaos.posts import Posts
from ops.chaos.spans import Span
from ops.chaos.stage import Stage
from ops.chaos.system import await_that

#: Jobs that may run at once, all keys together; of one key only one may.
SLOTS = 3
#: What waits of each key: much of one, some of another, little of many.
GREAT, MIDDLE, SMALL, SMALL_KEYS = 260, 60, 6, 10
#: Milliseconds each takes: a child takes three of them at once.
MS = 30
#: Jobs that come one by one, to keys that run while children are idle, and the pause between, seconds.
TRICKLED, TRICKLE_KEYS, TRICKLE_PAUSE = 80, 2, 0.015
#: Jobs of the great key that may start before the last one of a small key does: turns of as many, and as much again and a half.
TURNS_AHEAD = SMALL * 5 // 2
#: Children that are killed.
KILLED = 4
#: Longest that the small keys' jobs take without a fault, seconds.
SERVED_WITHIN = 15.0
#: Longest that a key with jobs waits for its next start while children die, seconds: a retry comes a second later.
NEXT_WITHIN = 5.0

_WAITING = "SELECT count(*) FROM jobs WHERE idempotency_key LIKE %s AND key LIKE %s AND status IN ('queued', 'processing')"


def keys_take_turns(stage: Stage) -> None:
    """Keys of unequal backlogs run side by side, first in peace, then with everything against them."""
    changes, posts = LimitChanges(stage), Posts(stage)
    with changes.limited({"concurrency": SLOTS, "keys": {"concurrency": 1}}):
        _trickle(stage, posts)
        posted = time.time()
        _post(posts, "calm")
        patience = SERVED_WITHIN * stage.slack
        await_that(lambda: not _left(stage, "calm-small-%"), patience, "the small keys to be served", 0.1)
        _judge_turns(stage, posted)
        _post(posts, "storm")
        for fault in (flush_once, forge_tickets):
            kill_some(stage, KILLED)
            fault(stage)
        await_that(lambda: not _left(stage, "storm-small-%"), patience, "the small keys to be served", 0.1)
        judge_limit(stage, changes)
        _judge_keys(stage, changes.since)


def _post(posts: Posts, name: str) -> None:
    jobs = backlog(GREAT, MS, key=f"{name}-great") + backlog(MIDDLE, MS, key=f"{name}-middle")
    for number in range(SMALL_KEYS):
        jobs += backlog(SMALL, MS, key=f"{name}-small-{number}")
    posts.post(jobs)


def _trickle(stage: Stage, posts: Posts) -> None:
    for number in range(TRICKLED):
        posts.post(backlog(1, MS, key=f"trickle-{number % TRICKLE_KEYS}"))
        stage.hold(TRICKLE_PAUSE)


def _left(stage: Stage, keys: str) -> int:
    ((left,),) = stage.system.rows(_WAITING, f"{stage.prefix}-%", keys)
    return int(left)


def _judge_turns(stage: Stage, since: float) -> None:
    """Among keys that all have work, none comes twice as often as another."""
    ran = [span for span in spans.run(stage.system, stage.prefix) if span.began > since and span.key]
    last = max(span.began for span in ran if "small" in span.key)
    before = Counter(span.key for span in ran if span.began <= last)
    ahead = before["calm-great"]
    stage.say(f"{ahead} jobs of the great key started before the last of {SMALL} of each small one")
    if ahead > TURNS_AHEAD * stage.slack:
        stage.broken["L7 out of turn"] = (
            f"{ahead} jobs of the great key started before the last of the small ones"
        )


def _by_key(found: Iterable[Span], since: float) -> dict[str, list[Span]]:
    of_key: dict[str, list[Span]] = defaultdict(list)
    for span in found:
        if span.began > since:
            of_key[span.key].append(span)
    return of_key


def _judge_keys(stage: Stage, since: float) -> None:
    held, ran = (_by_key(found(stage.system, stage.prefix), since) for found in (spans.held, spans.run))
    for what, of_key in (("claimed", held), ("ran", ran)):
        beside = {key: spans.excesses(some, lambda _: 1) for key, some in of_key.items()}
        if worst := [key for key, above in beside.items() if above]:
            stage.broken[f"L8 two of a key {what}"] = (
                f"jobs of {', '.join(sorted(worst)[:5])} {what} side by side"
            )
    waits = {
        key: max((b.began - a.began for a, b in pairwise(some)), default=0.0)
        for key, some in ran.items()
        if key
    }
    longest = max(waits, key=lambda key: waits[key])
    stage.say(f"{len(waits)} keys; the longest between two starts of one: {waits[longest]:.1f} s ({longest})")
    if waits[longest] > NEXT_WITHIN * stage.slack:
        stage.broken["L9 a key waited"] = f"{longest} had jobs and none started for {waits[longest]:.1f} s"
