"""Jobs that a running job submits: each attempt's own, or known to all attempts by a name.

The name, with the id of the job that submits, makes the child's idempotency key. So a handler that is tried again, after a crash as
after an error, finds what an earlier attempt has submitted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any
from uuid import UUID

from webapp.jobs import submitter
from webapp.jobs.errors import OptionRefused
from webapp.jobs.submission import Placed
from webapp.jobs.submitter import Front

#: Longest name of a child, characters.
MAX_NAME = 200


def key_of(parent: UUID, name: str) -> str:
    """The idempotency key of a child that has a name. Pure.

    Example:
        >>> key_of(UUID(int=7), "receipt")
        'child:00000000-0000-0000-0000-000000000007:receipt'
    """
    return f"child:{parent}:{name}"


def key_of_unnamed(parent: UUID, attempt: int, process: int, number: int) -> str:
    """The idempotency key of a child that has none: no attempt has that of another, and no process that a handler has forked. Pure.

    Example:
        >>> key_of_unnamed(UUID(int=7), 2, 4711, 1)
        'child:00000000-0000-0000-0000-000000000007#2.4711.1'
    """
    return f"child:{parent}#{attempt}.{process}.{number}"


class Children:
    """Submits jobs from inside an attempt.

    Args:
        parent: the job that submits.
        attempt: which of its attempts.
        open_front: where they go; asked for once, by the first of them, so that an attempt without any pays nothing.
    """

    __slots__ = ("_attempt", "_front", "_numbers", "_open", "_parent")

    def __init__(self, parent: UUID, attempt: int, open_front: Callable[[], Front]) -> None:
        self._parent = parent
        self._attempt = attempt
        self._open = open_front
        self._front: Front | None = None
        self._numbers = count(1)

    def submit(self, payload: Mapping[str, Any], name: str | None, options: Mapping[str, Any]) -> Placed:
        """Submits a job. Arguments and errors as of `JobContext.submit`."""
        request = self._keyed({**options, "payload": payload}, name)
        return submitter.submit(self._front_door(), request)

    def submit_many(self, requests: Sequence[Mapping[str, Any]], name: str | None) -> list[Placed]:
        """Submits many. Arguments and errors as of `JobContext.submit_many`."""
        if name is not None:
            _check_name("name", name)
        return submitter.submit_many(
            self._front_door(), [self._one_of_many(request, at, name) for at, request in enumerate(requests)]
        )

    def _front_door(self) -> Front:
        if self._front is None:
            self._front = self._open()
        return self._front

    def _one_of_many(self, request: object, at: int, together: str | None) -> dict[str, Any]:
        if not isinstance(request, Mapping):
            raise OptionRefused(f"jobs.{at}", "must be a mapping with a payload", type(request).__name__)
        rest = {field: value for field, value in request.items() if field != "name"}
        own = request.get("name")
        if own is None and together is not None and "idempotency_key" not in rest:
            return rest | {"idempotency_key": key_of(self._parent, f"{together}.{at}")}
        return self._keyed(rest, own, f"jobs.{at}.")

    def _keyed(self, request: dict[str, Any], name: object, path: str = "") -> dict[str, Any]:
        """The request with a key: that of its name, one of this attempt's own, or the one that it has."""
        given = request.get("idempotency_key")
        if name is None:
            if given is not None:
                return request
            key = key_of_unnamed(self._parent, self._attempt, os.getpid(), next(self._numbers))
            return request | {"idempotency_key": key}
        if given is not None:
            raise OptionRefused(f"{path}name", "must not be given together with idempotency_key", str(given))
        return request | {"idempotency_key": key_of(self._parent, _check_name(f"{path}name", name))}


def _check_name(path: str, name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise OptionRefused(path, f"must be a printable text of 1 to {MAX_NAME} characters", name)
    return name
