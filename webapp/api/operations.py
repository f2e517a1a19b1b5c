"""What each operation of the API is called, and the order in which they are shown: client generators take both from here."""

from __future__ import annotations

from typing import NamedTuple

JOBS, BATCHES, LETTERS, OPERATIONS = "Jobs", "Batches", "Dead letters", "Operations"

#: The groups of operations, in their order, and what each is for.
TAGS = {
    JOBS: "Submit a job, follow it, control it.",
    BATCHES: "Submit many jobs in one request.",
    LETTERS: "Jobs that failed for good: look at them, queue them again, put them aside.",
    OPERATIONS: "Whether DJPS is well, its metrics, and what it says of itself.",
}

INTRODUCTION = """\
DJPS is a background job platform: a program posts a job, DJPS keeps it in PostgreSQL, runs it on a worker, and retries it until it
completes or is a dead letter. An accepted job is never lost and never finishes twice.

**First call.** `POST /jobs` with `{"payload": {"task": "sleep", "seconds": 2}}` answers with a job and its `id`;
`GET /jobs/{id}?wait=30` answers as soon as the job is final, `GET /jobs/{id}/events` tells of every change.

**Send it again without fear.** With an `idempotency_key`, or the header `Idempotency-Key`, the same request is one job, however often it is
sent: 201 the first time, 200 afterwards. So a request whose answer was lost is sent again.

**Errors** are problem documents (RFC 9457, `application/problem+json`): `detail` names the field, the rule and what was given, `request_id`
finds the request in the logs. After 429 or 503 wait as long as `Retry-After` says, where it is there, and send the request again.

**Limits.** Submissions are limited for each client address (`RATE_LIMIT`, 10 a minute by default).
"""


class Operation(NamedTuple):
    """The name of an operation, a verb and what it is done to, and its group."""

    id: str
    tag: str


#: By Flask's endpoint.
KNOWN = {
    "jobs.submit": Operation("submitJob", JOBS),
    "jobs.index": Operation("listJobs", JOBS),
    "following.show": Operation("getJob", JOBS),
    "following.events": Operation("streamJobEvents", JOBS),
    "steering.attempts": Operation("listJobAttempts", JOBS),
    "steering.explain": Operation("explainJob", JOBS),
    "steering.cancel": Operation("cancelJob", JOBS),
    "steering.retry": Operation("retryJob", JOBS),
    "batch.submit_many": Operation("submitJobs", BATCHES),
    "dlq.index": Operation("listDeadJobs", LETTERS),
    "dlq.groups": Operation("groupDeadLetters", LETTERS),
    "dlq.letters": Operation("listDeadLetters", LETTERS),
    "dlq.requeue_many": Operation("requeueDeadLetters", LETTERS),
    "dlq.discard_many": Operation("discardDeadLetters", LETTERS),
    "dlq.requeue_one": Operation("requeueDeadLetter", LETTERS),
    "dlq.discard_one": Operation("discardDeadLetter", LETTERS),
    "health.alive": Operation("checkLiveness", OPERATIONS),
    "health.ready": Operation("checkReadiness", OPERATIONS),
    "metrics.exposition": Operation("getMetrics", OPERATIONS),
    "index.index": Operation("getIndex", OPERATIONS),
    "openapi.openapi": Operation("getDescription", OPERATIONS),
}


def place_of(endpoint: str) -> int:
    """Where an endpoint stands in the order.

    Raises:
        ValueError: it has no name.
    """
    return list(KNOWN).index(endpoint)
