"""Workflows: steps begin when those before them have ended, each once, and what fails has what was asked for follow."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
from ending import complete, end_last
from factories import ERROR
from flowing import NOOP, claim, count, done, failed, get, job_of, stand, step, steps_of, submit
from sqlalchemy import text

from tasks.runtime import runtime
from tasks.sweeps.dispatch import run_dispatch
from tasks.sweeps.prune import run_workflow_prune
from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow.admission import Bounds
from webapp.flow.limits import QueueLimits
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs import control
from webapp.jobs.states import AttemptOutcome
from webapp.workflows.advancer import Advancer

ETL = {"extract": step(), "clean": step("extract"), "count": step("extract"), "load": step("clean", "count")}


def test_a_step_begins_when_those_before_it_have_completed(client, engine):
    number = submit(client, ETL, name="etl")
    assert stand(client, number) == "running extract:running clean:waiting count:waiting load:waiting"
    assert count(engine, "SELECT count(*) FROM jobs") == 1
    done(client, engine, number, "extract")
    assert stand(client, number) == "running extract:completed clean:running count:running load:waiting"
    done(client, engine, number, "clean")
    assert stand(client, number).endswith("load:waiting")
    done(client, engine, number, "count")
    assert stand(client, number).endswith("load:running")
    done(client, engine, number, "load")
    whole = get(client, number)
    assert (whole["status"], whole["totals"]["completed"], whole["name"]) == ("completed", 4, "etl")
    assert whole["finished_at"] is not None
    job = client.get(f"/jobs/{job_of(client, number, 'load')}").json
    assert (job["group_id"], job["status"]) == (number, "completed")
    assert count(engine, "SELECT count(*) FROM group_ends") == 0


def test_a_result_is_put_into_the_payload_of_what_takes_it(client, engine):
    steps = {
        "extract": step(),
        "load": step(
            "extract", inputs={"first": {"step": "extract", "pointer": "/rows/0"}, "all": {"step": "extract"}}
        ),
    }
    number = submit(client, steps)
    done(client, engine, number, "extract", result='{"rows": [1e+22, 2]}')
    payload = client.get(f"/jobs/{job_of(client, number, 'load')}").json["payload"]
    assert payload == NOOP | {"first": 1e22, "all": {"rows": [1e22, 2]}}


@pytest.mark.parametrize(
    ("result", "pointer", "why"),
    [
        ('{"rows": 1}', "/lines", "input_missing"),
        ('{"rows": "' + "r" * 200_000 + '"}', "", "input_too_large"),
    ],
)
def test_a_step_whose_input_cannot_be_had_fails_without_a_job(client, engine, result, pointer, why):
    inputs = {"a": {"step": "extract", "pointer": pointer}, "b": {"step": "extract", "pointer": pointer}}
    number = submit(client, {"extract": step(), "load": step("extract", inputs=inputs), "last": step("load")})
    done(client, engine, number, "extract", result=result)
    assert stand(client, number) == "failed extract:completed load:failed last:skipped"
    load = steps_of(client, number)["load"]
    assert (load["reason"].split(":")[0], load["job_id"]) == (why, None)


def test_a_result_that_was_not_kept_is_no_input(client, engine):
    number = submit(client, {"extract": step(), "load": step("extract", inputs={"x": {"step": "extract"}})})
    done(client, engine, number, "extract")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE workflow_steps SET status = 'waiting', reason = NULL, job_id = NULL, released_at = NULL, finished_at = NULL WHERE name = 'load'"
            )
        )
        connection.execute(text("UPDATE jobs SET result_note = 'not JSON' WHERE status = 'completed'"))
    runtime().advancer.advance(UUID(number))
    assert steps_of(client, number)["load"]["reason"].startswith("result_not_kept: ")


@pytest.mark.parametrize(
    ("policy", "after_failure", "at_the_end"),
    [
        ("fail", "running a:failed x:running b:skipped y:skipped", "failed a:failed x:completed b:skipped y:skipped"),
        ("skip", "running a:failed x:running b:skipped y:waiting", "failed a:failed x:completed b:skipped y:completed"),
        ("continue", "running a:failed x:running b:running y:waiting", "completed a:failed x:completed b:completed y:completed"),
    ],
)  # fmt: skip
def test_what_follows_a_failure_is_what_was_asked_for(client, engine, policy, after_failure, at_the_end):
    steps = {
        "a": step(on_failure=policy),
        "x": step(),
        "b": step("a", inputs={"n": {"step": "a"}}),
        "y": step("x"),
    }
    number = submit(client, steps)
    failed(client, engine, number, "a")
    assert stand(client, number) == after_failure
    done(client, engine, number, "x")
    for name, one in steps_of(client, number).items():
        if one["status"] == "running":
            if name == "b":
                assert client.get(f"/jobs/{one['job_id']}").json["payload"]["n"] is None
            done(client, engine, number, name)
    assert stand(client, number) == at_the_end


def test_finalizers_run_and_say_which_way_it_went(client, engine):
    steps = {"a": step(), "alarm": step("a", when="any_failed"), "tidy": step("a", when="final")}
    good, bad = submit(client, steps), submit(client, steps)
    done(client, engine, good, "a")
    assert stand(client, good) == "running a:completed alarm:skipped tidy:running"
    failed(client, engine, bad, "a")
    assert stand(client, bad) == "running a:failed alarm:running tidy:running"
    done(client, engine, bad, "alarm", "tidy")
    assert get(client, bad)["status"] == "failed"


def test_fail_fast_stops_what_runs(client, engine):
    number = submit(client, {"a": step(), "b": step(), "c": step()}, fail_fast=True)
    held = claim(engine, job_of(client, number, "c"))
    failed(client, engine, number, "a")
    runtime().advancer.turn()
    assert stand(client, number) == "running a:failed b:cancelled c:running"
    job = client.get(f"/jobs/{job_of(client, number, 'b')}").json
    assert job["cancel_reason"] == "another step of its workflow failed"
    with engine.connect() as connection:
        assert control.is_cancel_asked(connection, held.id, held.attempt)


def test_what_was_done_is_undone_in_the_reverse_order(client, engine):
    undo = {"compensate": {"payload": NOOP, "inputs": {"booking": {"step": "book"}}}}
    steps = {"book": step(**undo), "pay": step("book", compensate={"payload": NOOP}), "send": step("pay")}
    number = submit(client, steps)
    assert get(client, number)["totals"]["total"] == 3
    done(client, engine, number, "book", result='{"id": 7}')
    done(client, engine, number, "pay")
    failed(client, engine, number, "send")
    assert get(client, number)["status"] == "compensating"
    assert steps_of(client, number)["book:compensate"]["status"] == "waiting"
    done(client, engine, number, "pay:compensate")
    undone = job_of(client, number, "book:compensate")
    assert client.get(f"/jobs/{undone}").json["payload"]["booking"] == {"id": 7}
    done(client, engine, number, "book:compensate")
    whole = get(client, number)
    assert (whole["status"], whole["totals"]) == (
        "failed",
        {"total": 3, "completed": 2, "failed": 1, "cancelled": 0, "skipped": 0},
    )
    refused = client.post(f"/workflows/{number}/retry")
    assert (refused.status_code, "undone" in refused.json["detail"]) == (409, True)


def test_jobs_follow_the_end_and_each_is_told_of_it(client, engine):
    events = {
        f"on_{event}": {"payload": NOOP | {"event": event}} for event in ("complete", "success", "failure")
    }
    number = submit(client, {"a": step()}, name="etl", callback_url="https://example.com/hook", **events)
    failed(client, engine, number, "a")
    whole = get(client, number)
    assert whole["success_job_id"] is None
    told = client.get(f"/jobs/{whole['failure_job_id']}").json["payload"]
    assert told["event"] == "failure"
    assert told["workflow"] == {
        "id": number, "name": "etl", "status": "failed",
        "totals": {"total": 1, "completed": 0, "failed": 1, "cancelled": 0, "skipped": 0},
    }  # fmt: skip
    callback = client.get(f"/jobs/{whole['callback_job_id']}").json
    assert (callback["task"], callback["payload"]["json"]["type"]) == ("http", "workflow.failed")
    assert count(engine, "SELECT count(*) FROM jobs WHERE callback_of IS NOT NULL") == 1
    client.post(f"/workflows/{number}/retry")
    done(client, engine, number, "a")
    again = get(client, number)
    assert again["complete_job_id"] == whole["complete_job_id"]
    assert again["success_job_id"] is not None
    assert again["callback_job_id"] not in {None, whole["callback_job_id"]}
    assert count(engine, "SELECT count(*) FROM jobs") == 6


def test_retry_begins_again_what_failed_and_what_was_left_out_waits_again(client, engine):
    number = submit(client, ETL)
    done(client, engine, number, "extract")
    before = job_of(client, number, "extract"), job_of(client, number, "clean")
    failed(client, engine, number, "clean")
    assert stand(client, number) == "running extract:completed clean:failed count:running load:skipped"
    done(client, engine, number, "count")
    assert get(client, number)["status"] == "failed"
    answer = client.post(f"/workflows/{number}/retry", json={"reason": "mended"})
    assert answer.json["status"] == "running"
    assert stand(client, number) == "running extract:completed clean:running count:completed load:waiting"
    assert (job_of(client, number, "extract"), job_of(client, number, "clean")) == before
    done(client, engine, number, "clean")
    done(client, engine, number, "load")
    assert get(client, number)["status"] == "completed"
    assert client.post(f"/workflows/{number}/retry").status_code == 409
    assert count(engine, "SELECT count(*) FROM audit_events WHERE event = 'workflow.retry'") == 1


def test_requeueing_the_dead_letter_of_a_step_resumes_its_workflow(client, engine):
    number = submit(client, ETL, fail_fast=True)
    done(client, engine, number, "extract")
    failed(client, engine, number, "clean")
    runtime().advancer.turn()
    assert stand(client, number) == "failed extract:completed clean:failed count:cancelled load:skipped"
    assert client.post(f"/dlq/{job_of(client, number, 'clean')}/requeue").status_code == 200
    runtime().advancer.turn()
    assert stand(client, number) == "running extract:completed clean:running count:running load:waiting"
    assert get(client, number)["finished_at"] is None
    done(client, engine, number, "clean", "count")
    done(client, engine, number, "load")
    assert get(client, number)["status"] == "completed"


def test_a_workflow_is_cancelled_as_a_whole(client, engine):
    number = submit(client, ETL | {"tidy": step("load", when="final")})
    done(client, engine, number, "extract")
    claim(engine, job_of(client, number, "clean"))
    answer = client.post(f"/workflows/{number}/cancel", json={"reason": "not needed"})
    assert (answer.status_code, answer.json["status"]) == (200, "cancelling")
    assert (
        stand(client, number)
        == "cancelling extract:completed clean:running count:cancelled load:skipped tidy:waiting"
    )
    assert client.post(f"/workflows/{number}/cancel").status_code == 200
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET status = 'cancelled', finished_at = now(), lease_expires_at = NULL, worker_id = NULL WHERE status = 'processing'"
            )
        )
    runtime().advancer.turn()
    done(client, engine, number, "tidy")
    assert stand(client, number).startswith("cancelled ")
    assert get(client, number)["cancel_reason"] == "not needed"
    assert client.post(f"/workflows/{number}/cancel").status_code == 200
    assert count(engine, "SELECT count(*) FROM audit_events WHERE event = 'workflow.cancel'") == 1
    assert client.post(f"/workflows/{number}/retry").json["status"] == "running"
    over = submit(client, {"a": step()})
    done(client, engine, over, "a")
    assert client.post(f"/workflows/{over}/cancel").status_code == 409


def test_a_workflow_that_is_past_its_deadline_is_cancelled(client, engine):
    number = submit(client, {"a": step(), "b": step("a")}, deadline="2099-01-01T00:00:00Z")
    with engine.begin() as connection:
        connection.execute(text("UPDATE groups SET deadline = now() - interval '1 second'"))
    assert (runtime().advancer.turn(), runtime().advancer.turn(), runtime().advancer.turn()) == (1, 1, 0)
    assert stand(client, number) == "cancelled a:cancelled b:skipped"
    assert get(client, number)["cancel_reason"] == "its deadline has passed"


def test_a_full_queue_lets_a_step_wait_and_not_fail(client, engine, limit):
    number = submit(client, {"a": step(), "b": step("a")})
    held = claim(engine, job_of(client, number, "a"))
    assert client.post("/jobs", json={"payload": NOOP}).status_code == 201
    limit(QueueLimits(bounds=Bounds(max_depth=1)))
    with engine.begin() as connection:
        complete(connection, held, None)
    runtime().advancer.turn()
    assert stand(client, number) == "running a:completed b:waiting"
    assert steps_of(client, number)["b"]["reason"].startswith("queue_full: queue 'default' is full")
    assert client.get(f"/workflows/{number}/explain").json["state"] == "queue_full"
    assert client.get(f"/workflows/{number}/steps/b").json["state"] == "queue_full"
    limit(QueueLimits())
    runtime().advancer.turn()
    assert stand(client, number) == "running a:completed b:waiting", "it asks once a second"
    with engine.begin() as connection:
        connection.execute(text("UPDATE group_ends SET noted_at = now() - interval '2 seconds'"))
    runtime().advancer.turn()
    assert stand(client, number) == "running a:completed b:running"


def test_the_dispatcher_moves_workflows_on_and_sends_what_has_begun(client, engine, redis):
    number = submit(client, {"a": step(), "b": step("a")})
    held = claim(engine, job_of(client, number, "a"))
    with engine.begin() as connection:
        complete(connection, held, None)
    run_dispatch(runtime())
    assert stand(client, number) == "running a:completed b:running"


def test_what_ended_long_ago_is_deleted_with_its_steps(client, engine):
    old, new = submit(client, {"a": step()}), submit(client, {"a": step()})
    done(client, engine, old, "a")
    done(client, engine, new, "a")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE groups SET finished_at = now() - interval '8 days' WHERE id = :id"), {"id": old}
        )
    settings = runtime().settings.model_copy(update={"retention_days": 7})
    assert run_workflow_prune(replace(runtime(), settings=settings), 1.0) == 1
    assert client.get(f"/workflows/{old}").status_code == 404
    assert get(client, new)["status"] == "completed"
    assert count(engine, "SELECT count(*) FROM workflow_steps") == 1


def test_a_job_that_is_gone_fails_its_step(client, engine):
    number = submit(client, {"a": step(), "b": step("a")})
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    runtime().advancer.advance(UUID(number), looks_at_all=True)
    assert stand(client, number) == "failed a:failed b:skipped"
    assert steps_of(client, number)["a"]["reason"].startswith("job_gone")
    assert client.post(f"/workflows/{number}/retry").json["status"] == "running"
    done(client, engine, number, "a")
    assert stand(client, number) == "running a:completed b:running"


def test_of_two_ends_at_one_moment_one_releases_what_waits_for_both(client, engine):
    """Round after round: whichever end comes last, the sink begins with it, once, and no turn of the dispatcher is needed."""
    assert _late_sinks(client, engine, 80) == 0
    assert count(engine, "SELECT count(*) FROM group_ends") == 0


def test_the_look_after_the_commit_is_what_that_takes(client, engine, monkeypatch):
    """Without it, ends that met wait for the dispatcher: the test before this one can fail."""
    monkeypatch.setattr(Advancer, "_has_notes", lambda *_: False)
    assert _late_sinks(client, engine, 40) > 0
    assert count(engine, "SELECT count(*) FROM group_ends") > 0
    runtime().advancer.turn()
    assert count(engine, "SELECT count(*) FROM workflow_steps WHERE status = 'waiting'") == 0


def test_a_step_goes_by_how_its_job_stands_and_not_by_what_was_noted(client, engine):
    """A failed job was queued again and has completed before anyone looked: of the notes in between nothing is left."""
    number = submit(client, {"a": step(), "b": step("a")})
    job = job_of(client, number, "a")
    held = claim(engine, job)
    with engine.begin() as connection:
        assert end_last(connection, held, AttemptOutcome.FAILED, ERROR)
        assert move_to_dead_letters(connection, held.id, held.attempt)
    with engine.begin() as connection:
        assert control.requeue(connection, job)
    runtime().advancer.turn()
    assert stand(client, number) == "running a:running b:waiting"
    held = claim(engine, job)
    with engine.begin() as connection:
        complete(connection, held, None)
        # As if an older note came late.
        connection.execute(
            text("INSERT INTO group_ends (group_id, member_id, became) VALUES (:group, :job, 'failed')"),
            {"group": number, "job": job},
        )
    runtime().advancer.turn()
    assert stand(client, number) == "running a:completed b:running"


def _late_sinks(client, engine, rounds):
    """Has two ends meet, round after round; returns how many steps behind them have not begun."""
    means = runtime().advancer._means
    workers = 2
    numbers = [submit(client, {"a": step(), "b": step(), "z": step("a", "b")}) for _ in range(rounds)]
    jobs = {name: [claim(engine, job_of(client, number, name)) for number in numbers] for name in ("a", "b")}
    barrier = threading.Barrier(workers)

    def work(name):
        advancer = Advancer(engine, means)
        for held, number in zip(jobs[name], numbers, strict=True):
            barrier.wait(30)
            in_transaction(engine, lambda connection, held=held: complete(connection, held, None))
            advancer.after([UUID(number)])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, jobs))
    late = [number for number in numbers if steps_of(client, number)["z"]["status"] != "running"]
    assert count(engine, "SELECT count(*) FROM jobs") == 3 * rounds - len(late)
    return len(late)


def test_a_thousand_steps(client, engine):
    """A chain, a fan-out and a fan-in: all of it is stored at once, and ends by as many turns as it is deep."""
    steps = {"root": step()}
    steps |= {f"c{n}": step(f"c{n - 1}" if n else "root") for n in range(30)}
    steps |= {f"f{n}": step("root") for n in range(967)}
    steps |= {"sink": step("c29", *(f"f{n}" for n in range(967))), "last": step("sink")}
    number = submit(client, steps)
    for _ in range(40):
        if get(client, number)["status"] != "running":
            break
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE jobs SET status = 'completed', finished_at = now() WHERE finished_at IS NULL")
            )
        runtime().advancer.turn()
    whole = get(client, number)
    assert (whole["status"], whole["totals"]["completed"]) == ("completed", 1_000)
    assert count(engine, "SELECT count(*) FROM jobs") == 1_000
