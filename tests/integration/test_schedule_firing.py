"""Each nominal time of a schedule fires once, and what does not fire is on record."""

from __future__ import annotations

import threading
from dataclasses import replace
from uuid import UUID

import pytest
from ending import complete, end_last
from factories import ERROR, row_of
from scheduled import JOB, count, fire, jobs_of, outcomes, put, set_back
from sqlalchemy import text

from tasks.runtime import runtime
from tasks.sweeps.dispatch import run_dispatch
from tasks.sweeps.prune import run_firing_prune, run_renewal
from webapp.dead_letters.store import move_to_dead_letters
from webapp.jobs import ends, store
from webapp.jobs.handlers import registry
from webapp.jobs.retry import DeathReason
from webapp.jobs.states import AttemptOutcome
from webapp.schedules import store as schedule_store


def claim_and_complete(engine, job_id):
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [UUID(job_id)], worker_id="host:1:boot/2", lease=60.0)
        assert complete(connection, claim, None)


def claim(engine, job_id):
    with engine.begin() as connection:
        (found,) = store.claim(connection, [UUID(job_id)], worker_id="host:1:boot/2", lease=60.0)
    return found


def test_a_time_fires_one_job_and_the_next_one_is_an_hour_later(client, engine):
    before = put(client)
    assert before["state"] == "active"
    assert runtime().firer.turn() > 0
    set_back(engine)
    fire()
    fire()
    after = client.get("/schedules/tick").json
    assert (after["fired"], after["next_at"]) == (1, before["next_at"])
    (firing,) = after["last_firings"]
    assert (firing["kind"], firing["outcome"], firing["round"]) == ("scheduled", "fired", 0)
    job = client.get(f"/jobs/{firing['job_id']}").json
    assert (job["status"], job["task"], job["queue"]) == ("queued", "noop", "default")
    assert after["open_job_id"] == firing["job_id"]


def test_a_job_goes_the_way_of_a_submission(client, engine):
    job = {
        "payload": {"task": "noop"},
        "priority": 8,
        "tags": ["night"],
        "key": "acme",
        "max_retries": 7,
        "delay": 30,
    }
    put(client, job=job, time_key="for")
    set_back(engine)
    fire()
    (job_id,) = jobs_of(client)
    made = client.get(f"/jobs/{job_id}").json
    assert (made["priority"], made["tags"], made["key"], made["max_retries"]) == (8, ["night"], "acme", 7)
    assert made["payload"]["for"] == client.get("/schedules/tick").json["last_at"]
    assert made["run_at"] > made["created_at"]


def test_the_dispatcher_fires_and_sends_what_was_fired(client, engine, redis):
    put(client)
    set_back(engine)
    assert run_dispatch(runtime()) == 1
    (job_id,) = jobs_of(client)
    assert row_of(engine, UUID(job_id)).dispatched_at is not None


def test_any_number_of_processes_fire_each_time_once(client, engine):
    for number in range(120):
        put(client, f"s{number}", catch_up="all", overlap="allow_all")
    set_back(engine, 3)
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        fire()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    fire()
    assert count(engine, "SELECT count(*) FROM firings WHERE outcome = 'fired'") == 360
    assert count(engine, "SELECT count(*) FROM jobs") == 360
    assert count(engine, "SELECT count(DISTINCT job_id) FROM firings") == 360


def test_a_schedule_that_is_set_back_by_hand_fires_nothing_again(client, engine):
    put(client, overlap="allow_all")
    set_back(engine)
    fire()
    set_back(engine)
    fire()
    assert count(engine, "SELECT count(*) FROM jobs") == 1
    assert client.get("/schedules/tick").json["fired"] == 1


