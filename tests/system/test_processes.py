"""Handlers that start processes: what they may do, and what becomes of what they started."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path

import pytest
from conftest import Fleet

pytestmark = pytest.mark.system

HANDLERS = """
    import multiprocessing
    import os
    import signal
    import subprocess
    import sys
    import time
    from concurrent.futures import ProcessPoolExecutor

    from webapp.jobs import handler

    def double(number):
        return 2 * number

    def leave(way):
        if way == "return":
            return {"copy": True}
        if way == "raise":
            raise RuntimeError("the copy")
        if way == "exit":
            sys.exit(3)
        raise KeyboardInterrupt

    @handler("fork", max_retries=0)
    def fork(payload, context):
        context.progress(1, 3)
        pid = os.fork()
        if pid == 0:
            context.progress(2, 3)
            context.cancelled()
            return leave(payload["way"])
        return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "pid": os.getpid()}

    @handler("pools", max_retries=0)
    def pools(payload, context):
        method = multiprocessing.get_context(payload["method"])
        with ProcessPoolExecutor(2, mp_context=method) as pool:
            futures = list(pool.map(double, range(3)))
        with method.Pool(2) as pool:
            mapped = pool.map(double, range(3))
        queue = method.Queue()
        process = method.Process(target=queue.put, args=(7,))
        process.start()
        got = queue.get(timeout=60)
        process.join(60)
        return {"futures": futures, "mapped": mapped, "got": got, "code": process.exitcode}

    births = []

    def be_born_late():
        # The second of two, so that the pool is done before it has come to itself.
        if len(births) % 2 == 0:
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                pass

    @handler("pool-that-ends-early", max_retries=0)
    def pool_that_ends_early(payload, context):
        if not births:
            os.register_at_fork(before=lambda: births.append(1), after_in_child=be_born_late)
        method = multiprocessing.get_context("fork")
        for _ in range(3):
            with method.Pool(2) as pool:
                pool.map(double, range(3))

    @handler("interrupts", max_retries=0)
    def interrupts(payload, context):
        with subprocess.Popen(["sleep", payload["seconds"]]) as command:
            command.send_signal(signal.SIGINT)
            program = command.wait()
        copy = multiprocessing.get_context("fork").Process(target=time.sleep, args=(int(payload["seconds"]),))
        copy.start()
        os.kill(copy.pid, signal.SIGUSR1)
        copy.join()
        return {"program": program, "copy": copy.exitcode}

    @handler("starts", max_retries=1, timeout=600)
    def starts(payload, context):
        if context.attempt > 1:
            return {"attempt": context.attempt}
        if payload["way"] == "shell":
            os.system(f"sleep {payload['seconds']}")
        elif payload["way"] == "session":
            subprocess.run(["sleep", payload["seconds"]], start_new_session=True)
        elif payload["way"] == "job control":
            os.system(f"bash -c 'set -m; sleep {payload['seconds']} & wait'")
        else:
            os.environ["SECONDS_OF_POOL"] = payload["seconds"]
            with ProcessPoolExecutor(2) as pool:
                pool.submit(subprocess.run, ["sleep", payload["seconds"]]).result()

    @handler("starts-and-is-late", max_retries=0, timeout=0.5)
    def starts_and_is_late(payload, context):
        starts(payload, context)

    @handler("who")
    def who(payload, context):
        return {"pid": os.getpid()}

    KEPT = []

    @handler("changes", max_retries=0)
    def changes(payload, context):
        how = payload["how"]
        if how == "folder":
            os.chdir("/")
        elif how == "folder that goes":
            os.mkdir(payload["folder"])
            os.chdir(payload["folder"])
            os.rmdir(payload["folder"])
        elif how == "environment":
            os.umask(0)
            os.environ["TZ"] = "Asia/Tokyo"
            time.tzset()
            sys.setrecursionlimit(5_000)
        elif how == "signals":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.alarm(1)
        elif how == "output":
            os.close(1)
            os.close(2)
        elif how == "files":
            os.closerange(3, 1024)
            KEPT.extend(open(os.devnull, "w") for _ in range(40))
        return {"pid": os.getpid()}

    @handler("looks", max_retries=0)
    def looks(payload, context):
        context.logger.info("I can write")
        return {
            "folder": os.getcwd(),
            "umask": os.umask(0o22),
            "zone": time.tzname[0],
            "recursion": sys.getrecursionlimit(),
            "soft limit": signal.getsignal(signal.SIGUSR1) is not signal.SIG_IGN,
            "alarm": signal.getitimer(signal.ITIMER_REAL)[0] < 10,
            "output": os.path.exists("/proc/self/fd/1"),
        }

    @handler("dies", max_retries=0)
    def dies(payload, context):
        subprocess.Popen(["sleep", payload["seconds"]])
        os._exit(9)
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory, migrated_database):
    """A DJPS whose handlers start processes."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "process_handlers.py").write_text(textwrap.dedent(HANDLERS))
    with migrated_database("djps_processes") as url:
        made = Fleet(folder, url, migrated=True)
        made.environment |= {"HANDLERS": "user_handlers,process_handlers", "CANCEL_GRACE": "2"}
        try:
            made.up()
            yield made
        finally:
            made.stop_all()


#: Processes that have a command's words for arguments: the command alone, for the shell has them as one.
SHELLS = 1


@pytest.fixture
def slow_to_end(processes, eventually):
    """The same, with a worker that would give its jobs a minute to end."""
    processes.stop("worker")
    before = processes.environment
    processes.environment = before | {"SHUTDOWN_GRACE": "60"}
    processes.start("worker")
    eventually(lambda: processes.live_workers() == 2)
    yield processes
    processes.environment = before


def running(seconds: str) -> list[int]:
    """The processes that sleep for exactly this long."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if seconds in (folder / "cmdline").read_text().split("\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("way", "code"), [("return", 0), ("raise", 1), ("exit", 3), ("interrupt", 1)])
