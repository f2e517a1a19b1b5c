"""The peers of the benchmark: what the catalogue says of them, and what they are run with."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest

from ops.bench import npm, runtimes, venvs
from ops.bench.figures import RATIOS
from ops.bench.peers import HERE
from ops.bench.peers.catalogue import PEERS
from ops.bench.peers.side import IDLE_PAUSE, RECORD
from ops.bench.plan import FULL, QUICK
from ops.bench.processes import MissingError
from ops.bench.progress import Record
from ops.bench.report import BARS

BY_KEY = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
#: What a variant's command may leave to the run.
PLACES = {"{bin}", "{program}", "{file}", "{redis}"}
NODE = shutil.which("node")


@BY_KEY
def test_a_peer_has_a_file_and_a_version(peer):
    suffix = ".js" if peer.packages in npm.FOLDERS else ".py"

    assert (HERE / f"{peer.module}{suffix}").is_file()
    assert re.fullmatch(r"\d+\.\d+[\w.]*", runtimes.pins(peer.packages)[peer.package])


@BY_KEY
def test_a_peer_is_run_as_it_comes_and_tuned(peer):
    assert {"default", "tuned"} <= set(peer.variants) <= set(FULL.variants)
    assert set(QUICK.variants) <= set(FULL.variants)
    for variant in peer.variants.values():
        assert set(re.findall(r"\{\w+\}", " ".join(variant.command))) <= PLACES
        assert variant.what
        assert 0 < variant.share <= 1


def test_a_chart_has_a_name_for_every_peer():
    # Its module needs packages of the peers, so it is read and not imported.
    tree = ast.parse((HERE.parent / "charts.py").read_text())
    named = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PEERS"
    )
    assert set(ast.literal_eval(named)) == {peer.key for peer in PEERS}


@pytest.mark.parametrize("name", sorted(RATIOS))
def test_a_ratio_has_a_bar_and_is_of_a_variant_that_is_run(name):
    variants = {f"{peer.key}_{variant}_per_s" for peer in PEERS for variant in peer.variants}
    _, others = RATIOS[name]

    assert BARS[name][1] is not None
    assert name.startswith("post_") or set(others) <= variants


def test_graphile_worker_is_run_as_its_own_benchmark_runs_it():
    tuned = next(peer for peer in PEERS if peer.key == "graphile").variants["tuned"]

    assert (tuned.processes, tuned.command[-1], tuned.environment["BENCH_LOCAL_QUEUE"]) == (2, "24", "500")
    assert BARS["backlog_vs_graphile"] == (">=", 0.7)


def test_pgqueuer_in_two_processes_has_a_line_of_its_own():
    pair = next(peer for peer in PEERS if peer.key == "pgqueuer").variants["tuned_pair"]

    assert pair.processes == 2
    assert RATIOS["backlog_vs_pgqueuer_pair"] == ("backlog_per_s", ("pgqueuer_tuned_pair_per_s",))
    assert BARS["backlog_vs_pgqueuer_pair"] == (">=", 1.5)


@pytest.mark.parametrize("name", sorted(venvs.REQUIREMENTS))
def test_every_package_for_python_is_locked_with_its_hash_and_no_address(name):
    text = venvs.REQUIREMENTS[name].read_text()

    assert text.count("==") <= text.count("--hash=sha256:")
    assert "://" not in text


@pytest.mark.parametrize("name", sorted(npm.FOLDERS))
def test_every_package_for_node_is_locked_with_its_hash_and_no_address(name):
    text = (npm.FOLDERS[name] / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    root = packages.pop("")

    assert "://" not in text
    assert [path for path, package in packages.items() if "resolved" in package] == []
    assert [path for path, one in packages.items() if not one["integrity"].startswith("sha512-")] == []
    assert root["dependencies"] == npm.pins(name)
    assert {
        package: packages[f"node_modules/{package}"]["version"] for package in npm.pins(name)
    } == npm.pins(name)


def test_a_lock_file_loses_addresses_and_keeps_what_finds_a_package():
    locked = {"version": "1.0.0", "integrity": "sha512-x"}
    lock = {
        "lockfileVersion": 3,
        "packages": {
            "": {"dependencies": {"a": "1.0.0"}},
            "node_modules/a": locked | {"resolved": "https://r/a.tgz", "funding": {"url": "https://f"}},
        },
    }

    assert json.loads(npm.without_addresses(json.dumps(lock)))["packages"] == {
        "": {"dependencies": {"a": "1.0.0"}},
        "node_modules/a": locked,
    }


def program(folder, name, says):
    """A program that prints one line."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({}, "needs Node 18 or newer with npm, which are not on PATH"),
        ({"node": "v22.1.0"}, "needs Node 18 or newer with npm, which are not on PATH"),
        ({"node": "v16.20.2", "npm": "8.19.4"}, "needs Node 18 or newer; this is 16"),
        ({"node": "something", "npm": "8.19.4"}, "needs Node 18 or newer; this is 0"),
    ],
)
def test_without_node_its_peers_are_skipped_with_the_reason(tmp_path, monkeypatch, capsys, programs, reason):
    for name, says in programs.items():
        program(tmp_path, name, says)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runtimes, "_failed", {})
    record = Record(60.0)

    # Asked again, it says the same.
    for _ in range(2):
        with record.step("graphile", "Graphile Worker") as now:
            assert now
            runtimes.ready("graphile", record.say)

    assert record.failures == {"graphile": f"skipped: {reason}"}
    assert capsys.readouterr().out.count(reason) == 2


def test_a_node_that_is_new_enough_is_taken(tmp_path, monkeypatch):
    program(tmp_path, "node", "v18.0.0")
    program(tmp_path, "npm", "9.0.0")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert npm.node() == tmp_path / "node"


def test_without_a_python_for_oban_it_is_missing_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(MissingError, match=re.escape("oban needs Python 3.12")):
        venvs.interpreter("oban")


def side(folder, program, code):
    """Runs code in a process of its own, beside the counters that it writes; returns what it printed."""
    environment = {"BENCH_COUNTERS": str(folder), "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [program, *code], cwd=HERE, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


NODE_HITS = """
const side = require("./side.js");
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const began = now();
side.hit(0);
side.hit(began);
console.log(began, now());
"""
HITS = {
    "python": (
        sys.executable,
        (
            "-c",
            "import side, time; began = time.time(); side.hit(); side.hit(began); print(began, time.time())",
        ),
    ),
    "node": (NODE, ("-e", NODE_HITS)),
}


@pytest.mark.parametrize("language", HITS)
def test_executed_jobs_are_counted_alike_in_every_language(language, tmp_path):
    program, code = HITS[language]
    if program is None:
        pytest.skip("Node is not on this machine")

    began, end = map(float, side(tmp_path, program, code).split())

    (counter,) = tmp_path.glob("count-*")
    count, first, last = RECORD.unpack(counter.read_bytes())
    (waits,) = tmp_path.glob("waits-*")
    assert count == 2
    assert began <= first <= last <= end
    assert 0 <= float(waits.read_text()) <= end - began


def test_both_sides_send_to_an_idle_system_at_the_same_pace():
    pause = re.search(r"IDLE_PAUSE_MS = (\d+);", (HERE / "side.js").read_text())

    assert float(pause[1]) == 1000 * IDLE_PAUSE
