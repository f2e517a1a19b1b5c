"""Every command of `python3 -m ops`, with its options. Standard library only."""

from __future__ import annotations

import argparse
from pathlib import Path

from ops.capacity.model import BOUNDS, MOST_VARIABILITY
from ops.cli.arguments import above, children, commit, lines, pattern, rounds, since, url
from ops.cli.parser import Parser
from ops.load.profiles import PROFILES, duration, rate
from ops.logs.lines import LEVELS
from webapp import VERSION

#: Commands that `flask --app wsgi` has, too; here they reach the stack that runs.
FORWARDED = (
    *("jobs", "dlq", "batches", "workflows", "schedules", "queues", "tasks", "workers", "access", "audit"),
    "db",
)
SHELLS = ("bash", "zsh", "fish")


def parser() -> Parser:
    """The command line."""
    root = Parser(
        prog="python3 -m ops",
        description="DJPS on this machine: run it, look at it, develop it.",
        examples=(
            "python3 -m ops up --detach",
            'python3 -m ops jobs submit \'{"task": "sleep", "seconds": 2}\' --wait',
            "python3 -m ops logs --level warning --since 10m",
        ),
    )
    root.add_argument("--version", action="version", version=f"DJPS {VERSION}", help="say which DJPS this is")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    root.group(
        "Run",
        commands,
        up="start everything and say where it is",
        down="stop everything; the data stays",
        status="show what runs, and where",
        restart="stop one process in order, or `all` of DJPS's own, and start it again",
        stop="stop one process until it is restarted, to see what happens without it",
        prometheus="bring Prometheus, which `up` then runs, from Debian's packages",
    )
    root.group(
        "Look and steer",
        commands,
        logs="show the logs of all processes, merged by time",
        jobs="submit jobs, look at them, follow, cancel and retry them",
        dlq="look at dead letters; requeue or discard them",
        batches="look at batches; close, cancel and retry them",
        workflows="look at workflows and their steps; cancel and retry them",
        schedules="look at schedules; apply, pause, run and fill them in",
        queues="look at queues; pause and resume them",
        tasks="look at tasks; pause and resume them",
        workers="show which workers are alive",
        access="keys of the API: make, list, rotate, revoke and find them",
        audit="the record of acts: who did what, when and why",
        db="migrations: current, history, upgrade",
    )
    root.group(
        "Develop",
        commands,
        new="write a handler and its test, or secrets for containers, to begin with",
        test="run the checks and the test suite",
        chaos="break a whole system in every way we know, and check its promises",
        bench="measure this system and others, in the same run",
        load="put load on a running system with k6, and check what comes of it",
        capacity="say what a load needs, how long its jobs wait, and where PostgreSQL is the limit",
        dashboards="make ops/grafana/dashboards/*.json anew",
        map="make ops/docs/map.md anew: every module and what it does",
        lock="make the hash-locked requirements anew from ops/lock/*.in",
        completion="print what has a shell complete these commands",
    )
    for add in (_run, _logs, _develop, _chaos, _bench, _load, _capacity):
        add(root.commands)
    for name in FORWARDED:
        root.commands[name].add_argument(
            "arguments", nargs=argparse.REMAINDER, help="as `flask --app wsgi` has them"
        )
    return root


def _examples(command: Parser, *examples: str) -> None:
    command.epilog = "examples:\n" + "\n".join(f"  python3 -m ops {one}" for one in examples)


def _run(commands: dict[str, Parser]) -> None:
    up = commands["up"]
    _examples(up, "up", "up --detach", "up --reload")
    up.add_argument("--detach", action="store_true", help="return when it is ready; `down` stops it")
    up.add_argument(
        "--reload", action="store_true", help="restart API and workers when the files of HANDLERS change"
    )
    commands["status"].add_argument("--json", action="store_true", help="print JSON, for programs")
    _examples(commands["status"], "status", "status --json")
    commands["restart"].add_argument("name", help="as `status` names it, or `all` but PostgreSQL and Redis")
    _examples(commands["restart"], "restart worker", "restart all")
    commands["stop"].add_argument("name", help="as `status` names it")
    _examples(commands["stop"], "stop redis")


def _logs(commands: dict[str, Parser]) -> None:
    logs = commands["logs"]
    _examples(
        logs,
        "logs",
        "logs worker maintenance --since 1h --level warning",
        "logs --job 01a21a39-fe40-7349-8ae4-a745c958ab72 --follow",
        "logs api --grep '\"status\":50[03]' --json | jq .path",
    )
    logs.add_argument("names", nargs="*", metavar="NAME", help="these processes only")
    logs.add_argument("--follow", "-f", action="store_true", help="go on with what is written, until Ctrl-C")
    amount = logs.add_mutually_exclusive_group()
    amount.add_argument(
        "--lines",
        "-n",
        type=lines,
        metavar="N",
        help="the last N lines; 100 on a terminal and with --follow, where nothing narrows them",
    )
    amount.add_argument("--all", action="store_true", help="every line, from the oldest file on")
    logs.add_argument(
        "--since", type=since, metavar="TIME", help="not older than, such as 10m, 2h or 2026-11-24T10:00:00"
    )
    logs.add_argument(
        "--grep", type=pattern, metavar="RE", help="lines with this regular expression in them, as written"
    )
    logs.add_argument("--level", choices=LEVELS, help="lines that are at least as grave")
    logs.add_argument("--job", metavar="ID", help="lines about one job, by its id or the beginning of it")
    logs.add_argument(
        "--json",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a JSON object a line, as where the output is no terminal",
    )


