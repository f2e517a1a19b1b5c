"""The commands of `python3 -m ops`, once they run inside the virtual environment."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from ops import logs, new_handler
from ops.new_handler import CannotWrite
from ops.stack import postgres, prometheus, reload
from ops.stack.stack import NAMES, Stack, StackError
from ops.stack.venv import ROOT
from webapp.settings import Settings, SettingsError
from webapp.settings.local import go_around_proxies


def run(wanted: argparse.Namespace) -> int:  # noqa: C901, PLR0912 - one case for each command
    """Runs one parsed command; returns its exit code."""
    here = Path.cwd()
    os.chdir(ROOT)
    go_around_proxies()
    try:
        match wanted.command:
            case "up":
                return up(Stack(Settings.load()), detach=wanted.detach, reloads=wanted.reload)
            case "down":
                return down(Stack(Settings.load()))
            case "status":
                return status(Stack(Settings.load()), as_json=wanted.json)
            case "restart":
                return restart(Stack(Settings.load()), wanted.name)
            case "stop":
                return stop(Stack(Settings.load()), wanted.name)
            case "logs":
                return show_logs(Stack(Settings.load()), wanted)
            case "new":
                print(new_handler.told(*new_handler.write(wanted.name, here)))
                return 0
            case "test":
                from ops import suite  # noqa: PLC0415 - only this command needs it

                return suite.run(wanted.pytest, check_only=wanted.check)
            case "chaos":
                from ops import chaos  # noqa: PLC0415 - only this command needs it

                return chaos.main(wanted)
            case "bench":
                from ops import bench  # noqa: PLC0415 - only this command needs it

                if wanted.against:
                    return bench.compare(wanted.against, wanted.rounds, wanted.only, wanted.json)
                return bench.run(wanted.quick, wanted.json, wanted.only, plots=wanted.plots)
            case "capacity":
                from ops import capacity  # noqa: PLC0415 - only this command needs it

                return capacity.main(wanted)
            case "load":
                from ops.load.run import main  # noqa: PLC0415 - only this command needs it

                return main(wanted, Stack(Settings.load()).urls["api_url"])
            case "prometheus":
                prometheus.install()
                print(f"Prometheus is {prometheus.find()}; `python3 -m ops up` runs it")
                return 0
            case "dashboards":
                from ops.grafana import build  # noqa: PLC0415 - only this command needs it

                return build.write()
            case "map":
                from ops import code_map  # noqa: PLC0415 - only this command needs it

                return code_map.write()
            case _:
                from ops.lockfiles import lock  # noqa: PLC0415 - only this command needs it

                return lock()
    except KeyboardInterrupt:
        return 130
    except (
        StackError,
        SettingsError,
        postgres.PostgresError,
        prometheus.PrometheusError,
        CannotWrite,
    ) as error:
        print(f"ops: {error}", file=sys.stderr)
        return 1


def up(stack: Stack, *, detach: bool, reloads: bool = False) -> int:
    """Brings everything up; stays until a signal comes, unless detached.

    Args:
        reloads: restart what runs handlers when their files change, which needs someone who stays.

    Raises:
        StackError: it does not come up; what had been started is stopped again, and nothing else.
    """
    if reloads and detach:
        raise StackError("--reload says what it does at this terminal, so it cannot be had with --detach")
    if reloads and not stack.settings.handler_modules:
        raise StackError("--reload watches the modules that HANDLERS names, and it names none")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    supervisor = stack.up()
    print(f"\n{stack.describe()}\n")
    if prometheus.find() is None:
        print("Prometheus is not installed; `python3 -m ops prometheus` brings it for the next `up`\n")
    print("Try it:\n")
    print(f"  curl -s {stack.urls['api_url']}/jobs -H 'Content-Type: application/json' \\")
    print('       -d \'{"payload": {"task": "sleep", "seconds": 2}}\'\n')
    if detach:
        print("Stop it: python3 -m ops down")
        return 0
    print("Stop it: Ctrl-C    Logs: python3 -m ops logs --follow", flush=True)
    try:
        ended = reload.wait(stack, supervisor) if reloads else supervisor.wait()
        print("the supervisor has ended" if ended == 0 else "the supervisor was killed, and all ends with it")
    except KeyboardInterrupt:
        print("\nstopping ...", flush=True)
        ended = 0
    finally:
        stack.down()
    return 0 if ended == 0 else 1


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def down(stack: Stack) -> int:
    """Stops everything."""
    was_up = stack.supervisor.answers()
    strays = stack.down()
    print("DJPS is down" if was_up or strays else "DJPS was not up")
    if strays and not was_up:
        print(f"{strays} processes had lost their supervisor and were ended")
    return 0


def status(stack: Stack, *, as_json: bool) -> int:
    """Shows what runs; exit code 1 when nothing does, or not all of it."""
    found = stack.status()
    if as_json:
        print(json.dumps(found, indent=2))
    elif found["processes"]:
        print(stack.describe())
    else:
        print("DJPS is not up; `python3 -m ops up` starts it")
    states = found["processes"].values()
    return 0 if states and all(one["state"] == "RUNNING" for one in states) else 1


def restart(stack: Stack, name: str) -> int:
    """Stops one process in order, starts it again, and returns when it is ready.

    Raises:
        StackError: DJPS is not up, runs no process of this name, or it does not get ready.
    """
    stack.restart(name)
    print(f"{name} was restarted and is ready")
    return 0


def stop(stack: Stack, name: str) -> int:
    """Stops one process in order; it stays stopped until `restart`.

    Raises:
        StackError: DJPS is not up, or runs no process of this name.
    """
    stack.stop_one(name)
    print(f"{name} was stopped; `python3 -m ops restart {name}` starts it again")
    return 0


def show_logs(stack: Stack, wanted: argparse.Namespace) -> int:
    """Shows what the processes wrote.

    Raises:
        StackError: there is no such log.
    """
    folder = stack.data / "logs"
    found = sorted(folder.glob(f"{wanted.name or '*'}.log"))
    if not found and wanted.name in NAMES:
        print(f"{wanted.name} has written nothing yet", file=sys.stderr)
        return 0
    if not found:
        known = ", ".join(sorted(one.stem for one in folder.glob("*.log"))) or "none yet"
        raise StackError(f"there is no log named {wanted.name!r} in {folder} (there are: {known})")
    try:
        logs.show(found, tail=wanted.tail, earliest=wanted.since, follow=wanted.follow)
    except BrokenPipeError:
        # What read it has seen enough, as `head` does; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 0
    return 0
