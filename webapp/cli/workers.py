"""`flask --app wsgi workers`: who is alive."""

from __future__ import annotations

from dataclasses import asdict

from flask import current_app
from flask.cli import AppGroup

from webapp.cli.console import json_option, show_json, show_table, with_plain_errors
from webapp.infra.broker import heartbeats

group = AppGroup("workers", help="The workers that are alive.")


@group.command("list")
@json_option
@with_plain_errors
def list_workers(*, as_json: bool) -> None:
    """Workers whose heartbeat has not run out."""
    _, redis = current_app.extensions["health"]
    found = [asdict(worker) for worker in heartbeats.workers(redis)]
    if as_json:
        show_json({"items": found})
        return
    show_table(found, ("name", "role", "queues", "children", "running"), nothing="no live workers")
