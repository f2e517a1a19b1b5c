"""POST /jobs beside the floors: the same load on each, one after the other at every number of clients."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ops.bench import load
from ops.bench.figures import Round, milliseconds
from ops.bench.floors import Floors
from ops.bench.plan import Plan
from ops.bench.processes import BenchError, Children
from ops.bench.servers import Servers
from ops.bench.system import POST_ENVIRONMENT, SUBMIT, System

#: Clients and seconds that warm a target up: pools are opened, code is compiled.
WARM_UP_CLIENTS, WARM_UP_SECONDS = 16, 0.5


def measure(
    plan: Plan,
    servers: Servers,
    say: Callable[[str], None],
    figures: Round,
    *,
    failures: dict[str, str],
    turn: int,
) -> None:
    """Measures all targets once and adds their figures as they come. Only the APIs run, no workers.

    Args:
        failures: takes the reason why a floor cannot be measured.
        turn: number of the round; it says who comes first.

    Raises:
        BenchError: our own API does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as name:
        folder = Path(name)
        with System(servers, folder / "ours", POST_ENVIRONMENT) as system, Children(folder) as children:
            floors = Floors(servers, children)
            floors.prepare()
            # They start side by side and wait for their turn.
            system.launch("api")
            floors.launch_insert_only()
            try:
                floors.launch_forerunner(say)
            except BenchError as error:
                failures["forerunner"] = f"failed: {error}"
            system.wait_for_api()
            failures |= floors.wait()
            targets = {"post": system.port, **floors.ports}
            for port in targets.values():
                load.drive(port, SUBMIT, clients=WARM_UP_CLIENTS, seconds=WARM_UP_SECONDS)
            order = list(targets)[:: 1 if turn % 2 == 0 else -1]
            for clients in plan.clients:
                for target in order:
                    servers.settle()
                    done = load.drive(targets[target], SUBMIT, clients=clients, seconds=plan.post_seconds)
                    done.require(target)
                    key = f"{target}_{clients}"
                    figures[f"{key}_per_s"] = done.per_s
                    figures |= milliseconds(done.latencies, key)
                    say(
                        f"{target}, {clients} clients: {done.per_s:,.0f}/s, "
                        f"p50 {figures[f'{key}_ms_p50']:.1f} ms, p99 {figures[f'{key}_ms_p99']:.1f} ms"
                    )
            floors.stop()
