"""What the database is told of handlers and settings, so that `djps_submit` can judge a submission in its caller's transaction.

The maintenance workers tell it, for without one no job is sent either. They look every second whether it is what they would
say, and write only where it is not: what was told last by a process that is gone is corrected by those that are there.
"""

from __future__ import annotations

import json
import time
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Engine, text

from webapp.infra.background import Clock
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.postgres.sql_files import read_sql
from webapp.infra.telemetry import metrics
from webapp.jobs.errors import Discard, PayloadRefused
from webapp.jobs.handlers import Handler, HandlerRegistry
from webapp.jobs.submission import Limits
from webapp.jobs.submitter import of_model

#: Seconds between two looks of a process.
LOOK_EVERY = 1.0
#: What the request of such a job is called, up to the number of its transaction.
MARK = "sql@"
#: Most of such jobs that are counted by one look.
MOST_COUNTED = 10_000

_STAMP, _TELL, _FORGET, _HANDLERS, _COUNTED = (
    text(read_sql(__file__, "known", name)) for name in ("stamp", "tell", "forget", "handlers", "counted")
)


def is_of_a_transaction(request_id: str | None) -> bool:
    """True if a job came by `djps_submit`: no request over HTTP can be called as those are. Pure."""
    return request_id is not None and request_id.startswith(MARK)


def check_late(found: Handler, payload: dict[str, Any]) -> None:
    """Holds a payload against a handler's model in the worker, for the database could not.

    Raises:
        Discard: it does not fit, and no other attempt would find it otherwise.
    """
    try:
        found.check(payload)
    except PayloadRefused as refused:
        raise Discard(str(of_model(refused))) from None


def rules_of(registry: HandlerRegistry, limits: Limits, largest: int) -> dict[str, Any]:
    """What there is to be told, with a stamp that is another one where anything in it is. Pure.

    Args:
        largest: the largest payload, bytes.
    """
    rules = {
        "max_payload_bytes": largest,
        "max_retries": limits.max_retries,
        "timeout": limits.timeout,
        "key_ttl": limits.key_ttl,
        "default_task": limits.default_handler,
        "only_known": limits.only_known,
        "queues": list(registry.queues()),
        "handlers": json.dumps([_document(one) for _, one in sorted(registry.mapping().items())]),
    }
    return rules | {"stamp": sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()}


def _document(one: Handler) -> dict[str, Any]:
    return {
        "task": one.name,
        "queue": one.queue,
        "max_retries": one.max_retries,
        "timeout": one.timeout,
        "priority": one.priority,
        "backoff": one.backoff,
        "tags": list(one.tags),
        "expires_in": one.expires_in,
        "has_model": one.model is not None,
    }


def tell(connection: Connection, rules: dict[str, Any]) -> bool:
    """Tells the database, unless it knows; True where that changed something. Never commits.

    Args:
        rules: of `rules_of`.
    """
    if connection.execute(_STAMP).scalar() == rules["stamp"]:
        return False
    given = {name: value for name, value in rules.items() if name != "handlers"}
    if not connection.execute(_TELL, given).rowcount:
        return False
    tasks = [one["task"] for one in json.loads(rules["handlers"])]
    connection.execute(_FORGET, {"tasks": tasks})
    connection.execute(_HANDLERS, {"handlers": rules["handlers"]})
    return True


def count(connection: Connection) -> int:
    """Takes the jobs that came by `djps_submit` and are not counted yet, up to a bound; returns how many. Never commits."""
    return connection.execute(_COUNTED, {"limit": MOST_COUNTED}).rowcount


class Telling:
    """Keeps the database up to date with what this process knows.

    Args:
        engine: the database.
        registry: its handlers.
        limits: its settings.
        largest: the largest payload, bytes.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        engine: Engine,
        registry: HandlerRegistry,
        limits: Limits,
        largest: int,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._limits = limits
        self._largest = largest
        self._clock = clock
        self._look_at = float("-inf")

    def turn(self) -> bool:
        """Looks whether the database knows, if the last look is a second old; True where it had to be told. Counts jobs, too.

        Raises:
            SQLAlchemyError: the database does not answer; the next turn looks again.
        """
        now = self._clock()
        if now < self._look_at:
            return False
        rules = rules_of(self._registry, self._limits, self._largest)
        told = in_transaction(self._engine, lambda connection: tell(connection, rules))
        metrics.jobs_created.inc(in_transaction(self._engine, count))
        self._look_at = now + LOOK_EVERY
        return told
