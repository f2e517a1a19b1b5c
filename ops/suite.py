"""`ops test`: the checks, then the whole suite against servers of its own, with coverage of every process."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops.stack import ports
from ops.stack.throwaway import Throwaway
from ops.stack.venv import ROOT

#: What must be clean before a test is run; the files that git tracks are added where it says so.
CHECKS = (
    ("lint", ("ruff", "check", "--quiet", "--force-exclude"), True),
    ("format", ("ruff", "format", "--check", "--quiet", "--force-exclude"), True),
    ("types", ("mypy", "--no-error-summary"), False),
    ("imports", ("lint-imports", "--no-logo"), False),
)
BIN = Path(sys.prefix) / "bin"
#: The fault suite's short run takes as long as a third of the other system tests.
FAULTS = "tests/system/test_chaos.py"
#: These type the pages' commands, build images and start whole stacks: they wait for others most of their time.
WAITING = tuple(
    f"tests/system/test_{name}.py" for name in ("pages", "image", "stack", "upgrade", "backup", "full_disk")
)
#: The parts of the suite that run side by side, each about as long as the others: the first computes, the others wait
#: for processes and downloads.
PARTS = (
    ("tests/unit", "tests/contracts", "tests/integration", FAULTS),
    ("tests/system", *(f"--ignore={file}" for file in (FAULTS, *WAITING))),
    WAITING,
)
#: What `--quick` runs side by side, without coverage: all that needs no process of ours. The files of integration that are named
#: take half of its time.
HALF = tuple(
    f"tests/integration/test_{name}.py"
    for name in (
        *(
            "store_machine",
            "migrations",
            "statement_plans",
            "paging",
            "large_pages",
            "long_searches",
            "sweeps",
        ),
        *("read_replica", "history", "store_races", "job_commands", "dead_letters", "chunk", "execution"),
    )
)
QUICK = (
    ("tests/unit", "tests/contracts", *HALF),
    ("tests/integration", *(f"--ignore={file}" for file in HALF)),
)
#: Settings of a developer's own that must not reach the tests.
FOREIGN = (
    *("DATABASE_URL", "DATABASE_READ_URL", "REDIS_URL", "HANDLERS", "DEFAULT_HANDLER", "RATE_LIMIT"),
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
)


def run(arguments: Sequence[str], *, check_only: bool = False, quick: bool = False) -> int:
    """Runs checks and tests; returns the first exit code that is not 0.

    Args:
        arguments: for pytest. With any, only these tests are run, without checks or a coverage bar.
        check_only: stop after the checks.
        quick: without the system tests, and without coverage.
    """
    if not arguments or check_only:
        files = tracked()
        failed = [
            name for name, command, of_files in CHECKS if not _passes(name, (*command, *files * of_files))
        ]
        if failed or check_only:
            print(f"checks failed: {', '.join(failed)}" if failed else "all checks passed")
            return 1 if failed else 0
    if quick:
        with ExitStack() as stack:
            return _first_fault(_side_by_side(QUICK, ("-m", "pytest"), _each_alone(stack, QUICK)))
    if not arguments:
        return _measured()
    with _surroundings() as environment:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment, check=False
        ).returncode


def tracked(root: Path = ROOT) -> list[str]:
    """The Python files that git tracks; everything, where this is no clone.

    A user's own files stand in the clone as well, such as handlers, and are not ours to judge.
    """
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--", "*.py"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return ["."]
    return [name for name in listed.stdout.split("\0") if name and (root / name).exists()] or ["."]


@contextmanager
def _surroundings() -> Iterator[dict[str, str]]:
    """Servers and a folder of its own for one run of pytest; gives its environment."""
    with Throwaway(durable=False) as servers, tempfile.TemporaryDirectory(prefix="djps-test-") as folder:
        httpbin_port = ports.free()
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN} | {
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "DJPS_DATA_DIR": folder,
            "DJPS_ENV_FILE": "",
            "PROMETHEUS_MULTIPROC_DIR": str(Path(folder) / "metrics"),
            "SIMULATED_JOB_URL": f"http://{ports.LOOPBACK}:{httpbin_port}/delay/1",
            "PYTHONPATH": str(ROOT),
            "COVERAGE_FILE": str(Path(folder) / "coverage"),
        }
        httpbin = subprocess.Popen(
            [str(BIN / "gunicorn"), "--bind", f"{ports.LOOPBACK}:{httpbin_port}", "--threads", "8"]
            + ["--no-control-socket", "--log-level", "error", "ops.stack.httpbin_app:app"],
            env=environment,
        )
        try:
            yield environment
        finally:
            httpbin.terminate()
            httpbin.wait(30)


def _passes(name: str, command: Sequence[str]) -> bool:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    print(f"{name}: {'ok' if done.returncode == 0 else 'failed'}", flush=True)
    if done.returncode != 0:
        print(done.stdout + done.stderr)
    return done.returncode == 0


def _each_alone(stack: ExitStack, parts: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Servers and a folder of its own for each part; their environments."""
    return [stack.enter_context(_surroundings()) for _ in parts]


