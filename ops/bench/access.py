"""What keys cost a POST: two APIs over the same database, one that asks for keys and one that does not, alternated."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from ops.bench import load
from ops.bench.figures import Round
from ops.bench.floors import answers
from ops.bench.plan import Plan
from ops.bench.processes import call
from ops.bench.servers import Servers
from ops.bench.size import Say
from ops.bench.system import PAYLOAD, POST_ENVIRONMENT, START_PATIENCE, SUBMIT, System
from ops.stack import ports
from ops.stack.venv import ROOT
from webapp.access.secret import hash_of, new_key

#: Clients, and how often each of the two is measured.
CLIENTS, TURNS = 16, 5


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Measures both in turn; the figure is the median of the turns' ratios.

    Raises:
        BenchError: an API does not answer, or refuses.
    """
    key = new_key()
    environment = {**POST_ENVIRONMENT, "BOOTSTRAP_KEY_SHA256": hash_of(key).hex(), "API_AUTH": "open"}
    with_key = load.request(
        "POST",
        "/jobs",
        json.dumps({"payload": PAYLOAD}).encode(),
        headers={"Authorization": f"Bearer {key}"},
    )
    with (
        tempfile.TemporaryDirectory(prefix="djps-bench-") as folder,
        System(servers, Path(folder), environment) as system,
    ):
        call(
            [sys.executable, "-m", "flask", "--app", "wsgi", "access", "bootstrap"],
            system.environment,
            ROOT,
            START_PATIENCE,
        )
        asks = ports.free()
        theirs = {
            "API_PORT": str(asks),
            "API_AUTH": "keys",
            "PROMETHEUS_MULTIPROC_DIR": f"{folder}/metrics-of-keys",
        }
        system.children.start("api-with-keys", system.commands["api"], system.environment | theirs, ROOT)
        system.start_api()
        system.children.wait_until(
            lambda: answers(asks, "/health/ready"), "the API with keys is not ready", START_PATIENCE
        )
        targets = {"open": (system.port, SUBMIT), "keys": (asks, with_key)}
        speeds: dict[str, list[float]] = {name: [] for name in targets}
        for turn in range(TURNS + 1):
            for name in list(targets)[:: 1 if turn % 2 == 0 else -1]:
                servers.settle()
                port, request = targets[name]
                done = load.drive(port, request, clients=CLIENTS, seconds=plan.post_seconds)
                done.require(name)
                # The first turn warms both up.
                speeds[name] += [done.per_s] if turn else []
        for name, found in speeds.items():
            figures[f"access_{name}_per_s"] = median(found)
        ratios = [keys / plain for keys, plain in zip(speeds["keys"], speeds["open"], strict=True)]
        figures["access_keys_vs_open"] = median(ratios)
        say(
            f"POST /jobs, {CLIENTS} clients: {median(speeds['keys']):,.0f}/s with keys, {median(speeds['open']):,.0f}/s open;"
            f" ratio {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f} in {TURNS} turns)"
        )
