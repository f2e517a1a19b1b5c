"""Puts beat together: what `python -m tasks beat` starts, with neither database nor handlers.

Beat asks for the sweeps by name and looks how many of its messages wait; that takes the schedule and Redis. Whether the handlers
can be imported and what DATABASE_URL says is told by the processes that need them: API and workers do not start without.
"""

from __future__ import annotations

import logging
from typing import Any

from webapp.infra import broker  # noqa: F401 - first: it spares what Celery would load
from webapp.settings import SettingsWithoutDatabase, current, local, reaching_stack, use
from webapp.startup import one_sentence

# What is imported next reads the settings as well.
with one_sentence():
    use(reaching_stack(SettingsWithoutDatabase.load()))

from celery import signals
from celery.apps.beat import Beat

from webapp.infra import prefork
from webapp.infra.broker.client import bind_celery, celery
from webapp.infra.telemetry import logs
from webapp.settings.sweeps import MAINTENANCE_QUEUE

logger = logging.getLogger(__name__)


@signals.setup_logging.connect
def _keep_logging(**_: Any) -> None:
    """Celery leaves logging alone when somebody listens to this signal."""
    logs.configure(current().log_level)


@signals.beat_init.connect
def _announce_beat(**_: Any) -> None:
    """Beat's own lines tell of every tick; this is the one that matters."""
    # Beat has no children, but what it loaded would be searched for garbage while it ticks: 80 ms of a core that jobs need.
    prefork.share_memory()
    logger.info("beat started")


def run() -> int:
    """Runs beat until it is told to end; returns its exit code."""
    local.go_around_proxies()
    logs.configure(current().log_level)
    bind_celery((MAINTENANCE_QUEUE,))
    Beat(app=celery, quiet=True).run()
    return 0
