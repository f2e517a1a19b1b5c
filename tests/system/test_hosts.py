"""Five hosts on one switch: data, API, two workers, a client; one worker's cable is pulled and put back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg2
import pytest
import requests
from network import SUBNET, Network, may_make_hosts

from ops.stack import debian, postgres, valkey
from ops.stack.throwaway import become
from ops.stack.venv import ROOT

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not may_make_hosts(),
        reason="only root with CAP_NET_ADMIN and CAP_SYS_ADMIN may make network namespaces",
    ),
]

BIN = Path(sys.prefix) / "bin"
WORKERS = ("worker-a", "worker-b")
HOSTS = ("data", "api", *WORKERS, "client")
METRICS_PORT = 9101
SECRET = "redis of the data host"
LEASE = 4
#: Jobs that both workers have plenty of; long enough that the cable can be pulled while they run.
TEMPO = {
    "STUCK_JOB_THRESHOLD": str(LEASE),
    "STUCK_CHECK_INTERVAL": "1",
    "WORKER_HEARTBEAT_TTL": "3",
    "SHUTDOWN_GRACE": "1",
    "RATE_LIMIT": "off",
    "NUM_WORKERS": "2",
}


class Site:
    """What runs on which host, and what the test asks from the client's."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        data = network.addresses["data"]
        self.url = f"http://{network.addresses['api']}:8000"
        self.database = f"postgresql://djps:djps@{data}:5432/djps"
        self.addresses = {
            "DATABASE_URL": self.database,
            "REDIS_URL": f"redis://:{SECRET.replace(' ', '%20')}@{data}:6379/0",
        }
        worker = [sys.executable, "-m", "tasks", "worker", "--hostname"]
        self.commands = {
            ("api", "api"): [str(BIN / "gunicorn"), "--config", "python:ops.stack.gunicorn", "wsgi:app"],
            ("api", "maintenance"): [*worker, "maintenance@%h", "-Q", "maintenance", "-c", "2"],
            ("api", "beat"): [sys.executable, "-m", "tasks", "beat"],
            **{(host, host): [*worker, "worker@%h", "-X", "maintenance"] for host in WORKERS},
        }

    def spawn(
        self, host: str, name: str, command: list[str], user: str | None = None, **variables: str
    ) -> None:
        def move() -> None:
            self.network.become(host)
            become(user)

        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env={**os.environ, **TEMPO, **self.addresses, **variables},
                cwd=ROOT if user is None else "/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=move,  # noqa: PLW1509 - the threads of a test hold no lock that this needs
            )

    def start_servers(self) -> None:
        data = self.folder / "postgres"
        postgres.prepare(data)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {SUBNET}.0/24 scram-sha-256\n")
        self.spawn(
            "data",
            "postgres",
            [*postgres.command(data, 5432), "-c", "listen_addresses=*"],
            postgres.account(),
        )
        (self.folder / "redis").mkdir()
        redis = valkey.command(self.folder / "redis", 6379)
        self.spawn("data", "redis", [*redis, "--bind", "*", "--requirepass", SECRET])
        with self.network.on("data"):
            postgres.wait_and_create(5432)

    def start(self) -> None:
        self.start_servers()
        with self.network.on("client"):
            subprocess.run([sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"], cwd=ROOT, check=True,
                           env={**os.environ, **self.addresses}, capture_output=True, timeout=60)  # fmt: skip
        for (host, name), command in self.commands.items():
            own = {"DJPS_DATA_DIR": str(self.folder / host), "API_HOST": self.network.addresses[host]}
            own["API_AUTH"] = "open"
            own["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder / host / "metrics")
            own["WORKER_METRICS_PORT"] = str(METRICS_PORT if host in WORKERS else 0)
            own["WORKER_METRICS_HOST"] = "0.0.0.0"  # noqa: S104 - its network is the test's own
            self.spawn(host, name, command, **own)

    def stop(self) -> None:
        for name, process in self.processes.items():
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        for process in reversed(self.processes.values()):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)

    def ask(self, method: str, path: str, **options: object) -> requests.Response:
        with self.network.on("client"):
            return requests.request(method, f"{self.url}{path}", timeout=10, **options)

    def post(self, count: int, task: str, **payload: object) -> list[str]:
        jobs = [{"payload": {"task": task, **payload}}] * count
        answer = self.ask("POST", "/jobs/batch", json={"jobs": jobs}).json()
        assert answer["created"] == count, answer
        return [item["id"] for item in answer["items"]]

    def rows(self, sql: str, *values: object) -> list[tuple]:
        with self.network.on("client"):
            connection = psycopg2.connect(self.database, connect_timeout=5)
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            found = cursor.fetchall()
        connection.close()
        return found

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/health/ready").json()["status"] == "ok" and len(self.live()) == 3
        except (requests.RequestException, ValueError):
            return False

    def live(self) -> list[str]:
        text = self.ask("GET", "/metrics").text
        return [line for line in text.splitlines() if line.startswith("worker_up{")]

    def counter(self, host: str, name: str) -> float:
        """A counter of one worker's host, read on its WORKER_METRICS_PORT."""
        with self.network.on("client"):
            address = f"http://{self.network.addresses[host]}:{METRICS_PORT}/metrics"
            text = requests.get(address, timeout=5).text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.split("{")[0].split(" ")[0] == name
        )

    def ended(self, ids: list[str]) -> list[tuple[str, int, str]]:
        """Job, number, outcome and host of every attempt that has ended."""
        return self.rows(
            "SELECT job_id::text, attempt, outcome, split_part(worker_id, ':', 1) FROM attempts"
            " WHERE job_id = ANY(%s::uuid[]) ORDER BY 1, 2", ids,
        )  # fmt: skip

    def completed(self, ids: list[str]) -> int:
        return self.rows(
            "SELECT count(*) FROM jobs WHERE status = 'completed' AND id = ANY(%s::uuid[])", ids
        )[0][0]


