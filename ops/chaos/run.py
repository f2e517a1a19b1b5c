"""A run: for each scenario load, fault, healing, quiet, and the checker's verdict."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ops.chaos import checker, following, report
from ops.chaos.clients import Load
from ops.chaos.disk import NotAllowed
from ops.chaos.followers import FOLLOWED, STEERED, Followers
from ops.chaos.history import Exchange, History
from ops.chaos.report import Row, percentile
from ops.chaos.scenario import Scenario
from ops.chaos.scenarios import SCENARIOS
from ops.chaos.stage import Broken, Stage
from ops.chaos.system import System

#: Load before the first fault, seconds.
WARM_UP = 1.0
#: Seconds everything may take to be final once the load and the fault are over.
QUIET_PATIENCE = 180.0
#: With Redis away or poisoned a POST is answered within this at p99, seconds.
POST_IN_FAULT = 0.25
#: A POST as quick as this at p99 is not compared with a quicker one, seconds.
QUICK_POST = 0.02
#: With PostgreSQL away a POST is refused within this at p99, seconds.
REFUSED_WITHIN = 1.0
#: And it is taken again within this after PostgreSQL's return, seconds.
SERVES_WITHIN = 5.0
#: Answers that each role must have had for its scenario to mean anything.
MUST_BE_SEEN = {
    "wait": ("wait 200",),
    "events": ("events final", "events hung up", "again 204"),
    "cancel": ("wait 200", "cancel 200", "cancel 202"),
}
UNAVAILABLE = int(HTTPStatus.SERVICE_UNAVAILABLE)

_numbers = itertools.count(1)


class Runner:
    """Runs scenarios, on as few systems as their needs allow.

    Args:
        seed: of every random choice; printed when something fails.
        slack: factor on the bars for response times, for machines that are busy with other things.
        keep: leave the logs of every system, not only of those that failed.
        quiet: seconds everything may take to be final.
        forget_failures: delete the logs of what failed (mutants are meant to).
        environment: more variables for every process (mutants).
    """

    def __init__(
        self,
        seed: int,
        *,
        slack: float = 1.0,
        keep: bool = False,
        quiet: float = QUIET_PATIENCE,
        environment: Mapping[str, str] | None = None,
        forget_failures: bool = False,
    ) -> None:
        self._quiet = quiet
        self._forget = forget_failures
        self._keep = keep
        self._seed = seed
        self._slack = slack
        self._environment = dict(environment or {})
        self._system: System | None = None
        self._needs: Mapping[str, Any] | None = None
        self._failed = False

    @contextmanager
    def _system_for(self, scenario: Scenario) -> Iterator[System]:
        if self._system is not None and self._needs != scenario.system:
            self.close()
        if self._system is None:
            self._needs = scenario.system
            needs = dict(scenario.system)
            needs["environment"] = {**needs.get("environment", {}), **self._environment}
            self._system = System(**needs)
            self._failed = False
            try:
                self._system.up()
            except BaseException:
                self._failed = True
                self.close()
                raise
        yield self._system

    def close(self) -> None:
        """Ends the system that is running, if one is."""
        if self._system is not None:
            kept = self._system.down(keep=(self._failed and not self._forget) or self._keep)
            if kept is not None:
                print(f"  logs and history: {kept}", flush=True)
            self._system = None

    def run(self, scenario: Scenario) -> Row:
        """Runs one scenario."""
        row = Row(scenario.name, scenario.what, self._seed, within=scenario.within)
        began = time.monotonic()
        try:
            with self._system_for(scenario) as system:
                self._play(scenario, system, row)
        except NotAllowed as error:
            row.skipped = str(error)
        except TimeoutError as error:
            row.findings.append(f"I8: {error}")
        except Broken as error:
            row.findings.append(str(error))
        row.seconds = round(time.monotonic() - began, 1)
        if row.findings:
            self._failed = True
            # What failed may have left the system in any state; the next scenario gets a new one.
            self.close()
        return row

    def _play(self, scenario: Scenario, system: System, row: Row) -> None:
        prefix = f"{scenario.name}.{next(_numbers)}"
        history = History(system.records / f"history-{prefix}.jsonl")
        rng = random.Random(f"{self._seed}/{scenario.name}")
        stage = Stage(
            system, history, prefix, rng, lambda what: print(f"    {what}", flush=True), slack=self._slack
        )
        exits_before = sum(len(member.exits) for member in system.members.values())
        load = Load(
            system.api_port, history, prefix, rate=scenario.rate, seed=self._seed, kinds=scenario.kinds
        )
        followers = Followers(system.api_port, history, prefix, seed=self._seed, roles=scenario.follow)
        print(f"  {scenario.name}: {scenario.what}", flush=True)
        load.start()
        followers.start()
        loaded_until = time.monotonic() + scenario.jobs / scenario.rate
        try:
            time.sleep(WARM_UP)
            scenario.inject(stage)
            time.sleep(max(scenario.tail, loaded_until - time.monotonic()))
        finally:
            load.stop()
            followers.stop()
        try:
            stage.await_that(
                lambda: checker.unfinished(system, prefix) == 0, self._quiet, "every job to be final", 0.2
            )
        except TimeoutError:
            print("    not everything is final", flush=True)
        system.wait_ready()
        history.close()
        self._judge(scenario, history, load, stage, row)
        self._judge_following(scenario, followers, stage, row)
        row.restarts = sum(len(member.exits) for member in system.members.values()) - exits_before
        if scenario.unharmed and row.restarts:
            row.findings.append(f"{row.restarts} processes ended")

    def _judge(self, scenario: Scenario, history: History, load: Load, stage: Stage, row: Row) -> None:
        system = stage.system
        ends = {kind.name: kind.ends for kind in (*scenario.kinds, FOLLOWED, STEERED)}
        verdict = checker.check(system, history, stage.prefix, ends)
        recoveries = checker.recoveries(system, stage.prefix, stage.faults)
        row.jobs = sum(1 for _ in history.accepted())
        row.requests = len(history.exchanges)
        row.faults = len(stage.faults)
        row.attempts = system.rows(
            "SELECT coalesce(sum(attempt), 0) FROM jobs WHERE idempotency_key LIKE %s", stage.prefix + "-%"
        )[0][0]
        row.affected = len(recoveries)
        row.recovery_p50, row.recovery_p99 = percentile(recoveries, 0.5), percentile(recoveries, 0.99)
        row.overlaps_allowed = verdict.overlaps
        row.counts, row.findings = verdict.counts, list(verdict.findings)
        row.post_p99_ms = _p99_ms(history.exchanges)
        during = [
            one for one in history.exchanges if any(start <= one.began <= end for start, end in stage.faults)
        ]
        row.post_p99_ms_in_fault = _p99_ms(during)
        if row.recovery_p99 is not None and row.recovery_p99 > scenario.within * self._slack:
            row.findings.append(f"recovery p99 {row.recovery_p99:.1f} s is over {scenario.within:g} s")
        wrong = {one.status for one in history.exchanges} - set(scenario.answers)
        if scenario.answers and wrong:
            row.findings.append(f"POST answered {sorted(wrong)} (0 is no answer)")
        if not row.jobs:
            row.findings.append("no job was accepted, so nothing was tested")
        row.counts |= dict.fromkeys(stage.broken, 1)
        row.findings += stage.broken.values()
        if scenario.slower_at_most is not None:
            row.findings += self._slower(scenario.slower_at_most, history.exchanges, during)
        if scenario.redis_away or scenario.unharmed:
            row.findings += self._taken(during)
        if scenario.redis_away:
            says = {look.says for look in load.looks if _inside(look.at, stage)}
            if "degraded" not in says:
                row.findings.append(f"/health/ready never said degraded, but {sorted(says)}")
        if scenario.database_away:
            row.refused_p99_ms = _p99_ms([one for one in during if one.status == UNAVAILABLE])
            row.findings += self._without_database(history.exchanges, during, load, stage)
            says = {look.says for look in load.looks if _inside(look.at, stage)}
            if scenario.database_says not in says or (scenario.database_says == "ok" and says != {"ok"}):
                row.findings.append(f"/health/ready said {sorted(says)}, not {scenario.database_says}")

    def _judge_following(self, scenario: Scenario, followers: Followers, stage: Stage, row: Row) -> None:
        if not scenario.follow:
            return
        judged = following.check(
            stage.system,
            stage.prefix,
            followers,
            stage.faults,
            database_away=scenario.database_away,
            slack=self._slack,
        )
        row.followed = judged.answers
        told_p99 = percentile(judged.late, 0.99)
        row.told_p99_ms = None if told_p99 is None else round(told_p99 * 1000, 1)
        row.counts |= {name: len(examples) for name, examples in judged.found.items()}
        row.findings += checker.sentences(judged.found)
        missing = [
            name for role in scenario.follow for name in MUST_BE_SEEN[role] if not judged.answers.get(name)
        ]
        if missing:
            row.findings.append(f"no one was answered {', '.join(missing)}, so nothing was tested")

    def _slower(self, most: float, exchanges: list[Exchange], during: list[Exchange]) -> list[str]:
        inside = {id(one) for one in during}
        before, meanwhile = _p99_ms([one for one in exchanges if id(one) not in inside]), _p99_ms(during)
        if before is None or meanwhile is None:
            return ["no POST was measured, so nothing was tested"]
        bar = most * max(before, QUICK_POST * 1000) * self._slack
        return [f"POST took {meanwhile:.0f} ms at p99, {before:.0f} without"] if meanwhile > bar else []

    def _taken(self, during: list[Exchange]) -> list[str]:
        """What is wrong where the fault must not be felt by a client that posts."""
        found = []
        refused = sorted({one.status for one in during if one.status not in (200, 201)})
        if refused:
            found.append(f"during the fault POST answered {refused}")
        p99 = percentile([one.seconds for one in during], 0.99)
        if p99 is not None and p99 > POST_IN_FAULT * self._slack:
            found.append(f"during the fault POST took {p99 * 1000:.0f} ms at p99")
        return found

    def _without_database(
        self, exchanges: list[Exchange], during: list[Exchange], load: Load, stage: Stage
    ) -> list[str]:
        found = []
        refused = [one for one in during if one.status not in (200, 201)]
        wrong = sorted({one.status for one in refused if one.status != UNAVAILABLE})
        if wrong:
            found.append(f"with PostgreSQL away POST answered {wrong} (0 is no answer)")
        if any(one.status == UNAVAILABLE and not one.retry_after for one in refused):
            found.append("a 503 came without Retry-After")
        if not refused:
            found.append("no POST was refused, so nothing was tested")
        p99 = percentile([one.seconds for one in refused], 0.99)
        if p99 is not None and p99 > REFUSED_WITHIN * self._slack:
            found.append(f"with PostgreSQL away POST took {p99 * 1000:.0f} ms at p99")
        back = stage.faults[-1][1]
        served = [
            one.began + one.seconds for one in exchanges if one.status in (200, 201) and one.began > back
        ]
        if not served or min(served) - back > SERVES_WITHIN * self._slack:
            found.append("POST was not served again in time after PostgreSQL's return")
        return found


def _inside(moment: float, stage: Stage) -> bool:
    return any(start <= moment <= end for start, end in stage.faults)


def _p99_ms(exchanges: list[Exchange]) -> float | None:
    p99 = percentile([one.seconds for one in exchanges], 0.99)
    return None if p99 is None else round(p99 * 1000, 1)


def run(
    names: Sequence[str], seed: int, json_path: Path | None, *, slack: float = 1.0, keep: bool = False
) -> int:
    """Runs scenarios by name; returns 0 when all of them pass.

    Args:
        names: scenarios, in this order.
        seed: of every random choice.
        json_path: where the outcome is written.
        slack: see `Runner`.
        keep: see `Runner`.
    """
    print(f"seed {seed}", flush=True)
    rows = []
    runner = Runner(seed, slack=slack, keep=keep)
    try:
        # Scenarios with the same needs share a system.
        for name in sorted(names, key=lambda one: (str(SCENARIOS[one].system), names.index(one))):
            rows.append(runner.run(SCENARIOS[name]))
            _show(rows[-1])
    finally:
        runner.close()
    print("\n" + report.HEADER)
    for row in rows:
        print(report.line(row))
    print("\n".join(report.summary(rows)))
    if json_path is not None:
        report.write(json_path, rows, {"seed": seed, "slack": slack})
    failed = [row.name for row in rows if not row.passed]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        print(f"again: python3 -m ops chaos --seed {seed} {' '.join(failed)}")
    return 1 if failed else 0


def _show(row: Row) -> None:
    print("  " + report.line(row), flush=True)
    for sentence in (*report.followed(row), *row.findings):
        print(f"      {sentence}", flush=True)
