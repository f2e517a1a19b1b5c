"""What `/openapi.json` is opened with, and what each operation is called: introduction, tags, order and operation ids.

A client generator makes a method of each operation id and a class of each tag, so these names are part of the interface.
"""

from __future__ import annotations

from typing import NamedTuple

JOBS, BATCHES, DEAD_LETTERS = "Jobs", "Batches", "Dead letters"
WORKFLOWS = "Workflows"
SCHEDULES, FLOW, ACCESS, OPERATIONS = "Schedules", "Flow control", "Access", "Operations"

#: The tags in their order, each with its description.
TAGS = {
    JOBS: "Submit a job, follow it, and control it.",
    BATCHES: "Submit many jobs in one request and one transaction; or count jobs together, however many, and be told when they have ended.",
    WORKFLOWS: "Jobs that wait for each other: submit them together, follow them, and begin again from what failed.",
    DEAD_LETTERS: "Jobs that failed for good: look at them, group them by error, queue them again or put them aside.",
    SCHEDULES: "Jobs that DJPS submits by itself, by cron or every so many seconds: make, steer and look at them.",
    FLOW: "Queues and tasks: how much waits, pause and resume them, see who did.",
    ACCESS: "Keys: who the caller is and what they may do; make, rotate and revoke keys; and the record of what was done.",
    OPERATIONS: "For those who run DJPS: an overview, series, workers, settings, servers, health, metrics, and this description.",
}

SUMMARY = "A background job platform: an accepted job is never lost and never finishes twice."
INTRODUCTION = """\
DJPS is a background job platform. You send a job by HTTP; DJPS keeps it in PostgreSQL, runs it on workers, retries it with
exponential backoff, and keeps what cannot be done in a dead letter queue.

## First call

```
curl http://127.0.0.1:8000/jobs -H 'Content-Type: application/json' -d '{"payload": {"task": "noop"}}'
```

The answer is 201 with the job and its `id`. `GET /jobs/{job_id}?wait=30` answers as soon as the job is final. `payload.task`
names the handler that runs it.

## Idempotency

Send an `Idempotency-Key` header, or `idempotency_key` in the body, and the same request may be sent again: it is answered 200 with
the same job and `Idempotency-Replayed: true`. The same key with another request is refused with 422. A key lives
`IDEMPOTENCY_TTL` seconds (24 hours unless set otherwise). After a 503 or a broken connection, send the request again with its key.

## Errors

An error is a problem document (`application/problem+json`, RFC 9457) with `type`, `title`, `status`, `detail` and
`request_id`. Where fields broke rules, `errors` names each `field`, its `rule` and what was `given`. 503 means that nothing can be
stored just now; `Retry-After` says when to come back.

## Rate limits

Submissions are limited by key, and without one by client address (`RATE_LIMIT`); a batch counts as one. Beyond the limit the answer is 429 with
`Retry-After`. Other calls have no such limit, but for keys that are not good.

## Keys

Where keys are asked for (`API_AUTH`), send yours as `Authorization: Bearer djps_k_...`; nothing is taken from a query. Each operation names in
`security` the scope that it needs. Without a good key the answer is 401, without the scope 403, and `missing_scope` names it; after 20 keys
that are not good within a minute, 429. Without `jobs:content`
a job is shown without its payload, result and error words: they are null, and `redacted` is true.

## Links

[Where everything is](/) · [this description](/openapi.json) · [as a page](/docs/) · [can it take jobs](/health/ready) ·
[metrics](/metrics)
"""


class Name(NamedTuple):
    """What an operation is called: a verb and what it is done to, in camel case; and one of `TAGS`."""

    operation_id: str
    tag: str


