"""Connects to one of several PostgreSQL hosts: each gets its share of the time there is, the one that answered last comes first.

libpq goes through a list of hosts by itself, but only one that answers, or refuses, lets it go on to the next within the
time of a request: a host that has lost its power says nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import psycopg2
from sqlalchemy import Engine, event

from webapp.infra.postgres import deadlines


class Hosts:
    """The hosts of one database, for as long as a process lives."""

    def __init__(self) -> None:
        self._last: dict[str, str] | None = None

    def connect(self, arguments: Mapping[str, Any]) -> Any:
        """A connection to the first host that lets us in, and takes writes where that is asked for.

        Args:
            arguments: those of `psycopg2.connect`; `host` and `port` may be lists with commas.

        Raises:
            psycopg2.OperationalError: none did; it is the last one's.
        """
        with deadlines.one_after_the_other():
            return self._connect(arguments)

    def _connect(self, arguments: Mapping[str, Any]) -> Any:
        order = hosts_of(arguments)
        if arguments.get("load_balance_hosts") == "random":
            random.shuffle(order)
        else:
            order.sort(key=lambda one: one != self._last)
        for place, host in enumerate(order):
            left = len(order) - place
            try:
                with deadlines.share(left):
                    made = psycopg2.connect(**{**arguments, **host})
            except psycopg2.OperationalError:
                if left == 1:
                    raise
            else:
                self._last = host
                return made
        raise AssertionError("there is always a host")


def hosts_of(arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    """The `host` and `port` of each host; what is not said is left to libpq. Pure.

    Example:
        >>> hosts_of({"host": "a,b", "port": "1,"})
        [{'host': 'a', 'port': '1'}, {'host': 'b', 'port': ''}]
        >>> hosts_of({})
        [{}]
    """
    given = {name: str(arguments[name]).split(",") for name in ("host", "port") if name in arguments}
    count = max((len(values) for values in given.values()), default=1)
    return [
        {name: values[place] if len(values) > 1 else values[0] for name, values in given.items()}
        for place in range(count)
    ]


def go_through_hosts(engine: Engine) -> Engine:
    """Makes an engine connect in this way; returns the engine."""
    hosts = Hosts()

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, _arguments: Any, named: Mapping[str, Any]) -> Any:
        return hosts.connect(named)

    return engine
