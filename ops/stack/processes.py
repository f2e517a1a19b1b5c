"""What runs: every process of the stack, its command and how it is stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.stack import passwords, postgres, prometheus, valkey
from ops.stack.ports import LOOPBACK
from webapp.settings import Settings

#: The programs of the virtual environment.
BIN = Path(sys.prefix) / "bin"
#: Seconds a worker gets to end beyond SHUTDOWN_GRACE.
STOP_MARGIN = 15


@dataclass(frozen=True, slots=True)
class Process:
    """One supervised process.

    Args:
        stop_signal: what asks it to end.
        stop_wait: seconds before it is killed.
        user: whose process it is; None for the user who runs `ops`.
        port: where it listens, and the setting that says so.
        host: and on which address.
    """

    name: str
    command: Sequence[str]
    what: str
    stop_signal: str = "TERM"
    stop_wait: int = 15
    user: str | None = None
    port: tuple[int, str] | None = None
    host: str = LOOPBACK


def servers(settings: Settings, data: Path) -> list[Process]:
    """The embedded servers, without those whose address the user gave."""
    found = []
    if "database_url" not in settings.model_fields_set:
        found.append(
            Process(
                "postgres",
                postgres.command(data / "postgres", settings.postgres_port),
                f"PostgreSQL {postgres.VERSION}, the record of every job",
                stop_signal="INT",
                stop_wait=30,
                user=postgres.account(),
                port=(settings.postgres_port, "POSTGRES_PORT"),
            )
        )
    if "redis_url" not in settings.model_fields_set:
        found.append(
            Process(
                "redis",
                [sys.executable, "-m", "ops.stack.valkey_start", str(data / "redis")]
                + valkey.command(
                    data / "redis", settings.redis_port, configuration=data / passwords.FOLDER / "redis.conf"
                ),
                "Valkey 9, the broker",
                port=(settings.redis_port, "REDIS_PORT"),
            )
        )
    return found


def applications(settings: Settings) -> list[Process]:
    """DJPS itself, in the order it is started in."""
    tasks = [str(BIN / "python"), "-m", "tasks"]
    drained = int(settings.shutdown_grace) + STOP_MARGIN
    found = []
    if "simulated_job_url" not in settings.model_fields_set:
        found.append(
            Process(
                "httpbin",
                [str(BIN / "gunicorn"), "--bind", f"{LOOPBACK}:{settings.httpbin_port}", "--threads", "16"]
                + ["--no-control-socket", "--log-level", "warning", "ops.stack.httpbin_app:app"],
                "what `simulated` jobs call",
                port=(settings.httpbin_port, "HTTPBIN_PORT"),
            )
        )
    return [
        *found,
        Process(
            "api",
            [str(BIN / "gunicorn"), "--config", "python:ops.stack.gunicorn", "wsgi:app"],
            f"HTTP API, {settings.api_workers} gunicorn workers",
            stop_wait=30,
            port=(settings.api_port, "API_PORT"),
            host=settings.api_host,
        ),
        Process(
            "worker",
            [*tasks, "worker", "--hostname", "worker@%h", "--exclude-queues", "maintenance"]
            + ["--concurrency", str(settings.num_workers)],
            f"runs jobs in {settings.num_workers} processes",
            stop_wait=drained,
        ),
        Process(
            "maintenance",
            [*tasks, "worker", "--hostname", "maintenance@%h", "--queues", "maintenance"]
            + ["--concurrency", "2"],
            "dispatch, recovery, dead letters",
        ),
        Process("beat", [*tasks, "beat"], "the clock of dispatch and recovery"),
        Process(
            "flower",
            [str(BIN / "celery"), "-A", "tasks", "--quiet", "flower"]
            + [f"--address={settings.flower_host}", f"--port={settings.flower_port}"],
            "Celery's messages; jobs are in the API's /jobs and /dlq",
            # Flower 2.2 does not end at TERM while its event thread waits for Redis; it keeps no state.
            stop_signal="KILL",
            port=(settings.flower_port, "FLOWER_PORT"),
            host=settings.flower_host,
        ),
    ]


def watchers(settings: Settings, data: Path) -> list[Process]:
    """Prometheus, where it is installed; DJPS runs as well without."""
    program = prometheus.find()
    if program is None:
        return []
    configured = data / "run" / "prometheus.yml"
    return [
        Process(
            "prometheus",
            prometheus.command(program, configured, data / "prometheus", settings.prometheus_port),
            "figures and alerts",
        )
    ]
