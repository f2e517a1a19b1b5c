"""The images: built from the Dockerfile, and run as an engine runs them, by a user without rights on files of which none may change."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import requests
import yaml
from image import USER, CannotBuild, Workshop

from ops.stack import ports, processes
from webapp.access.secret import hash_of, new_key
from webapp.settings import Settings

pytestmark = pytest.mark.system

PATIENCE = 60.0
#: Short times, as in the other system tests, but for the drain.
TEMPO = {
    "STUCK_JOB_THRESHOLD": "5",
    "STUCK_CHECK_INTERVAL": "1",
    "WORKER_HEARTBEAT_TTL": "5",
    "SHUTDOWN_GRACE": "20",
    "RATE_LIMIT": "off",
}
#: What the image's processes are in `ops up`, by name; Flower keeps nothing and needs no drain.
ROLES = ("api", "worker", "maintenance", "beat")
#: What runs before them: the compose file's own command.
MIGRATE = yaml.safe_load((Path(__file__).parents[2] / "ops/docker/compose.yaml").read_text())["services"][
    "migrate"
]["command"]


@pytest.fixture(scope="module")
def workshop():
    # Not pytest's own folder: files that are owned by others would be in the way of its clean-up.
    with tempfile.TemporaryDirectory(prefix="djps-image-") as folder:
        try:
            made = Workshop(Path(folder))
        except CannotBuild as reason:
            pytest.skip(f"no image can be built here: {reason}")
        yield made
        made.close()


@pytest.fixture(scope="module")
def image(workshop):
    return workshop.build("djps")


class Containers:
    """The image's processes, each with files of its own as in containers."""

    def __init__(self, image, database_url, folder):
        self.image = image
        self.folder = folder
        self.api_port = ports.free()
        self.url = f"http://{ports.LOOPBACK}:{self.api_port}"
        key = new_key()
        self.environment = {
            **TEMPO,
            "DATABASE_URL": database_url,
            "REDIS_URL": os.environ["REDIS_URL"],
            "API_PORT": str(self.api_port),
            "API_HOST": ports.LOOPBACK,
            "API_AUTH": "keys",
            "BOOTSTRAP_KEY_SHA256": hash_of(key).hex(),
        }
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {key}"
        self.running = {}

    def start(self, name, words):
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.image.command(words, self.environment),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.running[name]

    def log(self, name):
        return self.folder / f"{name}.log"

    def logs(self):
        return "".join(self.log(name).read_text() for name in self.running)

    def inside(self, name, *words):
        """Runs a program beside a process; returns its exit code and what it said."""
        done = subprocess.run(
            self.image.beside(self.running[name].pid, words, self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout + done.stderr

    def ready(self):
        try:
            return requests.get(f"{self.url}/health/ready", timeout=2).json()["status"] == "ok"
        except requests.RequestException:
            return False

    def post(self, **payload):
        answer = self.http.post(f"{self.url}/jobs", json={"payload": payload}, timeout=10)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def job(self, job_id):
        return self.http.get(f"{self.url}/jobs/{job_id}", timeout=10).json()

    def end(self):
        for process in self.running.values():
            # What it started goes with it: a test that failed may have left both.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def containers(image, empty_database, tmp_path_factory, eventually):
    """All of DJPS from the image, over the run's servers."""
    commands = {
        process.name: [Path(process.command[0]).name, *process.command[1:]]
        for process in processes.applications(Settings(_env_file=None, _env_prefix="NOT_OF_THIS_TEST_"))
    }
    made = Containers(image, empty_database("djps_image"), tmp_path_factory.mktemp("containers"))
    try:
        migration = made.start("migrate", MIGRATE)
        assert migration.wait(PATIENCE) == 0, made.logs()
        for name in ROLES:
            made.start(name, commands[name])
        eventually(made.ready, PATIENCE)
        yield made
    finally:
        made.end()


def test_the_key_whose_hash_the_migration_was_given_is_let_in_and_no_one_else(containers):
    assert containers.http.get(f"{containers.url}/access/me", timeout=10).json()["name"] == "bootstrap"
    assert requests.get(f"{containers.url}/jobs", timeout=10).status_code == 401
    assert "(bootstrap) is known now" in containers.log("migrate").read_text()


def test_a_job_completes(containers, eventually):
    job = containers.post(task="noop")
    eventually(lambda: containers.job(job)["status"] == "completed", PATIENCE)
    late = containers.post(task="fail")
    eventually(lambda: containers.job(late)["attempt"] > 1, PATIENCE)


def test_every_process_is_the_user_without_rights(containers):
    for name in ROLES:
        status = Path(f"/proc/{containers.running[name].pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(USER)}
        assert int(fields["CapEff"], 16) == 0


@pytest.mark.parametrize("name", ["worker", "maintenance", "beat"])
def test_a_probe_finds_the_process_alive_and_ready(containers, eventually, name):
    probe = ("python", "-m", "tasks.liveness", name, "--ready")
    eventually(lambda: containers.inside(name, *probe)[0] == 0, PATIENCE)


def test_the_root_cannot_be_written(containers):
    for path in ("/srv/djps/x", "/x", "/opt/venv/x", "/usr/x"):
        code, said = containers.inside("api", "touch", path)
        assert code != 0
        assert "Read-only file system" in said
    assert containers.inside("api", "touch", "/run/djps/x", "/tmp/x")[0] == 0  # noqa: S108 - in the image


def test_the_image_says_how_it_is_to_be_run(image):
    assert image.config["User"] == f"{USER}:{USER}"
    assert image.config["Healthcheck"]["Test"][0] == "CMD"
    assert set(image.config["Volumes"]) == {"/run/djps", "/tmp"}  # noqa: S108 - a mount
    assert image.config["Entrypoint"] == ["/usr/bin/tini", "--"]


def test_sigterm_lets_what_runs_end_and_every_process_goes(containers, eventually):
    job = containers.post(task="sleep", seconds=3)
    eventually(lambda: containers.job(job)["status"] == "processing", PATIENCE)
    worker = containers.running["worker"]
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert time.monotonic() - began > 1
    found = containers.job(job)
    assert (found["status"], found["attempt"]) == ("completed", 1)
    for name in ("beat", "maintenance", "api"):
        containers.running[name].terminate()
        assert containers.running[name].wait(PATIENCE) == 0, containers.log(name).read_text()
    # Nothing wanted to write where it may not.
    assert not re.findall("Read-only file system|Permission denied|EROFS", containers.logs())


def test_the_image_of_the_tests_runs_tests(workshop):
    built = workshop.build("test")
    words = ["python3", "-m", "ops", "test", "tests/unit/test_states.py", "tests/integration/test_health.py"]
    done = subprocess.run(
        built.command(words, {}, writable=True), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
