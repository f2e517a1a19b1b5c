"""One task in depth, with its dead letters."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import dashboard as model

from ops.grafana.panels import SOURCE, Line, board, figure, graph, quantiles

_OF_TASK = '{task="$task"}'


def task() -> builder.Dashboard:
    """Builds it."""
    made = board(
        "djps-task",
        "DJPS task",
        "One task: how often it starts, waits, runs, is retried, and what of it is dead.",
        [("$task now", _figures()), ("$task over time", _graphs())],
    )
    return made.with_variable(
        builder.QueryVariable("task")
        .label("Task")
        .description("The handler's name.")
        .datasource(SOURCE)
        .query("label_values(dead_letters_open, task)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _figures() -> list[object]:
    started = f"sum(increase(job_wait_seconds_count{_OF_TASK}[$__range]))"
    retried = f"(sum(increase(job_retries_total{_OF_TASK}[$__range])) or vector(0))"
    dead = f"(sum(increase(job_burials_total{_OF_TASK}[$__range])) or vector(0))"
    return [
        figure(
            "Started",
            "short",
            "Attempts that began, in the time shown.",
            Line(started, "attempts"),
            whole=True,
        ),
        figure(
            "Failed attempts",
            "percentunit",
            "Share of attempts that failed and were tried again.",
            Line(f"{retried} / ({started} > 0)", "retried"),
            bad_above=0.5,
        ),
        figure(
            "Went to the dead letters",
            "short",
            "Jobs, in the time shown.",
            Line(dead, "jobs"),
            bad_above=0.5,
            whole=True,
        ),
        figure(
            "In the dead letter queue",
            "short",
            "Jobs that wait for somebody to look at them: GET /dlq.",
            Line(f"max(dead_letters_open{_OF_TASK})", "jobs"),
            bad_above=1,
        ),
        figure(
            "Mean run",
            "s",
            "Mean time of an attempt, in the time shown.",
            Line(
                f"sum(increase(job_duration_seconds_sum{_OF_TASK}[$__range]))"
                f" / (sum(increase(job_duration_seconds_count{_OF_TASK}[$__range])) > 0)",
                "mean",
            ),
        ),
        figure(
            "Started within 5 s",
            "percentunit",
            "Share of attempts that began within 5 s of being due.",
            Line(
                f'sum(increase(job_wait_seconds_bucket{{task="$task",le="5.0"}}[$__range])) / ({started} > 0)',
                "in time",
            ),
            bad_below=0.99,
        ),
    ]


def _graphs() -> list[object]:
    return [
        graph(
            "Attempts by queue",
            "ops",
            "How often the task starts.",
            [Line(f"sum by (queue) (rate(job_wait_seconds_count{_OF_TASK}[$__rate_interval]))", "{{queue}}")],
        ),
        graph(
            "Retries and dead letters",
            "ops",
            "Failed attempts that got another try, and jobs given up, by why.",
            [
                Line(f"sum(rate(job_retries_total{_OF_TASK}[$__rate_interval])) or vector(0)", "retried"),
                Line(
                    f"sum by (reason) (rate(job_burials_total{_OF_TASK}[$__rate_interval])) or vector(0)",
                    "dead letter: {{reason}}",
                ),
            ],
        ),
        graph("Wait", "s", "From due to started.", quantiles("job_wait_seconds", _OF_TASK)),
        graph("Run", "s", "How long attempts ran.", quantiles("job_duration_seconds", _OF_TASK)),
        graph(
            "Dead letters",
            "short",
            "Jobs of the task in the dead letter queue.",
            [Line(f"max(dead_letters_open{_OF_TASK})", "jobs")],
            width=24,
        ),
    ]