@pytest.fixture
def site(eventually):
    # Not pytest's own folder: PostgreSQL is another user when root tests.
    folder = Path(tempfile.mkdtemp(prefix="djps-hosts-"))
    folder.chmod(0o711)
    try:
        network = Network(*HOSTS)
    except debian.ProgramMissing as missing:
        pytest.fail(str(missing))
    try:
        with network:
            made = Site(network, folder)
            try:
                made.start()
                eventually(made.is_ready, 60)
                yield made
            finally:
                made.stop()
    finally:
        shutil.rmtree(folder)


def test_a_worker_host_is_cut_off_and_healed_and_every_job_is_done_once(site, eventually):
    # Both hosts work, and each serves the counters of its own processes.
    first = site.post(40, "sleep", seconds=0.05)
    eventually(lambda: site.completed(first) == 40)
    eventually(lambda: sum(site.counter(host, "jobs_completed_total") for host in WORKERS) == 40)
    assert all(site.counter(host, "jobs_completed_total") > 0 for host in WORKERS)

    # Four children, four jobs; the cable of two of them is pulled.
    held = site.post(4, "sleep", seconds=2.5)
    holders = "SELECT id::text, split_part(worker_id, ':', 1) FROM jobs WHERE status = 'processing'"
    eventually(lambda: len(site.rows(holders)) == 4)
    cut = [job for job, host in site.rows(holders) if host == "worker-b"]
    assert len(cut) == 2
    site.network.cut_off("worker-b")
    others = site.post(20, "sleep", seconds=0.05)
    eventually(lambda: site.completed(held + others) == 24, 30)
    # Whatever the cut-off host made of its attempts, nothing of it counts: the other host's are the ones that do.
    assert [row[1:] for row in site.ended(cut)] == [
        (1, "lost", "worker-b"), (2, "completed", "worker-a"),
        (1, "lost", "worker-b"), (2, "completed", "worker-a"),
    ]  # fmt: skip
    eventually(lambda: len(site.live()) == 2)

    # It has stopped what it could not hold a lease for, before the lease ended.
    log = (site.folder / "worker-b.log").read_text()
    assert log.count("lease could not be renewed, the job is stopped") == 2

    # Put back, it works again; statements of the old attempts that still arrive now change nothing.
    site.network.heal("worker-b")
    eventually(lambda: len(site.live()) == 3, 30)
    last: list[str] = []

    def works_again() -> bool:
        last.extend(site.post(4, "sleep", seconds=0.05))
        return any(row[3] == "worker-b" for row in site.ended(last))

    eventually(works_again, 30)
    everything = first + held + others + last
    eventually(lambda: site.completed(everything) == len(everything))
    done = [row for row in site.ended(everything) if row[2] == "completed"]
    assert len(done) == len({row[0] for row in done}) == len(everything)
    assert len(site.ended(everything)) == len(everything) + len(cut)
    counted = eventually(
        lambda: (
            (total := sum(site.counter(host, "jobs_completed_total") for host in WORKERS)) >= len(everything)
            and total
        )
    )
    assert counted == len(everything)
    assert site.processes["worker-b"].poll() is None
