"""The command line of workers and beat: `python -m tasks worker ...` and `python -m tasks beat`.

`celery -A tasks worker` runs the same worker, in 10 MiB more for each process: before it looks at its arguments it loads every
command there is, with what those stand on, Flower's among them. Here a process loads what it runs
(`ops/docs/decisions/0044-memory.md`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

#: What the interpreter is given to run this module again. Celery starts a worker anew with `sys.argv` (SIGHUP), where Python
#: has put this file's path: run by that, the folder `tasks` would come first on the path, and `tasks/celery.py` be Celery.
_MODULE = ("-m", "tasks")


def parser() -> argparse.ArgumentParser:
    """The arguments; those of a worker are named as Celery names them."""
    made = argparse.ArgumentParser(prog="python -m tasks", description="Runs a worker, or beat.")
    commands = made.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker", help="run jobs, or what beat asks for", allow_abbrev=False)
    worker.add_argument(
        "-n", "--hostname", default="worker@%h", metavar="NAME@%h", help="the worker's name; %%h: this host's"
    )
    worker.add_argument("-Q", "--queues", metavar="NAME,...", help="listen to these queues only")
    worker.add_argument("-X", "--exclude-queues", metavar="NAME,...", help="listen to all but these queues")
    worker.add_argument(
        "-c", "--concurrency", type=_number, metavar="N", help="children; by default NUM_WORKERS"
    )
    commands.add_parser("beat", help="ask for dispatch, recovery and the like, again and again")
    return made


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(arguments: Sequence[str] | None = None, module: Sequence[str] = _MODULE) -> int:
    """Runs what the arguments name until it is told to end; returns its exit code.

    Args:
        arguments: those of the command line when None.
        module: how the interpreter is told to run this command line again.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser().parse_args(given)
    sys.argv = [*module, *given]
    if chosen.command == "beat":
        # Each of the two imports what it runs, and beat neither database nor handlers.
        from tasks import clock  # noqa: PLC0415

        return clock.run()
    return _work(chosen)


def _work(chosen: argparse.Namespace) -> int:
    # As above.
    from celery.exceptions import ImproperlyConfigured  # noqa: PLC0415
    from celery.utils.nodenames import host_format  # noqa: PLC0415

    from tasks.celery import app  # noqa: PLC0415

    try:
        worker = app.Worker(
            hostname=host_format(chosen.hostname),
            queues=chosen.queues,
            exclude_queues=chosen.exclude_queues,
            concurrency=chosen.concurrency,
            # What Celery's workers tell each other is of no use to DJPS's.
            without_gossip=True,
            without_mingle=True,
            quiet=True,
        )
    except ImproperlyConfigured as error:
        sys.exit(f"djps: {' '.join(str(error).split())}")
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