def test_a_schedule_cannot_go_back(client, engine):
    put(client)
    set_back(engine)
    fire()
    with pytest.raises(Exception, match="schedules_go_forward"), engine.begin() as connection:
        connection.execute(text("UPDATE schedules SET next_at = last_at"))


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("skip", ["missed"]),
        ("last", ["missed", "fired"]),
        ("all", ["fired", "fired", "fired", "fired"]),
    ],
)
def test_what_was_missed_is_caught_up_as_asked(client, engine, catch_up, expected):
    put(client, catch_up=catch_up, overlap="allow_all", grace=1)
    set_back(engine, 4)
    fire()
    # One of them may be late by less than a second.
    found = outcomes(client)
    assert found in (expected, [*expected[:-1], "fired"] if catch_up != "all" else expected)
    if catch_up == "all":
        times = [one["at"] for one in client.get("/schedules/tick/firings").json["items"]]
        assert times == sorted(times, reverse=True)


def test_a_job_that_would_be_refused_is_a_line_and_the_schedule_goes_on(client, engine, handle):
    name = handle(lambda _payload, _context: None, queue="elsewhere")
    put(client, job=JOB | {"queue": "elsewhere"})
    registry._handlers.pop(name)
    set_back(engine)
    fire()
    after = client.get("/schedules/tick").json
    (line,) = after["last_firings"]
    assert (line["outcome"], line["job_id"]) == ("refused", None)
    assert line["reason"].startswith("queue must")
    assert (after["state"], after["fired"]) == ("active", 0)
    assert client.get("/schedules/tick/explain").json["state"] == "refused"


def test_a_handler_that_moves_does_not_move_its_schedules(client, engine, handle):
    name = handle(lambda _payload, _context: None, queue="default")
    put(client, job={"payload": {"task": name}})
    registry._handlers[name] = replace(registry._handlers[name], queue="slow")
    set_back(engine)
    fire()
    assert client.get(f"/jobs/{jobs_of(client)[0]}").json["queue"] == "default"


def test_a_queue_that_is_full_refuses_and_the_schedule_goes_on(client, engine):
    assert client.put("/queues/default", json={"max_depth": 1}).status_code == 200
    put(client, "a")
    put(client, "b")
    runtime().book.forget()
    set_back(engine)
    fire()
    lines = [
        *client.get("/schedules/a/firings").json["items"],
        *client.get("/schedules/b/firings").json["items"],
    ]
    assert sorted(one["outcome"] for one in lines) == ["fired", "refused"]
    (reason,) = [one["reason"] for one in lines if one["outcome"] == "refused"]
    assert "max_depth" in reason or "full" in reason or "may be queued" in reason


def test_a_unique_key_that_is_held_has_a_time_be_passed_over(client, engine):
    put(client, job=JOB | {"unique": {"key": "only"}}, overlap="allow_all")
    set_back(engine)
    fire()
    next_hour(engine)
    fire()
    lines = client.get("/schedules/tick/firings").json["items"]
    assert [one["outcome"] for one in lines] == ["skipped", "fired"]
    assert lines[0]["reason"] == "another job holds its unique key"
    assert lines[0]["job_id"] == lines[1]["job_id"]
    assert count(engine, "SELECT count(*) FROM jobs") == 1


def test_a_unique_key_that_refuses_has_a_time_be_refused(client, engine):
    put(client, job=JOB | {"unique": {"key": "only", "on_conflict": "refuse"}}, overlap="allow_all")
    put(client, "other", job=JOB | {"unique": {"key": "only", "on_conflict": "refuse"}}, overlap="allow_all")
    set_back(engine)
    fire()
    assert sorted([*outcomes(client), *outcomes(client, "other")]) == ["fired", "refused"]


def test_a_paused_schedule_fires_nothing_and_goes_on_from_now(client, engine):
    put(client)
    paused = client.post("/schedules/tick/pause", json={"note": "moving", "by": "ada"}).json
    assert (paused["state"], paused["paused_by"], paused["pause_note"]) == ("paused", "ada", "moving")
    assert client.post("/schedules/tick/pause", json={"note": "again"}).json["pause_note"] == "moving"
    set_back(engine, 3)
    fire()
    assert outcomes(client) == []
    assert client.get("/schedules/tick/explain").json["state"] == "paused"
    resumed = client.post("/schedules/tick/resume").json
    assert resumed["state"] == "active"
    (line,) = resumed["last_firings"]
    assert (line["outcome"], line["round"]) == ("paused", -1)
    assert line["until"] > line["at"]
    fire()
    assert outcomes(client) == ["paused"]


