"""`python3 -m ops COMMAND`: everything an operator types.

Only the standard library is used here until `.venv` is there; then the command starts over inside it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from ops.cli.commands import FORWARDED, parser
from ops.stack import early, venv

#: What must be installed for a command, a key of `venv.LOCKS`; "up" for those that are not named.
NEEDS = {
    "test": "test",
    "lock": "test",
    "chaos": "test",
    "bench": "test",
    "load": "load",
    "dashboards": "test",
}
#: Commands about what runs: in a clone where nothing was ever started they install nothing to say so.
LOOKING = frozenset({"down", "status", "restart", "stop", "logs", *FORWARDED})


def _asks_for_more(arguments: Sequence[str]) -> bool:
    """True if a command prints more than a sentence when nothing runs: its help, or JSON."""
    return bool({"--help", "--json"} & set(arguments)) or (arguments[0] in FORWARDED and len(arguments) == 1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads a command line. What follows `jobs` and the like is read by the commands of the application."""
    if arguments and arguments[0] in FORWARDED:
        return argparse.Namespace(command=arguments[0], arguments=list(arguments[1:]))
    found: argparse.Namespace = parser().parse_args(arguments)
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code."""
    wanted = parse(arguments)
    if wanted.command == "up" and venv.lacks("up") and (sentence := early.refusal()) is not None:
        print(f"ops: {sentence}", file=sys.stderr)
        return 1
    if wanted.command in LOOKING and not _asks_for_more(arguments) and early.nothing_runs():
        if wanted.command == "down":
            print("DJPS was not up")
            return 0
        print("ops: DJPS is not up; `python3 -m ops up` starts it", file=sys.stderr)
        return 1
    try:
        venv.enter(NEEDS.get(wanted.command, "up"), arguments)
    except venv.VenvError as error:
        print(f"ops: {error}", file=sys.stderr)
        return 1
    from ops.cli import run  # noqa: PLC0415 - it needs what the virtual environment brings

    return run.run(wanted)


def _read_by_no_one() -> int:
    """What read our output has seen enough, as `head` does: nothing may be written at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        sys.exit(_read_by_no_one())
