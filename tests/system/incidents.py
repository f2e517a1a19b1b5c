"""What the runbooks are read for, brought about for real, so that their searches have real lines to find."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import requests
from shell import Clone

#: How long an incident may take to show, seconds.
PATIENCE = 40.0


def provoke(stack: Clone) -> None:
    """A process that dies, a lease that is lost, a dead letter, and a database that is away."""
    site = Site(stack)
    site.lose_a_child()
    site.lose_a_lease()
    site.post("fail", max_retries=0)
    # Neither is written without a database, so it is stopped after them.
    site.until(lambda: "lease was lost" in site.log("worker"))
    site.until(lambda: "job recovered" in site.log("maintenance"))
    site.stop_the_database()
    site.until(lambda: '"status":503' in site.log("api"))


class Site:
    """The stack, as an operator has it before them."""

    def __init__(self, stack: Clone) -> None:
        self._stack = stack
        self._url = f"http://127.0.0.1:{stack.ports['8000']}"

    def post(self, task: str, **options: object) -> str:
        payload = {"task": task, "seconds": 3}
        answer = requests.post(f"{self._url}/jobs", json={"payload": payload, **options}, timeout=10)
        return answer.json()["id"]

    def log(self, name: str) -> str:
        return (self._stack.folder / ".djps" / "logs" / f"{name}.log").read_text()

    def until(self, condition: Callable[[], object]) -> object:
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < end, "the incident does not show"
            time.sleep(0.05)
        return found

    def _runs(self, job_id: str) -> str | None:
        """Who runs a job; None while no one does."""
        items = requests.get(f"{self._url}/jobs/{job_id}/attempts", timeout=10).json()["items"]
        return next((one["worker_id"] for one in items if one["outcome"] is None), None)

    def lose_a_child(self) -> None:
        job = self.post("sleep")
        holder = str(self.until(lambda: self._runs(job)))
        os.kill(int(holder.rpartition("/")[2]), signal.SIGKILL)
        self.until(lambda: "job recovered" in self.log("worker"))

    def lose_a_lease(self) -> None:
        """The row says that another attempt has the job, which is what a worker that was away finds."""
        job = self.post("sleep")
        self.until(lambda: self._runs(job))
        self._stack.execute("UPDATE jobs SET attempt = attempt + 1 WHERE id = %s", job)

    def stop_the_database(self) -> None:
        self._stack.ops("stop", "postgres")
        answer = requests.post(f"{self._url}/jobs", json={"payload": {"task": "noop"}}, timeout=10)
        assert answer.status_code == 503, answer.text
        self._stack.ops("restart", "postgres")
        self.until(lambda: requests.get(f"{self._url}/health/ready", timeout=10).status_code == 200)
