"""What batches are asked for: a new one with the jobs that tell of it, and jobs that are to be members. Judged, and not stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from uuid_utils.compat import uuid7

from webapp.batches import events, members
from webapp.batches.errors import BatchFieldRefused
from webapp.batches.model import OPEN_FOR, Event, Member
from webapp.jobs.errors import OptionRefused, OutOfReach, PayloadRefused
from webapp.jobs.submission import Origin, Rules, Submission
from webapp.jobs.unseen import check_reached


class Items(NamedTuple):
    """Jobs that are to be members.

    Args:
        submissions: those that could be read.
        answers_of: what all of them are answered, in the words of who asks, by what became of these.
        fingerprint: the digest of all of them, as they were given.
    """

    submissions: Sequence[Submission]
    answers_of: Callable[[Sequence[object]], members.Answers]
    fingerprint: bytes = b""


class Added(NamedTuple):
    """What a part was answered.

    Args:
        is_new: it was added now.
    """

    answers: members.Answers
    is_new: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A batch that is to be made.

    Args:
        events: the jobs that tell of it.
        open_for: seconds that it takes members.
        close: it takes no more than come with it.
        parent: the batch that it is a member of; `member`: of that, which adds it from inside.
        idempotency_key, fingerprint: of the request; the same key makes one batch.
    """

    name: str | None = None
    events: Mapping[Event, Submission] = field(default_factory=dict)
    callback_url: str | None = None
    open_for: float = OPEN_FOR
    close: bool = False
    parent: UUID | None = None
    member: Member | None = None
    idempotency_key: str | None = None
    fingerprint: bytes = b""


def options_of(wanted: Wanted, rules: Rules, origin: Origin) -> dict[str, object]:
    """What is kept of the events' jobs, which are judged as if they were submitted now.

    Args:
        rules: what may be submitted.
        origin: who asks.

    Raises:
        BatchFieldRefused: one could not be submitted; the field begins with its option.
    """
    return {
        event.option: _document(event, asked, wanted.name, rules, origin)
        for event, asked in wanted.events.items()
    }


def _document(
    event: Event, asked: Submission, name: str | None, rules: Rules, origin: Origin
) -> dict[str, object]:
    if events.KEY in asked.payload:
        rule = f"must have no {events.KEY!r}: the batch itself is put there"
        raise BatchFieldRefused(f"{event.option}.payload", rule, asked.payload[events.KEY])
    example = asked.payload | {events.KEY: events.sample(name, event)}
    try:
        check_reached(asked.options.queue, origin.reach)
        job = rules.complete(replace(asked, payload=example), uuid7(), origin, datetime.now(UTC))
        check_reached(job.queue, origin.reach)
    except OptionRefused as refused:
        raise BatchFieldRefused(f"{event.option}.{refused.field}", refused.rule, refused.given) from None
    except OutOfReach as refused:
        raise BatchFieldRefused(f"{event.option}.queue", str(refused), refused.given) from None
    except PayloadRefused as refused:
        rule = f"must fit its handler, with {events.KEY!r} as it will be: {refused}"
        raise BatchFieldRefused(f"{event.option}.payload", rule, "a payload") from None
    return events.document_of(job, asked.payload)
