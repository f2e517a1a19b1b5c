"""Commands that run the stack: up, down, status, restart, stop, logs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ops.cli.parser import meant
from ops.logs.selection import Selection
from ops.logs.show import AT_FIRST, printer, show
from ops.stack import first_key, metrics_key, prometheus, reload
from ops.stack.stack import NAMES, Stack, StackError
from webapp.infra.terminal import console, show_table
from webapp.settings.local import read_note

#: What `restart` takes for every process that is not a server.
ALL = "all"
#: What goes on when all is restarted: with these, nothing else works meanwhile.
SERVERS = ("postgres", "redis")


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
    print()
    show_processes(stack)
    print()
    if prometheus.find() is None:
        print("Prometheus is not installed; `python3 -m ops prometheus` brings it for the next `up`\n")
    print("Try it:\n")
    print(f"  curl -s {stack.urls['api_url']}/jobs -H 'Content-Type: application/json' \\")
    if metrics_key.is_needed(stack.settings):
        print(f'       -H "Authorization: Bearer {_key_shown(stack.data / first_key.FILE)}" \\')
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


def _key_shown(file: Path) -> str:
    """The admin key that `up` has made, in the words of a shell; another key where it has made none."""
    return f"$(cat {shlex.quote(str(file))})" if file.exists() else "djps_k_..."


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
        show_processes(stack)
    else:
        print("DJPS is not up; `python3 -m ops up` starts it")
    states = found["processes"].values()
    return 0 if states and all(one["state"] == "RUNNING" for one in states) else 1


def show_processes(stack: Stack) -> None:
    """Prints a table of what runs where."""
    found = stack.status()
    told = read_note(stack.data).get("what", {})
    where = {"postgres": found["database_url"], "redis": found["redis_url"]}
    where |= {name: found[f"{name}_url"] for name in ("api", "flower", "prometheus")}
    rows = [
        {
            "process": name,
            "state": one["state"].lower(),
            "pid": one["pid"] or "",
            "address": where.get(name, ""),
            "what it does": told.get(name, ""),
        }
        for name, one in found["processes"].items()
    ]
    rows.sort(key=lambda row: list(told).index(row["process"]) if row["process"] in told else len(told))
    show_table(rows, ("process", "state", "pid", "address", "what it does"))


def restart(stack: Stack, name: str) -> int:
    """Stops a process in order, starts it again, and returns when it is ready; with `all`, one after the other.

    Raises:
        StackError: DJPS is not up, runs no process of this name, or it does not get ready.
    """
    known = stack.supervisor.states()
    names = [one for one in NAMES if one in known and one not in SERVERS] if name == ALL else [name]
    if known and name != ALL:
        _require_known(name, known)
    if not known:
        raise StackError("DJPS is not up; `python3 -m ops up` starts it")
    for one in names:
        stack.restart(one)
        print(f"{one} was restarted and is ready", flush=True)
    if name == ALL and (left := [one for one in SERVERS if one in known]):
        print(f"{' and '.join(left)} went on; `python3 -m ops restart {left[0]}` restarts one of them")
    return 0


def stop(stack: Stack, name: str) -> int:
    """Stops one process in order; it stays stopped until `restart`.

    Raises:
        StackError: DJPS is not up, or runs no process of this name.
    """
    if known := stack.supervisor.states():
        _require_known(name, known)
    stack.stop_one(name)
    print(f"{name} was stopped; `python3 -m ops restart {name}` starts it again")
    return 0


def _require_known(name: str, known: dict[str, object]) -> None:
    if name not in known:
        hint = meant(name, known) or f" (there are: {', '.join(known)})"
        raise StackError(f"no process is named {name!r}{hint}")


def show_logs(stack: Stack, wanted: argparse.Namespace) -> int:
    """Shows what the processes wrote.

    Raises:
        StackError: there is no such log.
    """
    folder = stack.data / "logs"
    logs = _logs_of(folder, wanted.names)
    if not logs() and not wanted.follow:
        print(f"{' and '.join(wanted.names) or 'DJPS'} has written nothing yet", file=sys.stderr)
        return 0
    selection = Selection(
        earliest=wanted.since,
        pattern=wanted.grep,
        level=logging.getLevelNamesMapping()[wanted.level.upper()] if wanted.level else 0,
        job=wanted.job,
    )
    on_terminal = sys.stdout.isatty()
    lines = wanted.lines
    if lines is None and not wanted.all and selection.is_everything and (on_terminal or wanted.follow):
        lines = AT_FIRST
    as_objects = wanted.json if wanted.json is not None else not on_terminal
    try:
        shown = show(
            logs,
            selection,
            lines=lines,
            follow=wanted.follow,
            write=printer(as_objects=as_objects, out=sys.stdout),
        )
        if shown == 0 and not selection.is_everything:
            about = f" about job {wanted.job}" if wanted.job else ""
            print(f"no line{about} is as asked for", file=sys.stderr)
        if lines == AT_FIRST and wanted.lines is None and shown == AT_FIRST:
            console(err=True).print(f"the last {AT_FIRST} lines; --all shows every one", style="dim")
    except BrokenPipeError:
        # What read it has seen enough, as `head` does; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 0
    return 0


def _logs_of(folder: Path, names: list[str]) -> Callable[[], list[Path]]:
    """What finds the logs of processes, of all where none is named.

    Raises:
        StackError: no process has such a name, and there is no such log.
    """
    for name in names:
        known = sorted({*NAMES, *(one.stem for one in folder.glob("*.log"))})
        if name not in known:
            hint = meant(name, known) or f" (there are: {', '.join(known)})"
            raise StackError(f"there is no log named {name!r}{hint}")
    wanted = [f"{name}.log" for name in names] or ["*.log"]
    return lambda: sorted({found for pattern in wanted for found in folder.glob(pattern)})