def test_a_copy_that_comes_out_of_its_handler_ends(processes, way, code):
    jobs = [processes.post("fork", way=way) for _ in range(4)]
    ended = [processes.wait_for(job) for job in jobs]
    assert [(job["status"], job["attempt"], job["result"]["code"]) for job in ended] == [
        ("completed", 1, code)
    ] * 4
    assert processes.wait_for(processes.post("noop"))["status"] == "completed"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pools_work_in_a_handler(processes, method):
    # Each spawned process imports what the worker has; on a busy machine five of them took 24 s.
    job = processes.wait_for(processes.post("pools", method=method), patience=120)
    assert job["status"] == "completed", job["last_error"]
    assert job["result"] == {"futures": [0, 2, 4], "mapped": [0, 2, 4], "got": 7, "code": 0}


def test_a_pool_ends_although_its_processes_have_not_come_to_themselves(processes):
    jobs = [processes.post("pool-that-ends-early") for _ in range(2)]
    ended = [processes.wait_for(job, patience=20) for job in jobs]
    assert [(job["status"], job["attempt"]) for job in ended] == [("completed", 1)] * 2


def test_what_a_job_started_takes_the_signals_that_any_program_takes(processes):
    job = processes.wait_for(processes.post("interrupts", seconds="4320"), patience=20)
    assert job["result"] == {"program": -signal.SIGINT, "copy": -signal.SIGUSR1}


@pytest.mark.parametrize("way", ["shell", "session", "job control", "pool"])
def test_what_a_cancelled_job_started_ends_with_it(processes, eventually, way):
    seconds = f"4321.{len(way)}"
    job = processes.post("starts", way=way, seconds=seconds)
    eventually(lambda: running(seconds))
    processes.http.post(f"{processes.url}/jobs/{job['id']}/cancel", timeout=10)
    assert processes.wait_for(job)["status"] == "cancelled"
    eventually(lambda: not running(seconds), 2)


@pytest.mark.parametrize("way", ["shell", "session"])
def test_what_a_job_past_its_hard_limit_started_ends_with_it(processes, eventually, way):
    seconds = f"4322.{len(way)}"
    job = processes.post("starts-and-is-late", way=way, seconds=seconds)
    eventually(lambda: running(seconds))
    assert processes.wait_for(job)["status"] == "failed"
    eventually(lambda: not running(seconds), 2)


@pytest.mark.parametrize("way", ["shell", "pool"])
def test_what_the_job_of_a_dead_child_started_ends_before_it_runs_again(processes, eventually, way):
    seconds = f"4323.{len(way)}"
    killed = processes.post("starts", way=way, seconds=seconds)
    eventually(lambda: running(seconds))
    began = time.monotonic()
    os.kill(processes.child_running(killed), signal.SIGKILL)
    assert processes.wait_for(killed)["result"] == {"attempt": 2}
    assert not running(seconds)
    assert time.monotonic() - began < 8, (
        "forked processes must not hide from the parent that its child has died"
    )


def test_what_a_job_started_ends_when_its_handler_ends_the_process(processes, eventually):
    dead = processes.wait_for(processes.post("dies", seconds="4323.2"))
    assert dead["status"] == "failed"
    eventually(lambda: not running("4323.2"), 2)


def test_what_a_released_job_started_ends_at_the_drain(processes, eventually):
    job = processes.post("starts", way="pool", seconds="4324.1")
    eventually(lambda: running("4324.1"))
    processes.stop("worker")
    assert processes.attempts(job) == [(1, "released")]
    assert not running("4324.1")
    processes.start("worker")
    assert processes.wait_for(job)["result"] == {"attempt": 2}
    eventually(lambda: processes.live_workers() == 2)