def _side_by_side(
    parts: Sequence[Sequence[str]], command: Sequence[str], environments: Sequence[dict[str, str]]
) -> list[int]:
    """Runs the parts of a suite at the same time; returns their exit codes.

    Args:
        command: what Python is asked for; a part's arguments follow it.
    """
    with ExitStack() as stack:
        # What the first part says is shown as it comes, that of the others when all have ended.
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile("w+")) for _ in parts[1:])]
        runs = [
            subprocess.Popen(
                [sys.executable, *command, *part],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
            )
            for part, environment, output in zip(parts, environments, outputs, strict=True)
        ]
        try:
            codes = [run.wait() for run in runs]
        finally:
            for run in runs:
                run.terminate()
        for output in outputs[1:]:
            output.seek(0)
            print(output.read(), flush=True)
    return codes


def _first_fault(codes: Sequence[int]) -> int:
    return next((code for code in codes if code), 0)


def _measured() -> int:
    """Runs the parts of the suite side by side, and judges what they cover together."""
    coverage = [sys.executable, "-m", "coverage"]
    with ExitStack() as stack:
        environments = _each_alone(stack, PARTS)
        codes = _side_by_side(
            PARTS, ("-m", "coverage", "run", "--rcfile=setup.cfg", "-m", "pytest"), environments
        )
        data = [str(Path(environment["DJPS_DATA_DIR"])) for environment in environments]
        for step in (
            ("combine", "--quiet", *data),
            ("report", "--skip-covered"),
            ("json", "--quiet", "-o", "-"),
        ):
            done = subprocess.run(
                [*coverage, step[0], "--rcfile=setup.cfg", *step[1:]],
                cwd=ROOT,
                env=environments[0],
                check=False,
                capture_output=step[0] == "json",
                text=True,
            )
            if done.returncode != 0:
                return done.returncode
    return _first_fault([*codes, _judge(done.stdout)])


def _judge(report: str) -> int:
    """Holds statements and branches against the bars in setup.cfg."""
    bars = configparser.ConfigParser()
    bars.read(ROOT / "setup.cfg")
    totals = json.loads(report)["totals"]
    statements = 100 * totals["covered_lines"] / max(1, totals["num_statements"])
    branches = 100 * totals["covered_branches"] / max(1, totals["num_branches"])
    print(f"statements {statements:.2f} %, branches {branches:.2f} %")
    low = [
        f"{what} {found:.2f} % is under {bars.getfloat('djps:coverage', what):g} %"
        for what, found in (("statements", statements), ("branches", branches))
        if found < bars.getfloat("djps:coverage", what)
    ]
    for sentence in low:
        print(f"coverage: {sentence}")
    return 2 if low else 0
