"""`python3 -m ops COMMAND`: everything an operator types.

Only the standard library is used here until `.venv` is there; then the command starts over inside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ops.stack import venv


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python3 -m ops", description="Runs and tests DJPS on this machine.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start everything and say where it is")
    up.add_argument("--detach", action="store_true", help="return when it is ready; `down` stops it")
    commands.add_parser("down", help="stop everything")
    status = commands.add_parser("status", help="what runs")
    status.add_argument("--json", action="store_true", help="for programs")
    logs = commands.add_parser("logs", help="show the logs")
    logs.add_argument("name", nargs="?", help="one process only")
    logs.add_argument("--follow", "-f", action="store_true", help="go on with what is written")
    test = commands.add_parser("test", help="run the checks and the test suite")
    test.add_argument("--check", action="store_true", help="only lint, types and import contracts")
    test.add_argument(
        "pytest", nargs=argparse.REMAINDER, help="arguments for pytest: then nothing else is run"
    )
    commands.add_parser("lock", help="make the hash-locked requirements anew from ops/lock/*.in")
    return root


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code."""
    wanted = parser().parse_args(arguments)
    try:
        venv.enter("test" if wanted.command in {"test", "lock"} else "up", arguments)
    except venv.VenvError as error:
        print(f"ops: {error}", file=sys.stderr)
        return 1
    from ops import commands  # noqa: PLC0415 - it needs what the virtual environment brings

    return commands.run(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