def test_what_the_jobs_of_a_killed_worker_started_ends_and_they_run_again_at_once(processes, eventually):
    job = processes.post("starts", way="shell", seconds="4325.1")
    eventually(lambda: running("4325.1"))
    began = time.monotonic()
    processes.stop("worker", signal.SIGKILL)
    # The maintenance worker lives on this host, too, and sees that the other has died.
    eventually(lambda: processes.attempts(job) == [(1, "lost")], 4)
    assert time.monotonic() - began < 4, "its lease had 5 s to go"
    assert not running("4325.1")
    processes.start("worker")
    assert processes.wait_for(job)["result"] == {"attempt": 2}
    eventually(lambda: processes.live_workers() == 2)


HURRIES = {
    "quit": [signal.SIGQUIT],
    "usr2": [signal.SIGUSR2],
    "interrupt twice": [signal.SIGINT, signal.SIGINT],
    "interrupt thrice": [signal.SIGINT, signal.SIGINT, signal.SIGINT],
    "term, then quit": [signal.SIGTERM, signal.SIGQUIT],
}


@pytest.mark.parametrize("signals", HURRIES.values(), ids=HURRIES.keys())
def test_a_worker_told_to_hurry_releases_what_it_holds(slow_to_end, eventually, signals):
    jobs = [slow_to_end.post("starts", way="shell", seconds="4326.1") for _ in range(2)]
    eventually(lambda: len(running("4326.1")) == 2 * SHELLS)
    worker = slow_to_end.processes["worker"]
    began = time.monotonic()
    for number in signals:
        worker.send_signal(number)
        time.sleep(0.2)  # two of one kind that come at once are one
    worker.wait(20)
    assert time.monotonic() - began < 10
    assert [slow_to_end.attempts(job) for job in jobs] == [[(1, "released")]] * 2
    found = [slow_to_end.job(job["id"]) for job in jobs]
    assert [(job["status"], job["retry_count"]) for job in found] == [("queued", 0)] * 2
    assert not running("4326.1")
    slow_to_end.start("worker")
    assert [slow_to_end.wait_for(job)["result"] for job in jobs] == [{"attempt": 2}] * 2
    eventually(lambda: slow_to_end.live_workers() == 2)


@pytest.mark.parametrize("name", ["worker", "maintenance"])
def test_a_worker_told_to_start_anew_does_so_in_its_process(processes, eventually, name):
    def starts():
        return set(processes.redis().scan_iter("*djps:worker:*"))

    before = starts()
    processes.processes[name].send_signal(signal.SIGHUP)
    eventually(lambda: len(starts() - before) == 1 and processes.live_workers() == 2, 60)
    assert processes.processes[name].poll() is None
    assert len(starts() & before) == 1, "the other one went on"
    assert processes.wait_for(processes.post("starts", way="shell", seconds="0.1"))["status"] == "completed"
    said = (processes.folder / f"{name}.log").read_text()
    assert [line for line in said.splitlines() if not line.startswith("{")] == []


def test_a_child_runs_as_many_jobs_as_are_allowed(processes, eventually):
    processes.stop("worker")
    processes.environment["MAX_TASKS_PER_CHILD"] = "40"
    processes.start("worker")
    jobs = [{"payload": {"task": "who"}} for _ in range(600)]
    answer = processes.http.post(f"{processes.url}/jobs/batch", json={"jobs": jobs}, timeout=30)
    assert answer.status_code < 300, answer.text
    eventually(lambda: processes.unfinished() == 0, 60)
    found = processes.rows(
        "SELECT result ->> 'pid', count(*), max(attempt) FROM jobs WHERE task = 'who' GROUP BY 1"
    )
    assert sum(count for _, count, _ in found) == 600
    assert max(count for _, count, _ in found) <= 40
    assert max(attempt for _, _, attempt in found) == 1


WAYS_TO_CHANGE = ["folder", "folder that goes", "environment", "signals", "output", "files"]


@pytest.mark.parametrize("how", WAYS_TO_CHANGE)
def test_what_a_job_changes_in_its_process_no_later_job_meets(processes, tmp_path, how):
    before = processes.wait_for(processes.post("looks"))["result"]
    jobs = [processes.post("changes", how=how, folder=str(tmp_path / str(number))) for number in range(6)]
    ended = [processes.wait_for(job) for job in jobs]
    assert [(job["status"], job["attempt"]) for job in ended] == [("completed", 1)] * 6
    looks = [processes.wait_for(processes.post("looks")) for _ in range(6)]
    assert [job["result"] for job in looks] == [before] * 6
    if how == "files":
        # One after another: jobs of one message share a child, which is replaced after it.
        lost = [processes.wait_for(processes.post("changes", how=how))["result"]["pid"] for _ in range(3)]
        assert len(set(lost)) == 3, "a child that lost its own files is replaced"
    late = processes.wait_for(processes.post("too-slow"))
    assert (
        "JobTimeout"
        in processes.rows("SELECT error_type FROM job_attempts WHERE job_id = %s", late["id"])[0][0]
    )
