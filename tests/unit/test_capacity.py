from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from ops import __main__ as command_line
from ops.capacity import costs, model, report, run

FREE = costs.Costs(held_ms=1e-9, delivery_ms=1e-9)


@pytest.mark.parametrize(
    ("children", "offered", "share"),
    # The first two are M/M/1 and M/M/2 in closed form; the others stand in every table of Erlang's C.
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 3.0, 0.2362), (10, 8.0, 0.4092), (50, 40.0, 0.0871), (3, 3.0, 1.0)],
)
def test_the_share_that_waits_is_erlangs(children, offered, share):
    assert model.erlang_c(children, offered) == pytest.approx(share, rel=2e-3)


def test_one_child_and_exponential_run_times_wait_as_the_textbook_says():
    waits = model.waits(model.Load(rate=0.5, run_seconds=1.0, variability=1.0), FREE, 1)
    assert waits.utilisation == pytest.approx(0.5)
    # M/M/1: rho / (1 - rho) in units of the run time, and the tail rho * exp(-(1 - rho) t).
    assert waits.mean == pytest.approx(1.0)
    assert waits.p99 == pytest.approx(math.log(0.5 / 0.01) / 0.5)
    assert waits.within_objective == pytest.approx(1 - 0.5 * math.exp(-2.5))


def test_run_times_that_never_vary_halve_the_mean_wait():
    spread = [model.waits(model.Load(1.2, 1.0, variability), FREE, 2).mean for variability in (0.0, 1.0)]
    assert spread[0] == pytest.approx(spread[1] / 2)


def test_children_that_are_too_few_let_the_backlog_grow_without_end():
    waits = model.waits(model.Load(10, 1.0), FREE, 10)
    assert (waits.mean, waits.p50, waits.p99, waits.within_objective) == (math.inf, math.inf, math.inf, 0.0)
    assert waits.utilisation == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [0.1, 1, 10, 200])
@pytest.mark.parametrize("run", [0.01, 1, 60])
def test_as_many_children_as_needed_reach_the_objective_and_one_less_does_not(rate, run):
    load, known = model.Load(rate, run), costs.Costs()
    needed = model.children_needed(load, known)
    assert model.waits(load, known, needed).within_objective >= 0.99
    if needed > 1:
        assert model.waits(load, known, needed - 1).within_objective < 0.99


def test_a_plan_scales_with_the_rate_and_names_the_end_of_postgresql():
    known = costs.Costs(database_ms=2.0, api_ms=7.0, parent_ms=1.4, commits=3.0, wal_kib=2.0, row_kib=1.0)
    plan = model.plan(model.Load(1_000, 0.01, database_cores=4), known)
    assert plan.api_processes == 10
    assert plan.worker_processes == 2
    assert plan.database_share == pytest.approx(0.5)
    assert plan.limit_rate == pytest.approx(1_400)
    assert plan.commits_per_s == pytest.approx(3_000)
    assert plan.wal_mib_per_s == pytest.approx(2_000 / 1024)
    assert plan.gib_a_day == pytest.approx(1_000 * 86_400 / 1024**2)
    assert plan.wal_gib_a_day == pytest.approx(2 * plan.gib_a_day)


def test_a_plan_counts_what_is_kept_and_what_all_processes_need():
    known = costs.Costs(
        database_ms=1.4, api_ms=7.0, parent_ms=1.4, child_ms=1.0, upkeep_ms=0.4, row_kib=2.0,
        api_mib=50.0, parent_mib=70.0, child_mib=20.0, upkeep_mib=164.0,
    )  # fmt: skip
    plan = model.plan(model.Load(1_000, 0.01, kept_days=9), known, children=15)
    # Ten days, for the first job of a day waits for its last one.
    assert plan.rows_kept == pytest.approx(1_000 * 86_400 * 10)
    assert plan.gib_kept == pytest.approx(plan.rows_kept * 2 / 1024**2)
    assert plan.database_cores == pytest.approx(2.0)
    assert plan.application_cores == pytest.approx(1_000 * 9.8 / 1000 / 0.7)
    assert plan.memory_gib == pytest.approx((10 * 50 + 2 * 70 + 15 * 20 + 164) / 1024)


