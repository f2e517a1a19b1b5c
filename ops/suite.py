"""`ops test`: the checks, then the whole suite against servers of its own, with the coverage of what is new in each part."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
#: How many groups run at a time: while one computes, others wait for processes and downloads.
LANES, QUICK_LANES = 3, 2


@dataclass(frozen=True, slots=True)
class Group:
    """Tests that run in one process of pytest, beside other groups, with servers of their own.

    Args:
        tests: files and folders, as pytest takes them.
        measured: whether what they run counts for the coverage. That costs half as much time again.
    """

    tests: tuple[str, ...]
    measured: bool = False


def _files(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{folder}/test_{name}.py" for name in names)


def _but(folder: str, files: Iterable[str]) -> tuple[str, ...]:
    return folder, *(f"--ignore={file}" for file in files)


#: The system tests in which lines of ours run that run in no other test.
NEW_GROUND = _files("system", "hosts", "hostile_clients", "testing_plugin", "tls")
#: Tests of parts, and of the programs beside them, in which no line of ours runs that runs in no other test.
KNOWN_GROUND = (
    *_files("integration", "store_machine", "migrations", "statement_plans", "lane_plans", "history_plans"),
    *_files("integration", "order_plans", "take_mutants", "store", "store_races", "balance", "control"),
    *_files("integration", "callbacks", "numbers", "job_keys", "chaos_checker", "batch", "access_costs"),
    *_files("unit", "suite", "command_line", "jsontext", "new_handler", "ops_logs", "testing_page"),
    *_files("unit", "example_signatures", "chaos_spans", "chaos_following", "load_figures", "capacity"),
    *_files("unit", "bench_peers", "bench_figures", "prometheus_install", "stack_ownership", "ports"),
)
#: These type the pages' commands and start whole stacks: they wait for others most of their time.
WAITING = _files("system", "pages", "stack", "upgrade", "backup", "full_disk")
STACKS = _files("system", "processes", "stack_faults", "described")
IMAGES, FAULTS = _files("system", "image"), _files("system", "chaos")
#: The suite. The longest come first, so that the lanes end at about the same time.
GROUPS = (
    Group(("tests/unit", *_but("tests/integration", KNOWN_GROUND)), measured=True),
    Group(WAITING),
    Group(IMAGES),
    Group(FAULTS),
    Group(NEW_GROUND, measured=True),
    Group(STACKS),
    Group(_but("tests/system", (*NEW_GROUND, *WAITING, *STACKS, *IMAGES, *FAULTS))),
    Group(KNOWN_GROUND),
    Group(("tests/contracts",)),
)
#: Half of integration, by the time it takes.
HALF = _files(
    "integration",
    *(
        "store_machine",
        "statement_plans",
        "paging",
        "large_pages",
        "long_searches",
        "following",
        "store_races",
    ),
    *("read_replica", "history", "job_commands", "dead_letters", "chunk", "execution", "migrations"),
)
#: What `--quick` runs, without coverage: all that needs no whole system.
QUICK = (
    Group(_but("tests/integration", HALF)),
    Group(HALF),
    Group(("tests/contracts",)),
    Group(("tests/unit",)),
)
#: Settings of a developer's own that must not reach the tests.
FOREIGN = (
    *("DATABASE_URL", "DATABASE_READ_URL", "REDIS_URL", "HANDLERS", "DEFAULT_HANDLER", "RATE_LIMIT"),
    *("API_AUTH", "API_HOST", "TRUSTED_PROXIES"),
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
        failed = _failed_checks()
        if failed or check_only:
            print(f"checks failed: {', '.join(failed)}" if failed else "all checks passed")
            return 1 if failed else 0
    if quick:
        return _first_fault(_in_lanes(QUICK, QUICK_LANES))
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


def _failed_checks() -> list[str]:
    """Runs the checks side by side; names those that failed."""
    files = tracked()
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        done = [pool.submit(_check, (*command, *files * of_files)) for _, command, of_files in CHECKS]
    failed = []
    for (name, _, _), ended in zip(CHECKS, done, strict=True):
        code, said = ended.result()
        print(f"{name}: {'failed' if code else 'ok'}", flush=True)
        if code:
            failed.append(name)
            print(said)
    return failed


def _check(command: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def _in_lanes(groups: Sequence[Group], lanes: int, coverage_file: str = os.devnull) -> list[int]:
    """Runs groups of tests, some at a time; returns their exit codes.

    Args:
        lanes: how many at a time; each takes the next group when it has ended one.
        coverage_file: where measured groups note what they run.
    """
    with ExitStack() as stack, ThreadPoolExecutor(lanes) as pool:
        # What the first group says is shown as it comes, that of the others when all have ended.
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile("w+")) for _ in groups[1:])]
        runs = [
            pool.submit(_run, group, output, coverage_file)
            for group, output in zip(groups, outputs, strict=True)
        ]
        try:
            codes = [run.result() for run in runs]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        for output in outputs[1:]:
            output.seek(0)
            print(output.read(), flush=True)
    return codes


def _run(group: Group, output: IO[str] | None, coverage_file: str) -> int:
    command = ["-m", "coverage", "run", "--rcfile=setup.cfg"] if group.measured else []
    with _surroundings() as environment:
        return subprocess.run(
            [sys.executable, *command, "-m", "pytest", *group.tests],
            cwd=ROOT,
            env=environment | {"COVERAGE_FILE": coverage_file},
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            check=False,
        ).returncode


def _first_fault(codes: Sequence[int]) -> int:
    return next((code for code in codes if code), 0)


def _measured() -> int:
    """Runs the suite in lanes, and judges what it covers."""
    with tempfile.TemporaryDirectory(prefix="djps-coverage-") as folder:
        data = str(Path(folder) / "coverage")
        codes = _in_lanes(GROUPS, LANES, data)
        for step in (("combine", "--quiet"), ("report", "--skip-covered"), ("json", "--quiet", "-o", "-")):
            done = subprocess.run(
                [sys.executable, "-m", "coverage", step[0], "--rcfile=setup.cfg", *step[1:]],
                cwd=ROOT,
                env=os.environ | {"COVERAGE_FILE": data},
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