def test_skip_passes_a_time_over_while_the_job_before_is_open(client, engine):
    put(client, overlap="skip")
    set_back(engine)
    fire()
    next_hour(engine)
    fire()
    assert outcomes(client) == ["fired", "skipped"]
    claim_and_complete(engine, jobs_of(client)[0])
    next_hour(engine)
    fire()
    assert outcomes(client) == ["fired", "skipped", "fired"]


def next_hour(engine):
    """Has the next time come: everything that was is an hour older."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE firings SET at = at - interval '1 hour', until = until - interval '1 hour'")
        )
        connection.execute(
            text("""UPDATE schedules SET next_at = next_at - interval '1 hour', due_at = due_at - interval '1 hour',
                           last_at = last_at - interval '1 hour'""")
        )


def test_what_waits_fires_when_the_job_before_has_ended(client, engine):
    put(client, overlap="buffer_one")
    set_back(engine)
    fire()
    for _ in range(2):
        next_hour(engine)
        fire()
    assert outcomes(client) == ["fired", "buffered", "skipped"]
    assert client.get("/schedules/tick/explain").json["state"] == "buffered"
    claim_and_complete(engine, jobs_of(client)[0])
    fire()
    assert outcomes(client) == ["fired", "fired", "skipped"]
    assert client.get("/schedules/tick").json["buffered"] == 0
    assert len(jobs_of(client)) == 2


def test_all_that_waits_takes_turns(client, engine):
    put(client, overlap="buffer_all")
    set_back(engine)
    fire()
    for _ in range(3):
        next_hour(engine)
        fire()
    assert outcomes(client) == ["fired", "buffered", "buffered", "buffered"]
    for turn in range(3):
        claim_and_complete(engine, jobs_of(client)[turn])
        fire()
        fire()
    assert outcomes(client) == ["fired"] * 4


def test_cancel_other_has_the_newest_time_take_the_place_of_what_waits(client, engine):
    put(client, overlap="cancel_other")
    set_back(engine)
    fire()
    first = claim(engine, jobs_of(client)[0])
    for _ in range(2):
        next_hour(engine)
        fire()
    assert outcomes(client) == ["fired", "skipped", "buffered"]
    assert count(engine, "SELECT count(*) FROM jobs WHERE cancel_requested_at IS NOT NULL") == 1
    with engine.begin() as connection:
        assert ends.end_attempt(connection, ends.cancelled(leased(connection, first), ERROR))
    fire()
    assert outcomes(client) == ["fired", "skipped", "fired"]


def leased(connection, claimed):
    """The lease of a claim, as presence has it."""
    (held,) = store.take_held_by(connection, ["host:1:boot/2"])
    assert held.id == claimed.id
    return held


def test_cancel_other_cancels_a_job_that_has_not_begun(client, engine):
    put(client, overlap="cancel_other")
    set_back(engine)
    fire()
    next_hour(engine)
    fire()
    fire()
    assert outcomes(client) == ["fired", "fired"]
    first, second = jobs_of(client)
    assert client.get(f"/jobs/{first}").json["status"] == "cancelled"
    assert client.get(f"/jobs/{second}").json["status"] == "queued"


def test_terminate_other_does_not_wait_for_a_job_to_stop(client, engine):
    put(client, overlap="terminate_other")
    set_back(engine)
    fire()
    claim(engine, jobs_of(client)[0])
    next_hour(engine)
    fire()
    assert outcomes(client) == ["fired", "buffered"]
    late = "SELECT count(*) FROM jobs WHERE cancel_requested_at < now() - interval '1 hour'"
    assert count(engine, late) == 1


def fail(engine, job_id):
    with engine.begin() as connection:
        (taken,) = store.claim(connection, [UUID(job_id)], worker_id="host:1:boot/2", lease=60.0)
        assert end_last(connection, taken, AttemptOutcome.FAILED, ERROR, reason=DeathReason.EXHAUSTED)
        assert move_to_dead_letters(connection, taken.id, taken.attempt)


def test_so_many_failures_in_a_row_pause_a_schedule(client, engine):
    put(client, pause_after_failures=2)
    set_back(engine)
    for turn in range(2):
        fire()
        fail(engine, jobs_of(client)[turn])
        next_hour(engine)
    fire()
    paused = client.get("/schedules/tick").json
    assert (paused["state"], paused["paused_by"]) == ("paused", "djps")
    assert paused["pause_note"] == "its last 2 jobs failed, and pause_after_failures is 2"
    # What failed before it was resumed does not count again.
    client.post("/schedules/tick/resume")
    next_hour(engine)
    fire()
    assert client.get("/schedules/tick").json["state"] == "active"
    assert len(jobs_of(client)) == 3


def test_a_schedule_that_raises_is_put_off_and_the_others_fire(client, engine, monkeypatch):
    put(client, "good")
    put(client, "bad")
    set_back(engine)
    before = schedule_store.record

    def raising(connection, entries, **given):
        if any(one.schedule.name == "bad" for one in entries):
            raise RuntimeError("broken")
        return before(connection, entries, **given)

    monkeypatch.setattr(schedule_store, "record", raising)
    fire()
    assert outcomes(client, "good") == ["fired"]
    assert outcomes(client, "bad") == []
    monkeypatch.undo()
    with engine.begin() as connection:
        connection.execute(text("UPDATE schedules SET due_at = next_at WHERE name = 'bad'"))
    fire()
    assert outcomes(client, "bad") == ["fired"]


def test_where_there_are_no_schedules_nothing_is_to_come(engine):
    assert runtime().firer.turn() is None


def test_jitter_puts_a_schedule_off_and_its_nominal_time_stays(client, engine):
    shown = put(client, jitter=50)
    assert shown["due_at"] >= shown["next_at"]
    set_back(engine, 2)
    fire()
    line = client.get("/schedules/tick/firings", query_string={"outcome": "fired"}).json["items"][0]
    assert line["at"].endswith(":00:00Z")


def test_a_schedule_that_has_fired_often_enough_ends(client, engine):
    put(client, max_firings=1)
    set_back(engine)
    fire()
    after = client.get("/schedules/tick").json
    assert (after["state"], after["next_times"]) == ("ended", [])
    assert client.get("/schedules/tick/explain").json["state"] == "ended"
    assert [one["name"] for one in client.get("/schedules?state=ended").json["items"]] == ["tick"]


def test_firings_that_are_too_many_are_pruned_and_not_fired_again(client, engine, monkeypatch):
    put(client, overlap="allow_all", catch_up="all")
    set_back(engine, 5)
    fire()
    monkeypatch.setattr(schedule_store, "FIRINGS_KEPT", 2)
    total = len(outcomes(client))
    assert run_firing_prune(runtime(), 5.0) == total - 2
    assert len(outcomes(client)) == 2
    first = client.get("/schedules/tick").json["created_at"][:8] + "01T00:00:00Z"
    now = client.get("/schedules/tick").json["last_at"]
    body = {"from": first, "to": now}
    refused = client.post("/schedules/tick/backfill", json=body)
    assert refused.status_code == 422
    assert refused.json["errors"][0]["field"] == "from"


def test_old_firings_are_pruned(client, engine):
    put(client)
    set_back(engine)
    fire()
    with engine.begin() as connection:
        connection.execute(text("UPDATE firings SET fired_at = now() - interval '400 days'"))
    assert run_firing_prune(runtime(), 5.0) == (1 if runtime().settings.retention_days else 0)


def test_new_rules_of_time_zones_have_times_be_computed_anew(client, engine):
    before = put(client, cron="30 2 * * *", zone="Europe/Berlin")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE schedules SET tz_version = '1999.1', next_at = next_at + interval '1 hour', due_at = due_at + interval '1 hour'"
            )
        )
    assert run_renewal(runtime()) == 1
    assert client.get("/schedules/tick").json["next_at"] == before["next_at"]
    assert run_renewal(runtime()) == 0