def test_the_connections_of_the_default_deployment():
    assert model.connections(api_processes=2, api_threads=4, workers=2, children=2) == (16, 28)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rate": 0}, "rate must be above 0"),
        ({"rate": math.nan}, "rate must be above 0"),
        ({"run_seconds": -1}, "run_seconds must be above 0"),
        ({"objective_share": 1}, "objective_share must be above 0 and below 1"),
        ({"kept_days": 0}, "kept_days must be above 0 and below 36500"),
        ({"variability": -0.1}, "variability must be 0 to 100"),
    ],
)
def test_a_load_out_of_bounds_is_named(values, sentence):
    with pytest.raises(model.LoadError, match=sentence):
        model.Load(**{"rate": 1.0, "run_seconds": 1.0} | values)


def test_an_objective_below_the_delivery_cannot_be_reached_by_any_number_of_children():
    with pytest.raises(model.LoadError, match="delivery"):
        model.children_needed(model.Load(1, 1, objective_seconds=0.001), costs.Costs())


def test_costs_are_read_from_a_trial_and_from_the_bench(tmp_path):
    file = tmp_path / "costs.json"
    file.write_text(json.dumps({"costs": {"held_ms": 9.5}, "streams": []}))
    assert costs.read(file) == costs.Costs().changed(held_ms=9.5)
    file.write_text(json.dumps({"single_per_s": 500.0, "idle_start_ms_p50": 7.5, "together_api_cpu_ms": 2.5}))
    assert costs.read(file) == costs.Costs().changed(held_ms=4.0, delivery_ms=7.5, api_ms=2.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no", "cannot be read as JSON"),
        ("[1]", "must hold a JSON object"),
        ("{}", "neither"),
        ('{"costs": {"held_ms": -1}}', "held_ms must be a number above 0 .given: -1."),
        ('{"costs": {"held_ms": "x"}}', "held_ms must be a number above 0"),
    ],
)
def test_costs_that_cannot_be_used_are_one_sentence(tmp_path: Path, text, sentence):
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(costs.CostsError, match=sentence):
        costs.read(tmp_path / "costs.json")


def ask(*words):
    return run.main(command_line.parser().parse_args(["capacity", *words]))


def test_the_command_prints_a_plan_for_people_and_for_programs(capsys):
    assert ask("--rate", "50", "--run", "0.5") == 0
    assert "children needed" in capsys.readouterr().out
    assert ask("--rate", "50", "--run", "0.5", "--children", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["waits"] | {"utilisation": 0} == {
        "children": 2, "utilisation": 0, "mean": None, "p50": None, "p99": None, "within_objective": 0.0,
    }  # fmt: skip
    assert found["plan"]["children_needed"] > 25


def test_the_command_says_what_is_wrong_and_when_postgresql_cannot(capsys):
    assert ask("--rate", "999999", "--run", "80000") == 1
    assert "rate times run time needs" in capsys.readouterr().err
    assert ask("--rate", "9000", "--run", "0.001") == 0
    assert "PostgreSQL cannot do this" in capsys.readouterr().out


def test_nothing_is_said_to_be_busier_than_it_can_be():
    load = model.Load(rate=14_000, run_seconds=0.1, variability=1.0)
    said = report.plan(load, costs.Costs(), model.plan(load, costs.Costs(), 6))
    assert [share for share in re.findall(r"([\d.]+)% busy", said) if float(share) > 100] == []
    assert len(re.findall(r"all busy: [\d,]+\.\d times as many are needed", said)) == 2


def test_the_page_says_how_far_it_goes_as_the_command_does(capsys):
    page = (Path(command_line.__file__).parent / "docs" / "operating.md").read_text()
    asked = re.search(r"^\$ python3 -m ops capacity (--scale .*)$", page, re.MULTILINE)
    assert asked is not None
    assert ask(*asked[1].split()) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 6
    assert printed in page


def test_the_pages_count_connections_as_the_model_does():
    pages = Path(command_line.__file__).parent / "docs"
    most = f"`API_THREADS` + {model.API_EXTRA}"
    for page in ("operating.md", "runbooks/DatabaseConnectionsHigh.md"):
        said = re.findall(r"`API_THREADS` \+ \d+", (pages / page).read_text())
        assert set(said) == {most}, page
