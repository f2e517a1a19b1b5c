"""Runs one load test against a running system, and tells what it and the system saw."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from ops.load.figures import LOOK_TIMEOUT, Figures, NoAnswer, look, quantile
from ops.load.profiles import PROFILES, Profile

HERE = Path(__file__).resolve().parent
K6 = Path(sys.prefix) / "bin" / "k6"
#: What k6 may need beyond its profile's seconds before it is ended: followed jobs, and its summary.
K6_MARGIN = 180
#: How long the system gets to finish what was submitted, seconds.
DRAIN_PATIENCE = 60.0
#: Seconds between looks while k6 runs.
LOOK_EVERY = 2.0


class LoadError(Exception):
    """The test cannot be run; the message is one sentence that says why."""


def main(wanted: argparse.Namespace, default_url: str) -> int:
    """Runs what the command line asks for; returns the exit code.

    Args:
        default_url: where `ops up` has its API.
    """
    profile = PROFILES[wanted.profile]
    profile = dataclasses.replace(
        profile, seconds=wanted.duration or profile.seconds, rate=wanted.rate or profile.rate
    )
    try:
        return run(profile, (wanted.url or default_url).rstrip("/"), no_refusals=wanted.no_refusals)
    except LoadError as error:
        print(f"ops: {error}", file=sys.stderr)
        return 1


def run(profile: Profile, url: str, *, no_refusals: bool) -> int:
    """Runs a load test; returns 0 when every threshold held and the system finished what it took.

    Args:
        url: of the API.
        no_refusals: a 429 fails the run.

    Raises:
        LoadError: nothing answers there, or k6 cannot run.
    """
    _require_ready(url)
    print(f"{profile.name}: {profile.says}; {profile.seconds} s at {url}", flush=True)
    try:
        before = look(url)
    except NoAnswer as error:
        raise LoadError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="djps-load-") as folder:
        summary = Path(folder) / "summary.json"
        exit_code, most = _k6(profile, url, summary, no_refusals=no_refusals)
        if not summary.exists():
            raise LoadError(f"k6 ended with exit code {exit_code} and no summary")
        metrics: dict[str, Any] = json.loads(summary.read_text())["metrics"]
    after, drained = _drain(url, before.unfinished)
    print(f"\n{_table(metrics, before, after, most)}\n", flush=True)
    refused = _count(metrics, "jobs_refused")
    if refused:
        print(_explain(refused, _count(metrics, "jobs_accepted")))
    if not drained:
        print(f"FAILED: not everything was finished {DRAIN_PATIENCE:g} s after the last submission")
    if exit_code != 0:
        print("FAILED: k6 saw a broken threshold (marked with a cross above)")
    if exit_code == 0 and drained:
        print(f"{profile.name}: every threshold held" + (", under the rate limit" if refused else ""))
    return 0 if exit_code == 0 and drained else 1


def _require_ready(url: str) -> None:
    try:
        answer = requests.get(f"{url}/health/ready", timeout=LOOK_TIMEOUT)
    except requests.RequestException as error:
        raise LoadError(
            f"no DJPS answers at {url} ({type(error).__name__}); start one with `python3 -m ops up`, or give --url"
        ) from error
    if answer.status_code != requests.codes.ok:
        raise LoadError(f"DJPS at {url} is not ready: {answer.text[:200]}")


def _k6(profile: Profile, url: str, summary: Path, *, no_refusals: bool) -> tuple[int, float]:
    """Runs k6; returns its exit code and the most unfinished jobs that were seen meanwhile.

    Raises:
        LoadError: it does not end.
    """
    command = [str(K6), "run", "--quiet", "--address", "", "--summary-export", str(summary)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K6_")} | {
        "K6_NO_USAGE_REPORT": "true",
        "BASE_URL": url,
        "RATE": str(profile.rate),
        "SECONDS": str(profile.seconds),
        "NO_REFUSALS": "1" if no_refusals else "",
    }
    most = 0.0
    end = time.monotonic() + profile.seconds + K6_MARGIN
    with subprocess.Popen([*command, str(HERE / f"{profile.name}.js")], env=environment) as process:
        try:
            while True:
                try:
                    return process.wait(LOOK_EVERY), most
                except subprocess.TimeoutExpired:
                    most = max(most, _unfinished(url))
                if time.monotonic() > end:
                    raise LoadError(f"k6 had not ended {K6_MARGIN} s after its last submission")
        finally:
            if process.poll() is None:
                process.kill()


def _unfinished(url: str) -> float:
    """What waits or runs now; 0 when the system is too busy to say."""
    try:
        return look(url).unfinished
    except NoAnswer:
        return 0.0


def _drain(url: str, before: float) -> tuple[Figures, bool]:
    """Waits until no more is unfinished than before the run; returns the last look and whether it came to that.

    Raises:
        LoadError: the system has gone away.
    """
    end = time.monotonic() + DRAIN_PATIENCE
    while True:
        try:
            now = look(url)
        except NoAnswer as error:
            if time.monotonic() > end:
                raise LoadError(f"after the run {error}") from error
        else:
            if now.unfinished <= before or time.monotonic() > end:
                return now, now.unfinished <= before
        time.sleep(0.5)


def _count(metrics: dict[str, Any], name: str) -> int:
    return int(metrics.get(name, {}).get("count", 0))


def _trend(metrics: dict[str, Any], name: str, which: str) -> str:
    found = metrics.get(name, {}).get(which)
    return "none" if found is None else f"{found:.1f} ms"


def _table(metrics: dict[str, Any], before: Figures, after: Figures, most: float) -> str:
    """Both sides of the run, side by side in words."""
    wait = quantile(before.wait, after.wait, 0.99)
    post = "http_req_duration{name:POST /jobs}"
    rows = [
        ("the clients saw", ""),
        ("  accepted", f"{_count(metrics, 'jobs_accepted')}"),
        ("  answered with the job of the same key", f"{_count(metrics, 'jobs_replayed')}"),
        ("  refused (429)", f"{_count(metrics, 'jobs_refused')}"),
        ("  POST /jobs p50 / p99", f"{_trend(metrics, post, 'med')} / {_trend(metrics, post, 'p(99)')}"),
        (
            "  submit to done p50 / p99",
            f"{_trend(metrics, 'submit_to_done', 'med')} / {_trend(metrics, 'submit_to_done', 'p(99)')}",
        ),
        ("the system counted meanwhile", ""),
        ("  accepted", f"{after.created - before.created:.0f}"),
        ("  completed", f"{after.completed - before.completed:.0f}"),
        ("  dead letters", f"{after.failed - before.failed:.0f}"),
        ("  retried", f"{after.retried - before.retried:.0f}"),
        (
            "  unfinished: before, at most, now",
            f"{before.unfinished:.0f}, {most:.0f}, {after.unfinished:.0f}",
        ),
        ("  due to started p99, at most", "none" if wait is None else f"{wait:g} s"),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}".rstrip() for name, value in rows)


def _explain(refused: int, accepted: int) -> str:
    return (
        f"{refused} submissions were refused and {accepted} accepted: the API limits each client address (RATE_LIMIT,\n"
        "10 a minute by default), and all load comes from one address. The refusals were checked, but this run says\n"
        "little about throughput. For that, start the system without the limit:\n"
        "    python3 -m ops down; RATE_LIMIT=off python3 -m ops up\n"
    )
