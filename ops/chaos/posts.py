"""Jobs of the harness's own, which a fault posts beside the load and follows until they are final."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import Any

from ops.chaos.clients import Line
from ops.chaos.history import Event, Exchange
from ops.chaos.stage import Broken, Stage

#: Their sequence numbers, apart from those of the load and of followers.
FIRST = 20_000_000


#: A job as it is posted: its kind, its payload, and options such as its priority.
Posted = tuple[str, dict[str, Any], dict[str, Any]]


class Posts:
    """Posts jobs of the harness's own, and notes them in the history."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._next = FIRST

    def post(self, jobs: list[Posted]) -> list[str]:
        """Posts a batch of jobs, each given as kind, payload and options; returns their ids.

        Raises:
            Broken: not all of them were accepted.
        """
        items, operations = [], []
        for kind, payload, options in jobs:
            self._next += 1
            operation = self._stage.history.begin(self._next, f"{self._stage.prefix}-{self._next}", kind)
            self._stage.history.invoke(operation)
            operations.append(operation)
            items.append(
                {"payload": {"seq": self._next, **payload}, "idempotency_key": operation.key, **options}
            )
        began = time.time()
        # Kept open between two batches, the connection would be closed by the API.
        line = Line(self._stage.system.api_port, timeout=30.0)
        status, _, answer = line.ask("POST", "/jobs/batch", json.dumps({"jobs": items}).encode())
        line.close()
        exchange = Exchange(began, time.time() - began, status, retry_after=False)
        answers = json.loads(answer)["items"] if status == HTTPStatus.OK else []
        if len(answers) != len(jobs) or any("id" not in one for one in answers):
            raise Broken(f"a batch of {len(jobs)} was answered {status}: {answer[:200]!r}")
        for operation, one in zip(operations, answers, strict=True):
            self._stage.history.end(operation, Event.OK, exchange, one["id"])
        return [one["id"] for one in answers]

    def await_final(self, ids: list[str], patience: float) -> None:
        """Waits until these jobs are final; `patience` is in seconds, on a machine that is not busy.

        Raises:
            TimeoutError: they are not in time.
        """
        self._stage.await_that(
            lambda: (
                self._stage.system.rows(
                    "SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND status IN ('queued', 'processing')",
                    ids,
                )
                == [(0,)]
            ),
            patience,
            "its jobs to be final",
        )

    def outcomes(self, ids: list[str]) -> dict[str, int]:
        """How the attempts of jobs ended."""
        return dict(
            self._stage.system.rows(
                "SELECT outcome, count(*) FROM attempts WHERE job_id = ANY(%s::uuid[]) GROUP BY 1", ids
            )
        )
