"""The command line, in Flask's own convention: `flask --app wsgi jobs|dlq|batches|workflows|schedules|queues|tasks|workers|access|audit ...`.

Tables for people, `--json` for programs. Exit codes: 0 done, 1 refused or not as hoped, 2 wrong usage, 4 no such job,
5 a server is away, 124 waited too long.
"""

from __future__ import annotations

from flask import Flask

from webapp.cli import (
    access,
    audit,
    batches,
    dlq,
    examples,
    flow,
    follow,
    jobs,
    limits,
    schedule_files,
    schedules,
    submit,
    tenants,
    workers,
    workflows,
)

#: Ours; `db` is Flask-Migrate's.
GROUPS = (
    jobs.group,
    dlq.group,
    batches.group,
    schedules.group,
    workflows.group,
    flow.queues,
    flow.tasks,
    workers.group,
    access.group,
    audit.group,
)

for command in (submit.submit, follow.wait, follow.tail, follow.watch):
    jobs.group.command()(command)
for command in (limits.set_queue, limits.list_keys, limits.set_key, limits.apply):
    flow.queues.add_command(command)
flow.tasks.add_command(limits.set_task)
access.group.add_command(tenants.group)
for command in (schedule_files.apply, schedule_files.delete):
    schedules.group.add_command(command)
examples.show_in(GROUPS)


def init_app(app: Flask) -> None:
    """Adds the commands to `flask`."""
    for group in GROUPS:
        app.cli.add_command(group)
