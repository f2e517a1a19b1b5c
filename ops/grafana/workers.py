"""Who runs jobs, how busy they are, and what goes wrong between them and their servers."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builder

from ops.grafana.panels import Line, board, graph


def workers() -> builder.Dashboard:
    """Builds it."""
    return board(
        "djps-workers",
        "DJPS workers",
        "Who is there, what they do, how jobs reach them, and what was taken back from those that died.",
        [("Workers", _present()), ("How jobs reach them", _messages()), ("Trouble", _trouble())],
    )


def _present() -> list[object]:
    return [
        graph(
            "Live workers by queue",
            "short",
            "A queue at 0 has no worker; an alert fires when it has due jobs, or when no queue has any.",
            [Line("max by (queue) (queue_workers)", "{{queue}}")],
        ),
        graph(
            "Workers",
            "short",
            "1 while a worker's heartbeat lives; one that is gone has no line.",
            [Line("max by (worker) (worker_up)", "{{worker}}")],
        ),
        graph(
            "Busy processes",
            "percentunit",
            "Share of a worker's processes that run a job. Near 100 % for long: add workers.",
            [
                Line(
                    "max by (worker) (worker_busy_children)"
                    " / clamp_min(max by (worker) (worker_children), 1)",
                    "{{worker}}",
                )
            ],
        ),
        graph(
            "Since the last claim",
            "s",
            "How long a worker has taken no message. Growing while jobs wait: it is deaf.",
            [Line("max by (worker) (worker_last_claim_age_seconds)", "{{worker}}")],
        ),
    ]


def _messages() -> list[object]:
    return [
        graph(
            "Hints sent",
            "ops",
            "submitted: by the API; due: by the dispatcher; unclaimed: sent again; ticket: for a backlog.",
            [Line("sum by (reason) (rate(jobs_dispatched_total[$__rate_interval]))", "{{reason}}")],
        ),
        graph(
            "Messages in Redis",
            "short",
            "What waits in Redis, a short buffer; the backlog is in PostgreSQL.",
            [Line("max by (queue) (broker_messages)", "{{queue}}")],
        ),
        graph(
            "Messages whose job was not there",
            "ops",
            "Duplicates and stale messages, refused by the claim: no harm, but each costs a question.",
            [Line("sum(rate(job_claims_refused_total[$__rate_interval]))", "refused")],
        ),
        graph(
            "Hints that could not be sent",
            "ops",
            "Redis was away or full; the dispatcher sends them later.",
            [Line("sum(rate(job_dispatch_failures_total[$__rate_interval]))", "failed")],
        ),
    ]


def _trouble() -> list[object]:
    return [
        graph(
            "Jobs recovered",
            "ops",
            "child_died: its process died; worker_died: its worker did; lease_expired: its worker was not heard of for a lease.",
            [Line("sum by (reason) (rate(jobs_recovered_total[$__rate_interval]))", "{{reason}}")],
        ),
        graph(
            "Leases lost",
            "short",
            "Results that were dropped, in the last 10 minutes: the worker had been away for longer than its lease.",
            [Line("sum(increase(job_leases_lost_total[10m]))", "lost")],
        ),
        graph(
            "Sweeps that failed",
            "ops",
            "What beat asks for, and what processes do beside their work; each is tried again.",
            [
                Line(
                    'sum by (sweep) (rate(sweep_runs_total{outcome="failed"}[$__rate_interval]))', "{{sweep}}"
                ),
                Line(
                    "sum by (part, step) (rate(background_failures_total[$__rate_interval]))",
                    "{{part}}: {{step}}",
                ),
                Line(
                    "sum(rate(job_log_lines_dropped_total[$__rate_interval]))",
                    "lines of jobs that were not kept",
                ),
            ],
        ),
        graph(
            "How long sweeps take",
            "s",
            "The 95th percentile of a run; dispatch_due goes on for most of a second on purpose.",
            [
                Line(
                    "histogram_quantile(0.95, sum by (le, sweep) (rate(sweep_seconds_bucket[$__rate_interval])))",
                    "{{sweep}}",
                )
            ],
        ),
    ]