#: The operations by their view's endpoint, in the order of the document, which is that of the README.
NAMES = {
    "jobs.submit": Name("submitJob", JOBS),
    "batch.submit_many": Name("submitJobs", BATCHES),
    "jobs.index": Name("listJobs", JOBS),
    "following.show": Name("getJob", JOBS),
    "following.events": Name("watchJob", JOBS),
    "control.attempts": Name("listAttempts", JOBS),
    "job_logs.logs": Name("getJobLog", JOBS),
    "control.explain": Name("explainJob", JOBS),
    "control.cancel": Name("cancelJob", JOBS),
    "control.retry": Name("retryJob", JOBS),
    "batches.index": Name("listBatches", BATCHES),
    "batches.create": Name("createBatch", BATCHES),
    "batch_following.show": Name("getBatch", BATCHES),
    "batch_following.events": Name("watchBatch", BATCHES),
    "batches.members": Name("listBatchJobs", BATCHES),
    "batches.add": Name("submitBatchJobs", BATCHES),
    "batches.close": Name("closeBatch", BATCHES),
    "batches.cancel": Name("cancelBatch", BATCHES),
    "batches.retry": Name("retryBatch", BATCHES),
    "batches.explain": Name("explainBatch", BATCHES),
    "workflows.submit": Name("submitWorkflow", WORKFLOWS),
    "workflows.index": Name("listWorkflows", WORKFLOWS),
    "workflows.one": Name("getWorkflow", WORKFLOWS),
    "workflows.events": Name("watchWorkflow", WORKFLOWS),
    "workflows.graph": Name("getWorkflowGraph", WORKFLOWS),
    "workflows.explain": Name("explainWorkflow", WORKFLOWS),
    "workflows.steps": Name("listWorkflowSteps", WORKFLOWS),
    "workflows.step": Name("getWorkflowStep", WORKFLOWS),
    "workflows.cancel": Name("cancelWorkflow", WORKFLOWS),
    "workflows.retry": Name("retryWorkflow", WORKFLOWS),
    "dlq.index": Name("listDeadLetters", DEAD_LETTERS),
    "dlq.groups": Name("groupDeadLetters", DEAD_LETTERS),
    "dlq.history": Name("getDeadLetterHistory", DEAD_LETTERS),
    "dlq.letters": Name("listDeadLetterRecords", DEAD_LETTERS),
    "dlq.requeue_many": Name("requeueDeadLetters", DEAD_LETTERS),
    "dlq.discard_many": Name("discardDeadLetters", DEAD_LETTERS),
    "dlq.requeue_one": Name("requeueDeadLetter", DEAD_LETTERS),
    "dlq.discard_one": Name("discardDeadLetter", DEAD_LETTERS),
    "schedules.index": Name("listSchedules", SCHEDULES),
    "schedules.one": Name("getSchedule", SCHEDULES),
    "schedules.put": Name("setSchedule", SCHEDULES),
    "schedules.delete": Name("deleteSchedule", SCHEDULES),
    "schedules.pause": Name("pauseSchedule", SCHEDULES),
    "schedules.resume": Name("resumeSchedule", SCHEDULES),
    "schedules.run": Name("runSchedule", SCHEDULES),
    "schedules.backfill": Name("backfillSchedule", SCHEDULES),
    "schedules.firings": Name("listFirings", SCHEDULES),
    "schedules.versions": Name("listScheduleVersions", SCHEDULES),
    "schedules.next_times": Name("listScheduleTimes", SCHEDULES),
    "schedules.explain": Name("explainSchedule", SCHEDULES),
    "schedules.preview": Name("previewSchedule", SCHEDULES),
    "flow.queues": Name("listQueues", FLOW),
    "flow.queue": Name("getQueue", FLOW),
    "flow.limit_queue": Name("setQueueLimits", FLOW),
    "flow.unlimit_queue": Name("deleteQueueLimits", FLOW),
    "flow.pause_queue": Name("pauseQueue", FLOW),
    "flow.resume_queue": Name("resumeQueue", FLOW),
    "queue_keys.page": Name("listQueueKeys", FLOW),
    "queue_keys.one": Name("getQueueKey", FLOW),
    "queue_keys.put": Name("setQueueKey", FLOW),
    "queue_keys.forget": Name("deleteQueueKey", FLOW),
    "flow.tasks": Name("listTasks", FLOW),
    "flow.task": Name("getTask", FLOW),
    "flow.limit_task": Name("setTaskLimits", FLOW),
    "flow.unlimit_task": Name("deleteTaskLimits", FLOW),
    "flow.pause_task": Name("pauseTask", FLOW),
    "flow.resume_task": Name("resumeTask", FLOW),
    "flow.changes": Name("listFlowChanges", FLOW),
    "access.me": Name("getCaller", ACCESS),
    "access.index": Name("listAccessKeys", ACCESS),
    "access.create": Name("createAccessKey", ACCESS),
    "access.one": Name("getAccessKey", ACCESS),
    "access.set_quotas": Name("setAccessKeyQuotas", ACCESS),
    "access.rotate": Name("rotateAccessKey", ACCESS),
    "access.revoke": Name("revokeAccessKey", ACCESS),
    "audit.index": Name("listAuditEvents", ACCESS),
    "figures.overview": Name("getOverview", OPERATIONS),
    "figures.series": Name("getSeries", OPERATIONS),
    "system.index": Name("listWorkers", OPERATIONS),
    "system.one": Name("getWorker", OPERATIONS),
    "system.settings": Name("listSettings", OPERATIONS),
    "system.system": Name("getSystem", OPERATIONS),
    "health.alive": Name("checkHealth", OPERATIONS),
    "health.ready": Name("checkReadiness", OPERATIONS),
    "metrics.exposition": Name("getMetrics", OPERATIONS),
    "index.index": Name("getIndex", OPERATIONS),
    "openapi.openapi": Name("getDescription", OPERATIONS),
}
