"""The signals that tell a worker to end, and what each does.

SIGTERM and Ctrl-C ask it to end in order: what runs gets SHUTDOWN_GRACE. SIGQUIT, SIGUSR2, a second Ctrl-C and the end of
its terminal ask it to end in a hurry: what runs is stopped now. In both cases what did not end is given back, and burns no
retry. Celery's own way with the second kind is to kill the children and to leave their jobs until their leases run out.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.apps import worker as program

from webapp.infra import patches

#: What a worker that was told to end in a hurry returns, as with Celery.
EXIT_CODE = 1


def replace_celerys(hurry: Callable[[Any], object]) -> None:
    """Makes what Celery takes for a cold shutdown an end in a hurry; before a worker installs its signal handlers.

    Args:
        hurry: is called in the signal handler, with the worker.
    """
    # To Celery it is a warm shutdown: its children are stopped by us, and their jobs given back.
    handler = partial(
        program._shutdown_handler,  # noqa: SLF001 - what Celery's own handlers are made with
        sig="SIGQUIT",
        how="Warm",
        callback=hurry,
        exitcode=EXIT_CODE,
    )
    patches.put("celery.apps.worker:install_worker_term_hard_handler", handler)


def listen(worker: Any, drain: Callable[[], object]) -> None:
    """Installs handlers for the signals that Celery leaves to the kernel, which would kill the worker at once.

    Args:
        worker: Celery's.
        drain: begins an end in order.
    """
    if "CELERY_RDBSIG" not in os.environ:
        program.install_worker_term_hard_handler(worker, sig="SIGUSR2")
    restart = signal.getsignal(signal.SIGHUP)
    if restart is signal.SIG_DFL:
        program.install_worker_term_hard_handler(worker, sig="SIGHUP")
    elif callable(restart):

        def drain_and_restart(number: int, frame: Any) -> None:
            # Celery restarts when everything has ended, and sets no limit to that.
            drain()
            restart(number, frame)

        signal.signal(signal.SIGHUP, drain_and_restart)
