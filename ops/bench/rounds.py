"""The order of a run: rounds, the systems within each, what comes once at the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

from ops.bench import (
    access,
    batches,
    bloat,
    groups,
    installation,
    machine,
    ours,
    peers,
    plots,
    post,
    postgres_settings,
    report,
    schedules,
    size,
    upgrade,
    waiting,
)
from ops.bench.peers.catalogue import PEERS
from ops.bench.plan import FULL, QUICK, Plan
from ops.bench.progress import Record
from ops.bench.servers import Servers

#: What `only` may name besides the keys of peers.
SCENARIOS = (
    "post",
    "ours",
    "peers",
    "size",
    "waiting",
    "prune",
    "size-huge",
    "upgrade",
    "bloat",
    "settings",
    "access",
    "schedules",
    "groups",
    "batches",
)
#: What a full run leaves out unless it is asked for: some take ten minutes, and 20 GB.
ON_REQUEST = ("size-huge", "upgrade", "bloat", "settings", "access", "schedules", "groups", "batches")
#: What a quick run leaves out as well.
NOT_QUICK = ("waiting", "prune")
#: What ends a run early.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Where the JSON of the last run is, whether it was asked for or not.
LAST = installation.HOME / "last.json"


def run(quick: bool, json_path: Path | None, only: Sequence[str] = (), *, plots_wanted: bool = False) -> int:  # noqa: FBT001 - named by its caller
    """Measures, shows a table, writes JSON; returns the exit code.

    Args:
        quick: one round and small sizes, within two minutes.
        json_path: where every figure goes; None for nowhere else than `LAST`.
        only: scenarios and peers to measure; all of them when empty.
        plots_wanted: draws the figures as PNGs.
    """
    known = {*SCENARIOS, *(peer.key for peer in PEERS)}
    if unknown := sorted(set(only) - known):
        print(f"bench: {', '.join(unknown)} is none of {', '.join(sorted(known))}")
        return 2
    previous = {number: signal.signal(number, _interrupt) for number in STOPPING}
    try:
        return _run(QUICK if quick else FULL, json_path, tuple(only), plots_wanted=plots_wanted)
    except KeyboardInterrupt:
        print("bench: interrupted; everything that was started has been stopped")
        return 130
    finally:
        for stopping, handler in previous.items():
            signal.signal(stopping, handler)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def _run(plan: Plan, json_path: Path | None, only: tuple[str, ...], *, plots_wanted: bool) -> int:
    record = Record(plan.budget)
    host = machine.describe()
    versions = machine.versions()
    wanted = _Wanted(only, quick=plan is QUICK)
    record.say("starting PostgreSQL and Valkey")
    with Servers() as servers:
        versions |= servers.versions()
        try:
            for number in range(plan.rounds if wanted.rounds else 1):
                record.rounds.append({})
                if wanted.rounds:
                    record.say(f"round {number + 1} of {plan.rounds}")
                    _round(number, plan, servers, record, wanted)
            _once(plan, servers, record, wanted)
        finally:
            found = report.as_json(record, host, versions, quick=plan is QUICK)
            for path in filter(None, (LAST, json_path)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=1) + "\n")
    print(report.table(record, host), flush=True)
    if json_path is not None:
        print(f"\nevery figure is in {json_path}")
    if plots_wanted:
        plots.draw(LAST, record.say)
    return 0 if any(record.rounds) else 1


class _Wanted:
    """What a run is to measure."""

    def __init__(self, only: tuple[str, ...], *, quick: bool) -> None:
        left_out = {*ON_REQUEST, *(NOT_QUICK if quick else ())}
        self.scenarios = set(only) or set(SCENARIOS) - left_out
        self.peers = [
            peer
            for peer in PEERS
            if peer.key in self.scenarios
            or ("peers" in self.scenarios and (peer.quick or not quick or "peers" in only))
        ]
        self.rounds = bool(self.peers or {"post", "ours"} & self.scenarios)


def _round(number: int, plan: Plan, servers: Servers, record: Record, wanted: _Wanted) -> None:
    """Every system once."""
    figures = record.rounds[-1]
    if "post" in wanted.scenarios:
        with record.step("post", "POST /jobs, this system and the floors") as now:
            if now:
                post.measure(plan, servers, record.say, figures, failures=record.failures, turn=number)
    if "ours" in wanted.scenarios:
        with record.step("ours", "this system") as now:
            if now:
                ours.measure(plan, servers, record.say, figures, record.notes)
    for peer in wanted.peers:
        with record.step(peer.key, peer.title) as now:
            if now:
                peers.measure(peer, plan, servers, record.say, figures)


def _once(plan: Plan, servers: Servers, record: Record, wanted: _Wanted) -> None:
    """What is measured once, after the rounds; its figures go with the last round."""
    figures = record.rounds[-1]
    for name, what, measure in (
        ("size", "cost against size", size.measure),
        ("waiting", f"{waiting.WAITERS} clients that wait for one job", waiting.measure),
        ("prune", "POST while pruning", size.measure_prune),
        ("upgrade", "the upgrade that brings history, under load", upgrade.measure),
        ("size-huge", "cost with twenty-one million rows", size.measure_huge),
        ("settings", "a backlog with other settings of PostgreSQL", postgres_settings.measure),
        ("access", "POST with keys and without", access.measure),
        ("schedules", "schedules that are due at the same second", schedules.measure),
        ("groups", "statements with notes of members' ends and without", groups.measure),
        ("batches", "members of a batch and jobs of none", batches.measure),
        ("bloat", "size of the living table while jobs go through it", bloat.measure),
    ):
        if name in wanted.scenarios:
            with record.step(name, what) as now:
                if now:
                    measure(plan, servers, record.say, figures)
