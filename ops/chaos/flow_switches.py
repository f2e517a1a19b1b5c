"""Switches of flow control: mutants of what goes by pauses and limits outside the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _heedless() -> None:
    """The rules in force are read once and never again."""
    from webapp.flow import book

    book.LONGEST_AGE = book.LONGEST_AGE_CLOSED = 3_600.0
    book.FlowBook.forget = lambda _self: None


def _forgotten() -> None:
    """Messages of what is paused are dropped, and their jobs still count as sent."""
    from webapp.queues import store as queue_store

    queue_store.give_back_paused = lambda *_args: 0


def _in_the_way() -> None:
    """Jobs of a paused task stay at the head of their queue."""
    from webapp.queues import aside

    aside.set_aside = lambda *_args, **_more: 0


def _no_hand_over() -> None:
    """A process ends its jobs, and comes for the next one later."""
    from webapp.jobs.ends import complete_many
    from webapp.queues import tickets

    real = tickets.end_and_claim

    def end_and_claim(connection: Any, done: Any, *more: Any, in_lanes: bool = False) -> Any:
        if in_lanes:
            return complete_many(connection, done), []
        return real(connection, done, *more)

    tickets.end_and_claim = end_and_claim


MUTANTS: dict[str, Callable[[], None]] = {
    "heedless": _heedless,
    "forgotten": _forgotten,
    "in-the-way": _in_the_way,
    "no-hand-over": _no_hand_over,
}
