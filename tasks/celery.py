"""Puts workers and Flower together: what `python -m tasks worker` and `celery -A tasks` start is composed here."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from webapp.infra import broker  # noqa: F401 - first: it spares what Celery would load
from webapp.settings import current
from webapp.startup import one_sentence

# What is imported next reads the settings as well.
with one_sentence():
    settings = current()

from celery import signals
from celery.apps import worker as worker_program
from kombu import pools

from webapp import VERSION
from webapp.infra import patches, prefork
from webapp.infra.broker.client import bind_celery, celery
from webapp.infra.postgres import deadlines
from webapp.infra.postgres.engine import load_libraries
from webapp.infra.telemetry import logs, metrics, traces
from webapp.jobs import handlers
from webapp.settings import local

local.go_around_proxies()
logs.configure(settings.log_level)
with one_sentence():
    handlers.load(settings.handler_modules, settings.default_handler, settings.queue_names)
bind_celery((*handlers.registry.queues(), handlers.MAINTENANCE_QUEUE))
metrics.know(handlers.registry.names(), handlers.registry.queues())
traces.install(settings, "worker", VERSION)

# The tasks register themselves with the configured application.
import tasks.chunk  # noqa: E402
import tasks.dead_letter  # noqa: E402
import tasks.execution  # noqa: E402
import tasks.sweeps.callbacks  # noqa: E402
import tasks.sweeps.count_ends  # noqa: E402
import tasks.sweeps.dispatch  # noqa: E402
import tasks.sweeps.expire  # noqa: E402
import tasks.sweeps.fold_figures  # noqa: E402
import tasks.sweeps.keep_history  # noqa: E402
import tasks.sweeps.late_callbacks  # noqa: E402
import tasks.sweeps.prune  # noqa: E402
import tasks.sweeps.recover  # noqa: E402
import tasks.sweeps.repair_lanes  # noqa: E402
import tasks.sweeps.seal_audit  # noqa: E402, F401
from tasks import exposition  # noqa: E402
from tasks.presence.dead_workers import LifeLock  # noqa: E402
from tasks.presence.running import jobs_of  # noqa: E402
from tasks.presence.thread import Presence  # noqa: E402
from tasks.processes import (  # noqa: E402
    fork_signals,
    forks,
    process_group,
    reaper,
    recycling,
    run_table,
    session,
    shutdown,
)
from tasks.runtime import forget_parent, worker_name  # noqa: E402

app = celery
logger = logging.getLogger(__name__)

_presence: Presence | None = None
_exposed: exposition.Server | None = None
_life_lock: LifeLock | None = None
#: This process; in a forked child, its parent.
_pid = os.getpid()
#: As Python has it.
_exit = sys.exit


def _say_json(message: object, _file: object = None) -> None:
    """Celery announces its shutdown from a signal handler, where logging could deadlock: one plain write."""
    line = json.dumps(
        {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "INFO",
            "logger": "celery.apps.worker",
            "message": str(message).strip(),
        }
    )
    with suppress(OSError):
        # On a full disk the line is lost; what ends here ends all the same.
        os.write(2, f"{line}\n".encode())


patches.put("celery.apps.worker:safe_say", _say_json)


def _end_in_a_hurry(worker: Any) -> None:
    """Stops what runs, gives it back, and ends; called in a signal handler."""
    if _presence is None:
        worker_program.on_cold_shutdown(worker)
    else:
        _presence.hurry()


shutdown.replace_celerys(_end_in_a_hurry)

patches.put("celery.platforms:set_pdeathsig", prefork.end_with_parent)

#: How often a child that ends looks whether its parent has read its last answer; billiard's 300 times are 30 s, and a
#: parent that is shutting down may never read it. What the job came to is in PostgreSQL by then.
LAST_LOOKS = 20
patches.put("billiard.pool:GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT", LAST_LOOKS)


@signals.setup_logging.connect
def _keep_logging(**_: Any) -> None:
    """Celery leaves logging alone when somebody listens to this signal; it is configured above."""
    logs.configure(settings.log_level)


@signals.worker_init.connect
def _share_memory(**_: Any) -> None:
    """What stands before there are children: what they share, the proof of life, the end of what they leave behind."""
    global _life_lock
    load_libraries()
    prefork.share_memory()
    try:
        _life_lock = LifeLock(settings.data_dir, worker_name())
        run_table.keep_in(_life_lock.runs)
    except OSError as error:
        logger.warning(
            "should this worker die, its jobs wait for their leases to run out",
            extra={"error_type": type(error).__name__},
        )
    reaper.start()
    process_group.watch_children(reaper.note_death)


@signals.celeryd_init.connect
def _silence_banner(instance: Any, **_: Any) -> None:
    """The banner is not a JSON line."""
    instance.quiet = True


@signals.worker_ready.connect
def _warn_of_unsigned_callbacks(**_: Any) -> None:
    """Callbacks had the secrets of `http` jobs once: who set those should know that they are not used for them."""
    if settings.webhook_keys and not settings.callback_keys:
        logger.warning("callbacks are not signed: WEBHOOK_SECRETS is set, and CALLBACK_SECRETS is empty")


@signals.beat_init.connect
def _begin_beat(**_: Any) -> None:
    """Beat's own lines tell of every tick; this is the one that matters."""
    # Beat has no children, but what it loaded would be searched for garbage while it ticks: 80 ms of a core that jobs need.
    prefork.share_memory()
    logger.info("beat started")


