"""`python3 -m ops COMMAND`: everything an operator types.

Only the standard library is used here until `.venv` is there; then the command starts over inside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ops.load.profiles import PROFILES, duration, rate
from ops.logs import BadTime, moment
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
#: Most rounds of `bench --against`; each takes a minute and a half.
MOST_ROUNDS = 100


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python3 -m ops", description="Runs and tests DJPS on this machine.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start everything and say where it is")
    up.add_argument("--detach", action="store_true", help="return when it is ready; `down` stops it")
    up.add_argument(
        "--reload", action="store_true", help="restart API and workers when the files of HANDLERS change"
    )
    commands.add_parser("down", help="stop everything")
    status = commands.add_parser("status", help="what runs")
    status.add_argument("--json", action="store_true", help="for programs")
    restart = commands.add_parser("restart", help="stop one process in order and start it again")
    restart.add_argument("name", help="as `status` names it")
    stop = commands.add_parser(
        "stop", help="stop one process until it is restarted, to see what happens without it"
    )
    stop.add_argument("name", help="as `status` names it")
    logs = commands.add_parser("logs", help="show the logs, whole and with what was rotated out of them")
    logs.add_argument("name", nargs="?", help="one process only")
    logs.add_argument("--follow", "-f", action="store_true", help="go on with what is written")
    logs.add_argument("--tail", type=_lines, metavar="N", help="the last N lines of each only")
    logs.add_argument("--since", type=_moment, metavar="TIME", help="such as 10m, 2h or 2026-11-24T10:00:00")
    new = commands.add_parser("new", help="write a handler and its test, to begin with")
    new.add_argument("what", choices=("handler",))
    new.add_argument("name", help="what a payload's `task` will say, such as send-email")
    test = commands.add_parser("test", help="run the checks and the test suite")
    test.add_argument("--check", action="store_true", help="only lint, types and import contracts")
    test.add_argument(
        "pytest", nargs=argparse.REMAINDER, help="arguments for pytest: then nothing else is run"
    )
    chaos = commands.add_parser(
        "chaos", help="break a whole system in every way we know, and check its promises"
    )
    chaos.add_argument(
        "names", nargs="*", metavar="NAME", help="scenarios; none: the short run of `ops test`"
    )
    chaos.add_argument("--all", action="store_true", help="every scenario: about half an hour")
    chaos.add_argument(
        "--mutants", action="store_true", help="builds without a protection: the checker must fail"
    )
    chaos.add_argument("--list", action="store_true", help="name the scenarios")
    chaos.add_argument("--seed", type=int, default=None, help="of every random choice")
    chaos.add_argument(
        "--json",
        type=Path,
        default=None,
        metavar="FILE",
        help="write the outcome there, too; FILE.md gets a table",
    )
    chaos.add_argument("--keep", action="store_true", help="keep all logs, not only those of a failure")
    chaos.add_argument(
        "--slack", type=float, default=1.0, help="factor on the bars for times, on a busy machine"
    )
    _bench(commands)
    load = commands.add_parser(
        "load", help="put load on a running system with k6, and check what comes of it"
    )
    load.add_argument(
        "profile", choices=tuple(PROFILES), help="smoke: 15 s; load, spike: 1 min; soak: 30 min"
    )
    load.add_argument("--url", help="of the API; the one of `ops up` when not given")
    load.add_argument("--duration", type=duration, metavar="TIME", help="such as 90s, 15m or 2h")
    load.add_argument("--rate", type=rate, metavar="N", help="submissions a second; in a spike at its peak")
    load.add_argument("--no-refusals", action="store_true", help="an answer 429 fails the run")
    commands.add_parser("prometheus", help="bring Prometheus, which `up` then runs, from Debian's packages")
    commands.add_parser("dashboards", help="make ops/grafana/dashboards/*.json anew")
    commands.add_parser("map", help="make ops/docs/map.md anew: every module and what it does")
    _capacity(commands)
    commands.add_parser("lock", help="make the hash-locked requirements anew from ops/lock/*.in")
    return root


def _lines(text: str) -> int:
    """A number of lines."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on (given: {text!r})")
    return int(text)


def _rounds(text: str) -> int:
    """A number of rounds."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_ROUNDS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST_ROUNDS} (given: {text!r})")
    return int(text)


def _moment(text: str) -> datetime:
    """A moment, as `--since` takes it."""
    try:
        return moment(text)
    except BadTime as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _bench(commands: Any) -> None:
    """The arguments of `bench`."""
    bench = commands.add_parser("bench", help="measure this system and others, in the same run")
    bench.add_argument("--quick", action="store_true", help="one small round: two minutes")
    bench.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="write every figure there, too"
    )
    bench.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="NAME",
        help="post, ours, peers, size, waiting, prune, or a peer",
    )
    bench.add_argument("--plots", action="store_true", help="draw ops/docs/performance/*.png")
    bench.add_argument(
        "--against", metavar="COMMIT", help="measure another commit in turns with this tree, small rounds"
    )
    bench.add_argument(
        "--rounds", type=_rounds, default=3, metavar="N", help="of `--against`; in each, both once; 3"
    )


def _capacity(commands: Any) -> None:
    """The arguments of `capacity`."""
    capacity = commands.add_parser(
        "capacity", help="what a load needs, how long its jobs wait, and where PostgreSQL is the limit"
    )
    capacity.add_argument("--rate", type=float, default=10.0, metavar="N", help="jobs a second; 10")
    capacity.add_argument("--run", type=float, default=1.0, metavar="S", help="mean run time, seconds; 1")
    capacity.add_argument(
        "--variability", type=float, default=1.0, metavar="V", help="of the run time: deviation over mean; 1"
    )
    capacity.add_argument("--children", type=int, metavar="N", help="children to look at; those needed")
    capacity.add_argument(
        "--within", type=float, default=5.0, metavar="S", help="jobs must start within; 5 s"
    )
    capacity.add_argument("--share", type=float, default=0.99, metavar="P", help="... in this share; 0.99")
    capacity.add_argument("--cores", type=float, default=2.0, metavar="N", help="PostgreSQL's processors; 2")
    capacity.add_argument(
        "--costs", type=Path, metavar="FILE", help="JSON of `capacity --trial --json` or `bench --json`"
    )
    capacity.add_argument("--trial", action="store_true", help="measure the costs, and test the model: 2 min")
    capacity.add_argument("--json", action="store_true", help="for programs")


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code."""
    wanted = parser().parse_args(arguments)
    if wanted.command == "up" and venv.lacks("up") and (sentence := early.port_in_use()) is not None:
        print(f"ops: {sentence}", file=sys.stderr)
        return 1
    try:
        venv.enter(NEEDS.get(wanted.command, "up"), arguments)
    except venv.VenvError as error:
        print(f"ops: {error}", file=sys.stderr)
        return 1
    from ops import commands  # noqa: PLC0415 - it needs what the virtual environment brings

    return commands.run(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
