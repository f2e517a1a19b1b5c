"""The dashboard to open first: is the service well, and if not, which part?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builder

from ops.grafana.panels import FULL, Line, board, figure, graph, quantiles

# A share of nothing is no number, and is left out: a quiet system has no red figures.
_STARTS = 'sum(rate(job_wait_seconds_bucket{le="5.0"}[$__range])) / (sum(rate(job_wait_seconds_count[$__range])) > 0)'


def overview() -> builder.Dashboard:
    """Builds it."""
    return board(
        "djps-overview",
        "DJPS overview",
        "What comes in, what becomes of it, how long it waits and runs, and whether every part is there.",
        [
            ("The four counters", _counters()),
            ("Objectives", _objectives()),
            ("Jobs", _jobs()),
            ("Schedules", _schedules()),
            ("Batches", _batches()),
            ("HTTP", _http()),
            ("Parts", _parts()),
        ],
    )


def _counters() -> list[object]:
    named = {
        "Created": ("jobs_created_total", "Jobs accepted and stored, in the time shown."),
        "Completed": ("jobs_completed_total", "Jobs that completed, in the time shown."),
        "Failed": ("jobs_failed_total", "Jobs that went to the dead letter queue, in the time shown."),
        "Retried": ("jobs_retried_total", "Attempts that failed and got another try, in the time shown."),
    }
    counters = [
        figure(
            title,
            "short",
            says,
            Line(f"sum(increase({name}[$__range]))", title),
            bad_above=0.5 if title == "Failed" else None,
            whole=True,
        )
        for title, (name, says) in named.items()
    ]
    ended = "(sum(increase(jobs_completed_total[$__range])) + sum(increase(jobs_failed_total[$__range])))"
    success = Line(f"sum(increase(jobs_completed_total[$__range])) / ({ended} > 0)", "success rate")
    return [
        *counters,
        figure(
            "Success rate",
            "percentunit",
            "Share of the jobs that ended in the time shown that completed.",
            success,
            bad_below=0.99,
        ),
        figure(
            "Waiting and running",
            "short",
            "Jobs that have not ended, now.",
            Line("sum(max by (queue, status) (job_queue_depth))", "jobs"),
        ),
    ]


def _objectives() -> list[object]:
    return [
        figure(
            "Started within 5 s",
            "percentunit",
            "Objective: 99 % of due jobs start within 5 s of being due.",
            Line(_STARTS, "in time"),
            width=6,
            bad_below=0.99,
        ),
        figure(
            "Submissions without 5xx",
            "percentunit",
            "Objective: 99.9 % of submissions are answered without a server error.",
            Line("1 - (djps:submissions_failed:ratio_rate1h >= 0)", "answered"),
            width=6,
            bad_below=0.999,
        ),
        graph(
            "Share that missed its objective",
            "percentunit",
            "Late starts burn fast above 14.4 %, failed submissions above 1.44 %: then an alert fires.",
            [
                Line(f"djps:{name}:ratio_rate{window}", f"{words}, {window}")
                for name, words in (
                    ("job_starts_late", "late starts"),
                    ("submissions_failed", "failed submissions"),
                )
                for window in ("5m", "30m", "1h", "6h", "3d")
            ],
        ),
    ]


def _jobs() -> list[object]:
    return [
        graph(
            "Throughput",
            "ops",
            "In a steady state what is completed follows what is created.",
            [
                Line("sum(rate(jobs_created_total[$__rate_interval]))", "created"),
                Line("sum(rate(jobs_completed_total[$__rate_interval]))", "completed"),
                Line("sum(rate(jobs_retried_total[$__rate_interval]))", "retried"),
                Line("sum(rate(jobs_failed_total[$__rate_interval]))", "failed"),
            ],
            width=8,
        ),
        graph(
            "Other ends, and ways back",
            "ops",
            "Cancelled, expired and requeued jobs; attempts that came back without a retry; callbacks among the created.",
            [
                Line(f"sum(rate({name}_total[$__rate_interval]))", words)
                for name, words in (
                    ("jobs_cancelled", "cancelled"),
                    ("jobs_expired", "expired"),
                    ("jobs_requeued", "requeued"),
                    ("jobs_snoozed", "snoozed"),
                    ("jobs_released", "released"),
                    ("job_callbacks_created", "callbacks created"),
                )
            ],
            width=8,
        ),
        graph(
            "Depth of the queues",
            "short",
            "Unfinished jobs by queue. Growing: more comes than runs.",
            [
                Line("max by (queue, status) (job_queue_depth)", "{{queue}}, {{status}}"),
                Line("max by (queue) (job_due)", "{{queue}}, due"),
            ],
            width=8,
        ),
        graph("Wait", "s", "From due to started, all tasks.", quantiles("job_wait_seconds"), width=8),
        graph("Run", "s", "How long attempts ran, all tasks.", quantiles("job_duration_seconds"), width=8),
        graph(
            "Oldest due job",
            "s",
            "How long the job at the head of each queue has waited; an alert fires at 5 minutes.",
            [Line("max by (queue) (job_oldest_due_age_seconds)", "{{queue}}")],
            width=8,
        ),
        graph(
            "Submissions by outcome",
            "ops",
            "Created, replayed under the same key, or refused and why.",
            [
                Line(
                    "sum by (outcome, reason) (rate(job_submissions_total[$__rate_interval]))",
                    "{{outcome}} {{reason}}",
                )
            ],
            width=8,
        ),
        graph(
            "Refused for a bound",
            "ops",
            "Submissions that were refused since their queue or key is full, or its oldest due job too old.",
            [
                Line(
                    "sum by (queue, reason) (rate(job_submissions_refused_total[$__rate_interval]))",
                    "{{queue}} {{reason}}",
                )
            ],
            width=8,
        ),
        graph(
            "Dead letters",
            "short",
            "Jobs that wait in the dead letter queue for somebody to look at them.",
            [Line("max by (task) (dead_letters_open)", "{{task}}")],
            width=8,
        ),
        graph(
            "Paused",
            "short",
            "Queues and tasks of which nothing starts until they are resumed.",
            [
                Line("max by (queue) (queue_paused) == 1", "queue {{queue}}"),
                Line("max by (task) (task_paused) == 1", "task {{task}}"),
            ],
            width=8,
        ),
        graph(
            "Slots of limits",
            "short",
            "Of queues and tasks with a concurrency limit: how many processes may run their jobs, and how many do.",
            [
                Line("max by (queue, kind) (queue_slots)", "queue {{queue}} {{kind}}"),
                Line("max by (task, kind) (task_slots)", "task {{task}} {{kind}}"),
            ],
            width=8,
        ),
        graph(
            "May start under limits",
            "short",
            "Due jobs of limited queues that their limits let start now; above zero for long while children are idle is a fault.",
            [Line("max by (queue) (queue_startable)", "{{queue}}")],
            width=8,
        ),
        graph(
            "Jobs of tenants",
            "short",
            "Unfinished jobs of tenants beside the default one; zero where there is none.",
            [Line("max by (tenant, status) (djps_tenant_jobs) or vector(0)", "{{tenant}} {{status}}")],
            width=24,
        ),
    ]


def _schedules() -> list[object]:
    return [
        graph(
            "Times of schedules",
            "ops",
            "What became of each: fired, waits for its turn (buffered), was passed over (skipped, missed, paused), or its job was refused.",
            [Line("sum by (outcome) (rate(djps_schedule_firings_total[$__rate_interval]))", "{{outcome}}")],
            width=8,
        ),
        graph(
            "From a schedule's time to its firing",
            "s",
            "Percentiles; what was caught up after an outage is not counted.",
            quantiles("djps_schedule_lag_seconds"),
            width=8,
        ),
        graph(
            "Overdue schedules",
            "short",
            "Due for more than 10 s and not fired: no maintenance worker looks at them, or there are very many.",
            [Line("max(djps_schedules_overdue)", "overdue")],
            width=8,
        ),
        graph(
            "Ends of workflows",
            "ops",
            "How they came out; one that is retried may end again.",
            [Line("sum by (status) (rate(djps_workflows_ended_total[$__rate_interval]))", "{{status}}")],
            width=8,
        ),
        graph(
            "Ends of steps",
            "ops",
            "Of workflows; skipped ones did not run.",
            [Line("sum by (status) (rate(djps_workflow_steps_total[$__rate_interval]))", "{{status}}")],
            width=8,
        ),
        graph(
            "Workflows that are not moved on",
            "short",
            "An end of a step is noted for more than 10 s: no maintenance worker looks at it.",
            [Line("max(djps_workflows_overdue)", "overdue")],
            width=8,
        ),
    ]


def _batches() -> list[object]:
    return [
        graph(
            "Batches",
            "ops",
            "Made, and over: one that goes on after its end, as failed members were queued again, ends anew.",
            [
                Line("sum(rate(djps_batches_created_total[$__rate_interval]))", "made"),
                Line("sum(rate(djps_batches_ended_total[$__rate_interval]))", "over"),
            ],
            width=8,
        ),
        graph(
            "What batches tell",
            "ops",
            "Jobs that were made at the first failure of a batch, at its end, and when all have completed.",
            [Line("sum by (event) (rate(djps_batch_events_total[$__rate_interval]))", "{{event}}")],
            width=8,
        ),
        graph(
            "Ends that are not counted",
            "s",
            "Age of the oldest; above a few seconds no maintenance worker counts, or it does not keep up.",
            [Line("max(djps_group_ends_age_seconds)", "oldest")],
            width=8,
        ),
    ]


def _http() -> list[object]:
    return [
        graph(
            "Requests by route and status",
            "reqps",
            "By the route's template; none: no route matched.",
            [
                Line(
                    "sum by (method, route, status)"
                    " (rate(flask_http_request_duration_seconds_count[$__rate_interval]))",
                    "{{method}} {{route}} {{status}}",
                )
            ],
            width=8,
        ),
        graph(
            "How long POST /jobs takes",
            "s",
            "Percentiles of the answer's time inside the API.",
            quantiles("flask_http_request_duration_seconds", '{method="POST",route="/jobs"}'),
            width=8,
        ),
        graph(
            "Refused for who asks",
            "reqps",
            "Requests without a key that is good, or beyond its scopes; too_many: an address tries keys, and is not looked at for a while.",
            [Line("sum by (reason) (rate(auth_refusals_total[$__rate_interval]))", "{{reason}}")],
            width=8,
        ),
    ]


def _parts() -> list[object]:
    servers = [
        ("Workers", "Workers with a heartbeat.", "max(active_workers)", 1.0),
        ("PostgreSQL", "1: it answers.", "max(database_up)", 1.0),
        ("Redis", "1: it answers.", "max(redis_up)", 1.0),
    ]
    return [
        *(
            figure(title, "short", says, Line(expression, title), width=4, bad_below=below)
            for title, says, expression, below in servers
        ),
        figure(
            "Beat's last tick",
            "s",
            "Beat ticks every second; an hour means never, or not known.",
            Line("min(beat_last_tick_age_seconds)", "age"),
            bad_above=20,
        ),
        figure(
            "Flower's workers",
            "short",
            "Workers whose events Flower hears.",
            Line("sum(flower_worker_online)", "online"),
        ),
        figure(
            "Release",
            "short",
            "Processes of the API that answer, by release and Python.",
            Line("count by (version, python) (djps_build_info)", "{{version}}, Python {{python}}"),
        ),
        graph(
            "Redis: memory",
            "bytes",
            "An alert fires at 70 % of what it may use.",
            [
                Line("max(redis_memory_used_bytes)", "used"),
                Line("max(redis_memory_max_bytes)", "limit"),
            ],
            width=8,
        ),
        graph(
            "PostgreSQL: connections",
            "short",
            "Ours, by kind of process and state, beside what the server takes in all.",
            [
                Line("max by (role, state) (database_connections)", "{{role}} {{state}}"),
                Line("max(database_connections_max)", "limit"),
            ],
            width=8,
        ),
        graph(
            "PostgreSQL: lists and the read replica",
            "ops",
            "Lists by the server that was read, and why not the replica; whether it may be read, and how far behind it is in seconds.",
            [
                Line(
                    "sum by (server, reason) (rate(database_list_reads_total[$__rate_interval]))",
                    "{{server}} {{reason}}",
                ),
                Line("min(read_replica_usable)", "replica may be read"),
                Line("max(read_replica_lag_seconds)", "seconds behind"),
            ],
            width=8,
        ),
        graph(
            "PostgreSQL: refusals",
            "ops",
            "Requests answered 503 by reason; and whether the gauges read from it are estimates, or an earlier scrape's.",
            [
                Line("sum by (reason) (rate(database_refusals_total[$__rate_interval]))", "{{reason}}"),
                Line("max(job_counts_estimated)", "counts are estimates"),
                Line("max(database_gauges_kept)", "gauges are an earlier scrape's"),
            ],
            width=FULL // 3,
        ),
    ]
