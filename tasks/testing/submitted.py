"""What a handler submits in a test: held to the rules of a submission, and stored nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from webapp.batches.requests import Added, Items
from webapp.flow.reach import EVERYTHING
from webapp.jobs.children import key_of
from webapp.jobs.errors import JobError, KeyReused, UnknownQueue, UnknownTask
from webapp.jobs.handlers import registry
from webapp.jobs.options import Options
from webapp.jobs.submission import Limits, Origin, Placed, Rules, Submission, fingerprint
from webapp.settings.jobs import JobSettings


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that the handler submitted with `context.submit` or `context.submit_many`.

    Args:
        id: its id.
        payload: as its handler would get it.
        options: what else was asked of it.
        name: what the handler called it; None: it has no name.
        request: what it is known by, should it be asked for again.
    """

    id: UUID
    payload: dict[str, Any]
    options: Options
    name: str | None
    request: Submission


class SubmittedJobs:
    """Takes what a handler submits.

    Args:
        parent: the job that submits.
        before: what earlier attempts of it have submitted.
        batch: the batch that it is a member of.
    """

    def __init__(self, parent: UUID, before: Iterable[Submitted] = (), batch: UUID | None = None) -> None:
        self.batch = batch
        self._parent = parent
        fields = JobSettings.model_fields
        self.largest: int = fields["max_payload_bytes"].default
        limits = Limits(
            fields["max_job_retries"].default,
            fields["job_timeout"].default,
            fields["default_handler"].default,
        )
        self._rules = Rules(registry, limits)
        self._names = key_of(parent, "")
        self._known = {one.request.idempotency_key: one for one in before}
        #: What was submitted, in order.
        self.made: list[Submitted] = []

    def take(self, submission: Submission) -> Placed:
        """Keeps a job.

        Raises:
            JobError: it would be refused.
        """
        key = submission.idempotency_key
        if (known := self._known.get(key)) is not None:
            if fingerprint(known.request) != fingerprint(submission):
                raise KeyReused(str(key), known.id)
            return Placed(known.id, created=False)
        origin, new_id = Origin(None, None, EVERYTHING, None), uuid7()
        # Its handler and its queue may be of a module that this test does not load.
        with suppress(UnknownTask, UnknownQueue):
            self._rules.complete(submission, new_id, origin, datetime.now(UTC))
        name = key.removeprefix(self._names) if key is not None and key.startswith(self._names) else None
        made = Submitted(new_id, submission.payload, submission.options, name, submission)
        self._known[key] = made
        self.made.append(made)
        return Placed(made.id, created=True)

    def take_many(self, submissions: Sequence[Submission]) -> list[Placed | JobError]:
        """Keeps those that would not be refused."""
        answers: list[Placed | JobError] = []
        for one in submissions:
            try:
                answers.append(self.take(one))
            except JobError as error:
                answers.append(error)
        return answers

    def add(self, part: str, items: Items) -> Added:
        """Keeps jobs that are added to the batch: each is known by the part and its place."""
        keyed = [
            one
            if one.idempotency_key is not None
            else replace(one, idempotency_key=key_of(self._parent, f"{part}.{number}"))
            for number, one in enumerate(items.submissions)
        ]
        return Added(items.answers_of(self.take_many(keyed)), is_new=True)