@signals.worker_ready.connect
def _start_presence(sender: Any, **_: Any) -> None:
    global _presence, _exposed
    if _presence is None:
        _presence = Presence(
            settings,
            role=str(sender.hostname),
            queues=celery.amqp.queues.consume_from,
            capacity=sender.controller.concurrency,
        )
        _presence.start()
        shutdown.listen(sender.controller, _presence.drain)
        process_group.stop_together(lambda: [child.pid for child in sender.pool._pool._pool])  # noqa: SLF001
        _exposed = exposition.serve(settings.worker_metrics_host, settings.worker_metrics_port)


@signals.task_failure.connect
def _child_lost(args: Any = None, **_: Any) -> None:
    """In the parent this means that a child died or is about to be killed by its message's hard time limit."""
    if _presence is not None:
        _presence.child_lost(jobs_of(args))


@signals.worker_before_create_process.connect
def _choose_slot(**_: Any) -> None:
    """The child that is forked next has a place to write down what it runs."""
    run_table.current().next_slot(process_group.is_child)


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    if _presence is not None:
        _presence.drain()


@signals.worker_shutdown.connect
def _stop_presence(**_: Any) -> None:
    if _presence is not None:
        _presence.stop()
    # With jobs that could not be given back it counts as dead, so that the next one takes them.
    if _life_lock is not None and not (_presence is not None and _presence.has_jobs_to_release):
        _life_lock.give_up()
    if _exposed is not None:
        _exposed.stop()


@signals.worker_process_init.connect
def _become_child(**_: Any) -> None:
    """Drops every connection that was inherited by fork; ends when the parent is dead already.

    Celery has just asked the kernel to kill this process with its parent, which is too late for one that died
    between the fork and that: idle children would then keep each other's pipes open for ever.
    """
    global _presence, _exposed
    if os.getppid() != _pid:
        os._exit(0)
    logs.catch_strays()
    _presence = None
    if _exposed is not None:
        _exposed.forget()
        _exposed = None
    deadlines.uninstall()
    forget_parent()
    pools.reset()
    # billiard puts one in its place that remembers what a handler gave, and ends the child with it, whatever it is.
    sys.exit = _exit
    run_table.current().take(os.getpid())
    session.lead()
    reaper.note_birth()
    # A child that is born late has handlers of its parent that Celery knows nothing of.
    fork_signals.put_down_handlers()
    forks.allow()
    recycling.limit(settings.max_tasks_per_child)


@signals.worker_process_shutdown.connect
def _end_child(**_: Any) -> None:
    """A child ends without what Python does at exit, so its last spans are sent here."""
    traces.flush()
