"""Jobs: what DJPS exists for. No HTTP and no Celery in here.

A job is a row. It is `queued` until a worker claims it, `processing` under a lease while its handler runs,
and final once it is `completed`, `failed` (in the dead letter queue) or `cancelled`:

             submit                claim               settle
  (none) ----------------> queued ---------> processing ------> completed
                             ^  ^               |  |  |
        retry: run_at later  |  +---------------+  |  +-- exhausted or Discard --> failed (dead letter)
        lease lost: at once  +---------------------+                                  |
                             ^                                         requeue        |
                             +--------------------------------------------------------+
  cancel: queued -> cancelled at once; processing -> asked to stop, then cancelled

`attempt` counts the claims and only grows. It is the fence: a process may write the end of the attempt it
claimed and of no other, so what comes late changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from webapp.jobs.context import JobContext
from webapp.jobs.errors import Cancelled, Discard, JobError, Retry, Snooze
from webapp.jobs.handlers import handler

if TYPE_CHECKING:
    from webapp.jobs.submission import Placed

__all__ = [
    "Cancelled",
    "Discard",
    "JobContext",
    "JobError",
    "Retry",
    "Snooze",
    "handler",
    "submit",
    "submit_many",
]


def submit(payload: Mapping[str, Any], **options: Any) -> Placed:
    """Submits a job from a program of one's own, by the rules of `POST /jobs`; returns once it is stored.

    The settings of the environment say where (DATABASE_URL, REDIS_URL) and what can run (HANDLERS, QUEUES). In a handler,
    `context.submit` is the better one: it knows the job that submits.

    Args:
        payload: a JSON object; `task` names its handler.
        options: what else a submission says, `idempotency_key` among it; times may be `datetime`, spans of time `timedelta`.

    Returns:
        Its id, and whether it was created now.

    Raises:
        JobError: it was refused; the words name the field, the rule and what was given.
        SettingsError: a variable of the environment breaks its rule.
        sqlalchemy.exc.SQLAlchemyError: the database is away.

    Example:
        >>> submit({"task": "send-mail", "to": "ada@example.org"}, priority=7)  # doctest: +SKIP
        Placed(id=UUID('01a20af4-1c53-716c-9a00-04d2b42b60c5'), created=True, held=False, replaced=False)
    """
    placed: Placed = _program().submit(payload, **options)
    return placed


def submit_many(requests: Sequence[Mapping[str, Any]]) -> list[Placed]:
    """Submits up to 10,000 jobs in one transaction, as `POST /jobs/batch` does.

    Args:
        requests: for each job `payload`, and of the options of `submit` what it needs.

    Returns:
        For each its id, and whether it was created now, in their order.

    Raises:
        JobError: a request breaks a rule, and none was stored.
        SomeRefused: some were refused when the others were stored; its `answers` say which.
    """
    placed: list[Placed] = _program().submit_many(requests)
    return placed


def _program() -> Any:
    """What this program submits with. It is loaded by its name: this room knows nothing of the broker that it tells."""
    return import_module("webapp.program").default()
