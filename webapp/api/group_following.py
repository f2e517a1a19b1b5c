"""Requests that stay until something happens to a group: a wait for its end, and its changes as server-sent events.

What `following` does for jobs, for what is told of by its row in `groups`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from flask import Response, request
from sqlalchemy.exc import SQLAlchemyError

from webapp.api.following import EVENTS_LIMIT, LOOK_BUDGET, PING_EVERY, RECONNECT_MS, closing_watch, enter
from webapp.api.work_slots import WorkSlots, work_slots
from webapp.infra.postgres import database_errors, deadlines
from webapp.infra.postgres.database_errors import Trouble
from webapp.jobs.watchers import Watch


class Followed(Protocol):
    """What is followed."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def updated_at(self) -> datetime:
        """When it was changed."""


T = TypeVar("T", bound=Followed)


def moment_of(found: Followed) -> str:
    """Names a state by the moment of its last change, in microseconds."""
    return str(round(found.updated_at.timestamp() * 1_000_000))


@dataclass(frozen=True, slots=True)
class Following(Generic[T]):
    """How something is followed.

    Args:
        get: looks it up.
        watch: looks it up, and has it tell of its changes from then on.
        is_over: True if nothing more happens to it.
        answer: its JSON-ready form, as the caller may see it.
        gone: what `get` raises where it is not there any more.
        event_id: names its state; a client says in `Last-Event-ID` which it has seen.
        slots: the places of those that work on the database; a stream goes on where there is no request any more.
    """

    get: Callable[[], T]
    watch: Callable[[], T]
    is_over: Callable[[T], bool]
    answer: Callable[[T], dict[str, Any]]
    gone: type[Exception]
    event_id: Callable[[T], str] = moment_of
    slots: WorkSlots = field(default_factory=work_slots)

    def until_over(self, seconds: float) -> T:
        """It, as soon as it is over, or as it is after so many seconds.

        Raises:
            TooManyWaiters: as many requests wait as may.
        """
        found = self.get()
        if self.is_over(found):
            return found
        end = time.monotonic() + seconds
        with closing_watch(found.id) as watch:
            found = self._watched(found)
            self.slots.leave()
            while not self.is_over(found) and watch.wait(end - time.monotonic()):
                found = self._look(watch, found)
            if not self.is_over(found) and watch.is_open():
                # What is answered is true now, whatever became of those who should have woken us.
                found = self._look(watch, found)
        return found

    def events(self) -> Response:
        """Its changes as server-sent events, until it is over; 204 where the client has seen the last of them."""
        found = self.get()
        known = request.headers.get("Last-Event-ID", "")
        if self.is_over(found) and known == self.event_id(found):
            return Response(status=204)
        watch = enter(found.id)
        try:
            found = self._watched(found)
        except BaseException:
            watch.leave()
            raise
        answer = Response(self._stream(watch, found, known), mimetype="text/event-stream")
        answer.headers["Cache-Control"] = "no-cache"
        answer.headers["X-Accel-Buffering"] = "no"
        # A generator that was never begun does not run its `finally`, so the place is given back here.
        answer.call_on_close(watch.leave)
        return answer

    def _watched(self, found: T) -> T:
        """It, telling of its changes from now on; where it cannot be marked, `Watchers` looks at it every second."""
        try:
            return self.watch()
        except SQLAlchemyError as error:
            if database_errors.trouble_of(error) is Trouble.DEFECT:
                raise
            return found

    def _look(self, watch: Watch, before: T) -> T:
        """It as it stands; while PostgreSQL is away, as it was."""
        try:
            with self.slots.slot(), deadlines.within(LOOK_BUDGET):
                return self.get()
        except SQLAlchemyError:
            watch.miss()
            return before

    def _stream(self, watch: Watch, found: T, known: str) -> Iterator[str]:
        end = time.monotonic() + EVENTS_LIMIT
        yield f"retry: {RECONNECT_MS}\n\n"
        told = known
        while True:
            if (event_id := self.event_id(found)) != told:
                name = "final" if self.is_over(found) else "state"
                told = event_id
                yield f"event: {name}\nid: {told}\ndata: {json.dumps(self.answer(found))}\n\n"
            left = end - time.monotonic()
            if self.is_over(found) or left <= 0 or not watch.is_open():
                return
            woken = watch.wait(min(PING_EVERY, left))
            try:
                found = self._look(watch, found)
            except self.gone:
                # It was deleted meanwhile: a client that connects again is told so.
                return
            if not woken:
                yield ": ping\n\n"