def _develop(commands: dict[str, Parser]) -> None:
    new = commands["new"]
    written = new.add_subparsers(dest="what", metavar="WHAT", required=True, help="what to write")
    handler = written.add_parser("handler", help="a handler and its test")
    handler.add_argument("name", help="what a payload's `task` will say, such as send-email")
    written.add_parser("secrets", help="passwords and keys for containers, as lines of .env")
    _examples(new, "new handler send-email", "new secrets > .env")
    test = commands["test"]
    test.add_argument("--check", action="store_true", help="only lint, types and import contracts")
    test.add_argument(
        "--quick", action="store_true", help="checks, unit tests, contracts and integration, without coverage"
    )
    test.add_argument(
        "pytest", nargs=argparse.REMAINDER, help="arguments for pytest: then nothing else is run"
    )
    _examples(test, "test", "test --quick", "test --check", "test tests/unit -k retry")
    commands["lock"].add_argument(
        "--upgrade", action="store_true", help="take the newest versions, not only what is missing"
    )
    commands["completion"].add_argument("shell", choices=SHELLS, help="which shell")
    commands["completion"].epilog = (
        "in the clone's folder:\n"
        '  bash: eval "$(python3 -m ops completion bash)"\n'
        '  zsh:  eval "$(python3 -m ops completion zsh)"\n'
        "  fish: python3 -m ops completion fish | source"
    )


def _chaos(commands: dict[str, Parser]) -> None:
    chaos = commands["chaos"]
    _examples(chaos, "chaos", "chaos redis-flush worker-kill --seed 7", "chaos --all --json outcome.json")
    chaos.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="scenarios or mutants; none: the short run of `ops test`, or all mutants",
    )
    chaos.add_argument("--all", action="store_true", help="every scenario: about half an hour")
    chaos.add_argument(
        "--mutants", action="store_true", help="builds without a protection: the checker must fail"
    )
    chaos.add_argument("--list", action="store_true", help="name the scenarios, or the mutants")
    chaos.add_argument("--seed", type=int, help="of every random choice; a new one where none is given")
    chaos.add_argument(
        "--json", type=Path, metavar="FILE", help="write the outcome there, too; FILE.md gets a table"
    )
    chaos.add_argument("--keep", action="store_true", help="keep all logs, not only those of a failure")
    chaos.add_argument(
        "--slack", type=float, default=1.0, help="factor on the bars for times, on a busy machine"
    )


def _bench(commands: dict[str, Parser]) -> None:
    bench = commands["bench"]
    _examples(bench, "bench --quick", "bench --only post ours", "bench --against main~5 --rounds 2")
    bench.add_argument("--quick", action="store_true", help="one small round: two minutes")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    bench.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="NAME",
        help="post, ours, peers, size, waiting, prune, or a peer",
    )
    bench.add_argument("--plots", action="store_true", help="draw ops/docs/performance/*.png")
    bench.add_argument(
        "--against",
        type=commit,
        metavar="COMMIT",
        help="measure another commit in turns with this tree, small rounds",
    )
    bench.add_argument(
        "--rounds", type=rounds, default=3, metavar="N", help="of `--against`; in each, both once"
    )


def _load(commands: dict[str, Parser]) -> None:
    load = commands["load"]
    _examples(load, "load smoke", "load soak --duration 2h --rate 10")
    load.add_argument(
        "profile", choices=tuple(PROFILES), help="smoke: 15 s; load, spike: 1 min; soak: 30 min"
    )
    load.add_argument("--url", type=url, help="of the API; the one of `ops up` when not given")
    load.add_argument("--duration", type=duration, metavar="TIME", help="such as 90s, 15m or 2h")
    load.add_argument("--rate", type=rate, metavar="N", help="submissions a second; in a spike at its peak")
    load.add_argument("--no-refusals", action="store_true", help="an answer 429 fails the run")


def _capacity(commands: dict[str, Parser]) -> None:
    capacity = commands["capacity"]
    _examples(capacity, "capacity --rate 50 --run 0.2", "capacity --trial")
    capacity.add_argument(
        "--rate", type=above(*BOUNDS["rate"]), default=10.0, metavar="N", help="jobs a second"
    )
    capacity.add_argument(
        "--run", type=above(*BOUNDS["run_seconds"]), default=1.0, metavar="S", help="mean run time, seconds"
    )
    capacity.add_argument(
        "--variability",
        type=above(0, MOST_VARIABILITY, itself=True),
        default=1.0,
        metavar="V",
        help="of the run time: standard deviation over mean",
    )
    capacity.add_argument(
        "--children",
        type=children,
        metavar="N",
        help="children to look at; those that are needed where not given",
    )
    capacity.add_argument(
        "--within",
        type=above(*BOUNDS["objective_seconds"]),
        default=5.0,
        metavar="S",
        help="jobs must start within this time, seconds",
    )
    capacity.add_argument(
        "--share",
        type=above(*BOUNDS["objective_share"]),
        default=0.99,
        metavar="P",
        help="... in this share of all cases",
    )
    capacity.add_argument(
        "--cores",
        type=above(*BOUNDS["database_cores"]),
        default=2.0,
        metavar="N",
        help="PostgreSQL's processors",
    )
    capacity.add_argument(
        "--days",
        type=above(*BOUNDS["kept_days"]),
        default=30.0,
        metavar="N",
        help="how long finished jobs are kept, RETENTION_DAYS",
    )
    capacity.add_argument(
        "--costs", type=Path, metavar="FILE", help="JSON of `capacity --trial --json` or `bench --json`"
    )
    capacity.add_argument(
        "--scale", action="store_true", help="a line for 10, 100, 1,000 and 10,000 jobs a second"
    )
    capacity.add_argument("--trial", action="store_true", help="measure the costs, and test the model: 2 min")
    capacity.add_argument("--json", action="store_true", help="print JSON, for programs")
