"""The machine of a run, and the versions of what was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from ops.bench import runtimes
from ops.bench.peers.catalogue import PEERS
from ops.stack.venv import ROOT

#: Packages of ours that the figures depend on.
PACKAGES = ("celery", "flask", "gunicorn", "kombu", "psycopg2-binary", "redis", "sqlalchemy")


def describe() -> dict[str, str | int | float]:
    """Cores, model, kernel, Python, memory and how busy it is with other things."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "model": _model(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """What was measured: this revision, its packages and the peers."""
    found = {"djps": _revision()}
    for package in PACKAGES:
        found[package] = metadata.version(package)
    for peer in PEERS:
        found[f"peer {peer.key}"] = runtimes.pins(peer.packages)[peer.package]
    return found


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
