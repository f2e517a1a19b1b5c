"""A release goes in under a steady stream of requests: none fails, no job is lost, old and new run side by side."""

from __future__ import annotations

import signal
import textwrap
import threading
from collections import Counter
from typing import Self

import psutil
import pytest
import requests

pytestmark = pytest.mark.system

#: What the release brings: a handler that older workers do not know, and other chunks for one that they know.
RELEASE = """
    from webapp.jobs import handler

    @handler("brand-new", max_retries=9)
    def brand_new(payload, context):
        return {"by": "the release"}

    @handler("shared", chunk=1)
    def shared(payload, context):
        return {"by": "the release"}
"""
BEFORE = """
    from webapp.jobs import handler

    @handler("shared", chunk=50)
    def shared(payload, context):
        return {"by": "the code before"}
"""


class Stream:
    """Clients that submit without a pause, each request on a connection of its own, as behind a load balancer."""

    def __init__(self, url: str, clients: int = 3) -> None:
        self.url, self.over = url, threading.Event()
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self.threads = [threading.Thread(target=self._submit) for _ in range(clients)]

    def _submit(self) -> None:
        while not self.over.wait(0.05):
            body = {"payload": {"task": "shared"}}
            try:
                answer = requests.post(f"{self.url}/jobs", json=body, timeout=10)
            except requests.RequestException as error:
                self.failed.append(repr(error))
                continue
            if answer.status_code == 201:
                self.accepted.append(answer.json()["id"])
            else:
                self.failed.append(f"{answer.status_code} {answer.text[:200]}")

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(20)


def start_beside(fleet, name, workers):
    """Starts another worker like `name`, under a name of its own, and waits until it works."""
    new = f"{name}-new"
    fleet.commands[new] = [word.replace("@%h", "-new@%h") for word in fleet.commands[name]]
    fleet.start(new)
    fleet.wait_until(lambda: fleet.live_workers() == workers)


def reexecute(fleet, eventually):
    """USR2: gunicorn starts the new code on the socket of the old; once it answers, the old one is told to end."""
    old = fleet.processes["api"]
    old.send_signal(signal.SIGUSR2)

    def workers_of_the_new():
        masters = [one for one in psutil.Process(old.pid).children() if one.children()]
        return [one for one in masters if len(one.children()) == 2]

    new = eventually(workers_of_the_new, 40)[0]
    assert fleet.http.get(f"{fleet.url}/health/ready", timeout=10).json()["status"] == "ok"
    fleet.stop("api")
    return new


def test_a_release_goes_in_with_no_failed_request_and_no_lost_job(another_fleet, database, eventually):
    fleet = another_fleet("release", database)
    (fleet.folder / "user_handlers.py").write_text(textwrap.dedent(BEFORE))
    fleet.up()
    new_api = None
    try:
        with Stream(fleet.url) as stream:
            eventually(lambda: len(stream.accepted) > 30)
            (fleet.folder / "user_handlers.py").write_text(textwrap.dedent(RELEASE))
            fleet.migrate()
            # Old and new side by side: each worker runs what it can, whatever made the message.
            start_beside(fleet, "worker", workers=3)
            eventually(lambda: len(_by_code(fleet)) == 2)
            start_beside(fleet, "maintenance", workers=4)
            fleet.stop("worker")
            fleet.stop("maintenance")
            fleet.start("second-beat")
            fleet.stop("beat")
            # The API last: no one is given what no worker can do.
            new_api = reexecute(fleet, eventually)
            seen = len(stream.accepted)
            eventually(lambda: len(stream.accepted) > seen + 30)
        assert stream.failed == []
        eventually(lambda: fleet.unfinished() == 0)
        found = fleet.rows("SELECT id::text, status FROM jobs")
        assert Counter(status for _, status in found) == {"completed": len(stream.accepted)}
        assert {job for job, _ in found} == set(stream.accepted)
        # A worker that is told to end may give back what it has not begun; nothing fails and nothing is lost.
        odd = "SELECT count(*) FROM attempts WHERE outcome NOT IN ('completed', 'released')"
        assert fleet.rows(odd) == [(0,)]
        assert fleet.wait_for(fleet.post("brand-new"))["result"] == {"by": "the release"}
    finally:
        if new_api is not None:
            new_api.terminate()
            psutil.wait_procs([new_api], timeout=30)


def _by_code(fleet):
    return fleet.rows("SELECT DISTINCT result->>'by' FROM jobs WHERE created_at > now() - interval '1 s'")
