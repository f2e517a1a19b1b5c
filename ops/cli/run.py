"""What each command of `python3 -m ops` does, once it runs inside the virtual environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ops import new_handler, new_secrets
from ops.cli import commands, completion, forward, stack
from ops.new_handler import CannotWrite
from ops.stack import postgres, prometheus
from ops.stack.stack import Stack, StackError
from ops.stack.venv import ROOT
from webapp.settings import Settings, SettingsError
from webapp.settings.local import go_around_proxies

#: What a command may say instead of doing it: one sentence, exit code 1.
REFUSALS = (StackError, SettingsError, postgres.PostgresError, prometheus.PrometheusError, CannotWrite)


def run(wanted: argparse.Namespace) -> int:
    """Runs one parsed command; returns its exit code."""
    here = Path.cwd()
    os.chdir(ROOT)
    go_around_proxies()
    try:
        if wanted.command in commands.FORWARDED:
            return forward.run(Stack(Settings.load()), wanted.command, wanted.arguments, here)
        if (command := _OF_STACK.get(wanted.command)) is not None:
            return command(Stack(Settings.load()), wanted)
        if wanted.command == "new":
            return _new(wanted, here)
        return _DEVELOPING[wanted.command](wanted)
    except KeyboardInterrupt:
        return 130
    except REFUSALS as error:
        print(f"ops: {error}", file=sys.stderr)
        return 1


def _new(wanted: argparse.Namespace, here: Path) -> int:
    if wanted.what == "secrets":
        new_secrets.write()
    else:
        print(new_handler.told(*new_handler.write(wanted.name, here)))
    return 0


def _load(running: Stack, wanted: argparse.Namespace) -> int:
    from ops.load.run import main  # noqa: PLC0415 - only this command needs it

    return main(wanted, running.urls["api_url"])


_OF_STACK: dict[str, Callable[[Stack, argparse.Namespace], int]] = {
    "up": lambda it, wanted: stack.up(it, detach=wanted.detach, reloads=wanted.reload),
    "down": lambda it, _: stack.down(it),
    "status": lambda it, wanted: stack.status(it, as_json=wanted.json),
    "restart": lambda it, wanted: stack.restart(it, wanted.name),
    "stop": lambda it, wanted: stack.stop(it, wanted.name),
    "logs": stack.show_logs,
    "load": _load,
}


def _test(wanted: argparse.Namespace) -> int:
    for option, is_given in (("--check", wanted.check), ("--quick", wanted.quick)):
        if is_given and wanted.pytest:
            commands.parser().commands["test"].error(f"{option} takes no {wanted.pytest[0]!r}")
    from ops import suite  # noqa: PLC0415 - only this command needs it

    return suite.run(wanted.pytest, check_only=wanted.check, quick=wanted.quick)


def _chaos(wanted: argparse.Namespace) -> int:
    from ops import chaos  # noqa: PLC0415 - only this command needs it

    return chaos.main(wanted)


def _bench(wanted: argparse.Namespace) -> int:
    from ops import bench  # noqa: PLC0415 - only this command needs it

    if wanted.against:
        return bench.compare(wanted.against, wanted.rounds, wanted.only, wanted.json)
    return bench.run(wanted.quick, wanted.json, wanted.only, plots=wanted.plots)


def _capacity(wanted: argparse.Namespace) -> int:
    from ops.capacity.run import main  # noqa: PLC0415 - only this command needs it

    return main(wanted)


def _prometheus(_: argparse.Namespace) -> int:
    prometheus.install()
    print(f"Prometheus is {prometheus.find()}; `python3 -m ops up` runs it")
    return 0


def _dashboards(_: argparse.Namespace) -> int:
    from ops.grafana import build  # noqa: PLC0415 - only this command needs it

    return build.write()


def _map(_: argparse.Namespace) -> int:
    from ops import code_map  # noqa: PLC0415 - only this command needs it

    return code_map.write()


def _lock(wanted: argparse.Namespace) -> int:
    from ops.lockfiles import lock  # noqa: PLC0415 - only this command needs it

    return lock(upgrade=wanted.upgrade)


def _completion(wanted: argparse.Namespace) -> int:
    print(completion.script(wanted.shell))
    return 0


_DEVELOPING: dict[str, Callable[[argparse.Namespace], int]] = {
    "test": _test,
    "chaos": _chaos,
    "bench": _bench,
    "capacity": _capacity,
    "prometheus": _prometheus,
    "dashboards": _dashboards,
    "map": _map,
    "lock": _lock,
    "completion": _completion,
}
