"""Peers: other job queues, measured on the same servers in the same run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ops.bench import runtimes
from ops.bench.figures import Round, milliseconds
from ops.bench.peers.catalogue import Peer, Variant
from ops.bench.peers.side import RECORD
from ops.bench.plan import Plan
from ops.bench.processes import BenchError, Children, call
from ops.bench.runtimes import Runtime
from ops.bench.servers import PEERS_REDIS, Servers

HERE = Path(__file__).resolve().parent
DATABASE = "bench_peer"
#: Seconds a client's command may take.
COMMAND_PATIENCE = 120.0
#: Seconds a worker gets to execute its first job.
START_PATIENCE = 30.0
#: Seconds workers get to end; what they leave undone is not needed.
END_PATIENCE = 2.0
#: Seconds between two looks at the counters.
LOOK_PAUSE = 0.05
#: The smallest backlog.
LEAST_JOBS = 200
#: Jobs that are sent one by one where the backlog can be filled in bulk.
ONE_BY_ONE = 3_000


def measure(peer: Peer, plan: Plan, servers: Servers, say: Callable[[str], None], figures: Round) -> None:
    """Measures one peer once and adds its figures as they come.

    Raises:
        MissingError: this machine lacks what it runs on.
        BenchError: it cannot be installed, or does not run.
    """
    runtime = runtimes.ready(peer.packages, say)
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as folder:
        run = _Run(peer, runtime, Path(folder), servers)
        wanted = {name: variant for name, variant in peer.variants.items() if name in plan.variants}
        for number, (name, variant) in enumerate(wanted.items()):
            run.clean()
            jobs = max(LEAST_JOBS, int(peer.jobs * variant.share * plan.peer_share))
            singly = min(jobs // 2, int(ONE_BY_ONE * plan.peer_share))
            backlog = run.fill(jobs, singly, figures if number == 0 else {})
            with Children(run.folder, END_PATIENCE) as children:
                figures[f"{peer.key}_{name}_per_s"] = run.execute(children, variant, backlog, plan.window)
                say(f"{peer.title}, {variant.what}: {figures[f'{peer.key}_{name}_per_s']:,.0f} jobs/s")
                if number == 0 and run.executed()[0] >= backlog:
                    figures |= milliseconds(run.waits(children, plan.idle_jobs), f"{peer.key}_idle_start")
        servers.drop_database(DATABASE)


class _Run:
    def __init__(self, peer: Peer, runtime: Runtime, folder: Path, servers: Servers) -> None:
        self.peer = peer
        self.runtime = runtime
        self.folder = folder
        self.servers = servers
        self.counters = folder / "counters"
        self.environment = {
            **{key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONHOME"}},
            **runtime.environment,
            "PYTHONPATH": str(HERE),
            "BENCH_DATABASE": servers.dsn(DATABASE),
            "BENCH_REDIS": servers.redis_url(PEERS_REDIS),
            "BENCH_COUNTERS": str(self.counters),
        }

    def clean(self) -> None:
        """Starts from nothing: a new database, an empty Valkey, no counters."""
        shutil.rmtree(self.counters, ignore_errors=True)
        self.counters.mkdir()
        self.servers.flush(PEERS_REDIS)
        if self.peer.postgres:
            self.servers.make_database(DATABASE)
            self._client("setup")

    def fill(self, wanted: int, singly: int, figures: Round) -> int:
        """Sends a backlog and notes how fast that was; returns its size.

        Args:
            singly: jobs that are sent one by one where the others can be sent in bulk.
        """
        single = min(wanted, singly) if self.peer.bulk else wanted
        figures[f"{self.peer.key}_one_per_s"] = single / self._client("one", single)
        if wanted > single:
            figures[f"{self.peer.key}_bulk_per_s"] = (wanted - single) / self._client("bulk", wanted - single)
        self.servers.settle(DATABASE if self.peer.postgres else None)
        return wanted

    def execute(self, children: Children, variant: Variant, backlog: int, window: float) -> float:
        """Starts the workers and watches them for `window` seconds at most; returns jobs a second."""
        places = {
            "{bin}": str(self.runtime.programs),
            "{program}": str(self.runtime.program),
            "{file}": f"{self.peer.module}{self.runtime.suffix}",
            "{redis}": self.environment["BENCH_REDIS"],
        }
        command = list(variant.command)
        for place, value in places.items():
            command = [word.replace(place, value) for word in command]
        for number in range(variant.processes):
            name = f"{self.peer.key}-{number}"
            children.start(name, command, self.environment | variant.environment, HERE)
        children.wait_until(
            lambda: self.executed()[0] > 0, f"{self.peer.title} executed nothing", START_PATIENCE
        )
        end = time.monotonic() + window
        while self.executed()[0] < backlog and time.monotonic() < end:
            children.require_alive()
            time.sleep(LOOK_PAUSE)
        count, first, last = self.executed()
        if last <= first:
            raise BenchError(f"{self.peer.title} executed only {count} jobs")
        return count / (last - first)

    def waits(self, children: Children, count: int) -> list[float]:
        """Sends jobs one by one to idle workers; returns how long each waited, seconds."""
        self._client("idle", count)

        def found() -> list[float]:
            return [
                float(line) for path in self.counters.glob("waits-*") for line in path.read_text().split()
            ]

        children.wait_until(
            lambda: len(found()) >= count, f"{self.peer.title} left idle jobs waiting", START_PATIENCE
        )
        return found()

    def executed(self) -> tuple[int, float, float]:
        """Jobs executed by all processes, and when the first and the last of them were."""
        records = [path.read_bytes() for path in self.counters.glob("count-*")]
        found = [RECORD.unpack(record) for record in records if len(record) == RECORD.size]
        counted = [record for record in found if record[0]]
        if not counted:
            return 0, 0.0, 0.0
        return (
            sum(record[0] for record in counted),
            min(record[1] for record in counted),
            max(record[2] for record in counted),
        )

    def _client(self, command: str, number: int = 0) -> float:
        """Runs a client's command in the peer's environment; returns the seconds that it measured."""
        words = [str(self.runtime.program), str(HERE / f"{self.peer.module}{self.runtime.suffix}")]
        words += [command, str(number)]
        printed = call(words, self.environment, HERE, COMMAND_PATIENCE).strip().splitlines()
        return float(json.loads(printed[-1])["seconds"]) if printed else 0.0
