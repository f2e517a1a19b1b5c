"""Requests that are sent again and again beside a fault: each until it is taken, until they are told to end."""

from __future__ import annotations

import threading
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

import requests

from ops.chaos.stage import Broken, Stage

#: Longest that a request is tried again, seconds.
PATIENCE = 20.0
#: Requests of one turn at most that an end waits for.
MOST_OF_A_TURN = 4


class Repeated:
    """Something that is done again and again in a thread, from the beginning of a `with` block to its end.

    Args:
        stage: where.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name=type(self).__name__, daemon=True)
        #: How often it was done, and why it ended before it was told to.
        self.done = 0
        self.error: Exception | None = None
        #: Requests whose second answer was another.
        self.unlike = 0

    def once(self) -> None:
        """Does it.

        Raises:
            Broken, TimeoutError: it cannot be done; it is not done again.
        """
        raise NotImplementedError

    @property
    def is_on(self) -> bool:
        """False once it is told to end."""
        return not self._over.is_set()

    def __enter__(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends with what it is at."""
        self._over.set()
        self._thread.join(MOST_OF_A_TURN * PATIENCE)

    def _go_on(self) -> None:
        try:
            while self.is_on:
                self.once()
                self.done += 1
        except (Broken, TimeoutError) as error:
            self.error = error


def ask(
    stage: Stage, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Sends a request until it is taken; returns the answer.

    Raises:
        Broken: it is refused.
    """
    answers: list[dict[str, Any]] = []

    def taken() -> bool:
        with suppress(requests.RequestException):
            answer = requests.post(stage.system.url + path, json=body, headers=headers, timeout=10)
            if "Retry-After" in answer.headers or answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                return False
            if answer.status_code not in {HTTPStatus.OK, HTTPStatus.CREATED}:
                raise Broken(f"POST {path} was answered {answer.status_code}: {answer.text[:200]}")
            answers.append(answer.json())
        return bool(answers)

    stage.await_that(taken, PATIENCE, f"POST {path}")
    return answers[0]
