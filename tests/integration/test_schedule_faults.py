"""What becomes of schedules when something is not as it should be: they are put off, moved on, or said to be late, and none is lost."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID

import pytest
from scheduled import JOB, count, fire, jobs_of, outcomes, put, set_back
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from tasks.runtime import runtime
from tasks.sweeps.dispatch import run_dispatch
from webapp.jobs.handlers import registry
from webapp.schedules import firer, firing, runs
from webapp.schedules.firer import Firer


def change(engine, what):
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE schedules SET {what}"))  # noqa: S608 - it is of this file


def test_a_schedule_that_no_one_looks_at_is_said_to_be_overdue(client, engine):
    put(client)
    set_back(engine)
    explained = client.get("/schedules/tick/explain").json
    assert explained["state"] == "overdue"
    assert explained["facts"]["maintenance_workers"] == 0
    assert "no worker of the maintenance queue lives" in explained["sentence"]
    assert "djps_schedules_overdue 1.0" in client.get("/metrics").text
    fire()
    assert client.get("/schedules/tick/explain").json["state"] == "blocked_by"


def test_a_schedule_whose_times_cannot_be_computed_is_put_off(client, engine, monkeypatch):
    put(client)
    set_back(engine)

    def broken(*_given):
        raise ValueError("broken")

    monkeypatch.setattr(firing, "decide", broken)
    fire()
    assert outcomes(client) == []
    assert count(engine, "SELECT extract(epoch FROM due_at - now()) BETWEEN 50 AND 60 FROM schedules") == 1
    monkeypatch.undo()
    change(engine, "due_at = next_at")
    fire()
    assert outcomes(client) == ["fired"]


def test_a_time_that_there_is_no_more_is_passed_by(client, engine):
    before = put(client, cron="0 0 1 1 *")
    change(engine, "next_at = now() - interval '1 hour', due_at = now() - interval '1 hour'")
    fire()
    after = client.get("/schedules/tick").json
    assert (after["next_at"], after["fired"], after["last_firings"]) == (before["next_at"], 0, [])


def test_one_that_says_that_something_waits_and_has_nothing_is_put_right(client, engine):
    put(client)
    change(engine, "buffered = 3")
    fire()
    assert client.get("/schedules/tick").json["buffered"] == 0


def test_what_waits_may_be_refused_when_its_turn_has_come(client, engine, handle):
    name = handle(lambda _payload, _context: None, queue="elsewhere")
    put(client, overlap="buffer_all", job=JOB | {"queue": "elsewhere"})
    set_back(engine, 2)
    fire()
    assert outcomes(client) == ["fired", "buffered"]
    client.post(f"/jobs/{jobs_of(client)[0]}/cancel")
    registry._handlers.pop(name)
    fire()
    assert outcomes(client) == ["fired", "refused"]
    assert client.get("/schedules/tick").json["buffered"] == 0


def test_a_turn_ends_after_its_time_and_says_that_there_is_more(client, engine, monkeypatch):
    for number in range(4):
        put(client, f"s{number}")
    set_back(engine)
    monkeypatch.setattr(firer, "BATCH", 1)
    moments = iter([0.0, 0.1, 10.0])
    turning = Firer(engine, runtime().firer._maker, lambda: next(moments))
    assert turning.turn() == 0.0
    assert count(engine, "SELECT count(*) FROM firings") == 2
    monkeypatch.undo()
    fire()
    assert count(engine, "SELECT count(*) FROM firings") == 4


def test_waiting_schedules_take_turns_in_being_looked_at(client, engine):
    for number in range(5):
        put(client, f"s{number}", overlap="buffer_all")
    set_back(engine, 2)
    fire()
    for number in range(5):
        client.post(f"/jobs/{jobs_of(client, f's{number}')[0]}/cancel")
    turning = runtime().firer
    assert [turning.release(2) for _ in range(3)] == [2, 2, 1]
    assert count(engine, "SELECT sum(buffered) FROM schedules") == 0


def test_a_database_that_is_away_is_said_and_not_worked_around(closed_port):
    away = create_engine(f"postgresql+psycopg2://djps@127.0.0.1:{closed_port}/djps")
    with pytest.raises(SQLAlchemyError):
        Firer(away, runtime().firer._maker).turn()


def test_a_schedule_fires_while_a_pass_of_the_dispatcher_goes_on(client, engine):
    """Not only at its beginning: the pass wakes for it."""
    put(client, every=1)
    run_dispatch(runtime(), 1.5)
    assert count(engine, "SELECT count(*) FROM firings") >= 1
    late = "SELECT max(extract(epoch FROM fired_at - at)) < 0.5 FROM firings"
    assert count(engine, late) == 1


def test_a_backfill_that_is_long_goes_on_where_it_ended(client, engine, monkeypatch):
    monkeypatch.setattr(runs, "BATCH", 2)
    monkeypatch.setattr(runs, "WINDOW", -1.0)
    put(client, "hourly", cron="0 * * * *")
    body = {"from": "2026-10-01T00:00:00Z", "to": "2026-10-01T04:00:00Z"}
    fired = []
    while True:
        answer = client.post("/schedules/hourly/backfill", json=body).json
        fired.append(answer["fired"])
        if not answer["more"]:
            break
        body = body | {"from": answer["next_from"]}
    assert fired == [2, 2, 1]
    monkeypatch.setattr(runs, "WINDOW", 60.0)
    again = client.post("/schedules/hourly/backfill", json=body | {"from": "2026-10-01T00:00:00Z"}).json
    assert (again["matched"], again["fired"], again["existing"], again["more"]) == (5, 0, 5, False)


def test_a_schedule_that_is_not_paused_is_resumed_to_no_effect(client):
    before = put(client)
    assert client.post("/schedules/tick/resume").json["next_at"] == before["next_at"]
    client.post("/schedules/tick/pause")
    paused = client.get("/schedules/tick").json
    assert paused["next_times"] == before["next_times"]
    resumed = client.post("/schedules/tick/resume").json
    assert (resumed["next_at"], resumed["last_firings"]) == (before["next_at"], [])


def test_a_schedule_that_has_ended_has_no_times_and_may_go_on(client, engine):
    put(client, max_firings=1)
    set_back(engine)
    fire()
    assert client.get("/schedules/tick/next").json["times"] == []
    client.post("/schedules/tick/pause")
    assert client.post("/schedules/tick/resume").json["state"] == "ended"
    assert put(client, max_firings=2)["state"] == "active"
    assert len(put(client, max_firings=3)["next_times"]) == 2


def test_old_versions_are_forgotten(client, monkeypatch):
    from webapp.schedules import listing  # noqa: PLC0415 - only here

    monkeypatch.setattr(listing, "VERSIONS_KEPT", 2)
    for number in range(4):
        put(client, grace=100 + number)
    versions = [one["version"] for one in client.get("/schedules/tick/versions").json["items"]]
    assert versions == [4, 3]


def test_a_job_that_is_gone_holds_no_time_back(client, engine):
    put(client)
    change(engine, f"open_job_id = '{UUID(int=7)}'")
    set_back(engine)
    fire()
    assert outcomes(client) == ["fired"]


def test_so_many_times_are_caught_up_in_one_transaction_and_the_rest_in_the_next(client, engine, monkeypatch):
    monkeypatch.setattr(firing, "MOST_FIRINGS", 5)
    for number in range(4):
        put(client, f"s{number}", catch_up="all", overlap="allow_all")
    set_back(engine, 3)
    assert [runtime().firer.fire() for _ in range(3)] == [2, 2, 0]
    assert count(engine, "SELECT count(*) FROM jobs") == 12


def test_an_edit_of_a_paused_schedule_keeps_what_came_meanwhile_on_record(client, engine):
    put(client)
    client.post("/schedules/tick/pause")
    set_back(engine, 2)
    put(client, grace=70)
    assert outcomes(client) == ["paused"]
    client.post("/schedules/tick/resume")
    assert outcomes(client) == ["paused"]


def test_jobs_that_schedules_cancel_are_counted(client, engine):
    def cancelled():
        return float(re.search(r"^jobs_cancelled_total (\S+)", client.get("/metrics").text, re.MULTILINE)[1])

    before = cancelled()
    put(client, overlap="cancel_other", grace=1, catch_up="last")
    client.post("/schedules/tick/run")
    client.post("/schedules/tick/run")
    fire()
    assert outcomes(client) == ["fired", "fired"]
    assert cancelled() == before + 1


def test_schedules_that_cannot_be_worked_on_together_are_worked_on_one_by_one(client, engine, monkeypatch):
    for number in range(3):
        put(client, f"s{number}", overlap="buffer_all")
    set_back(engine, 2)
    fire()
    for number in range(3):
        client.post(f"/jobs/{jobs_of(client, f's{number}')[0]}/cancel")
    before = firing.release

    def raising(connection, maker, taken):
        if len(taken) > 1 or taken[0].schedule.name == "s1":
            raise RuntimeError("broken")
        return before(connection, maker, taken)

    monkeypatch.setattr(firing, "release", raising)
    assert runtime().firer.release() == 3
    assert [outcomes(client, f"s{number}")[-1] for number in range(3)] == ["fired", "buffered", "fired"]


def test_a_handler_that_raises_when_it_looks_at_a_payload_is_a_refusal(client, engine, handle):
    name = handle(lambda _payload, _context: None)
    put(client, job={"payload": {"task": name}})

    class Broken:
        def __getattr__(self, _name):
            raise ZeroDivisionError

    registry._handlers[name] = Broken()
    set_back(engine)
    try:
        fire()
    finally:
        registry._handlers.pop(name)
    (line,) = client.get("/schedules/tick/firings").json["items"]
    assert (line["outcome"], line["reason"]) == ("refused", "the job could not be made (ZeroDivisionError)")


def test_a_clock_that_goes_back_fires_nothing_again(client, engine):
    put(client, overlap="allow_all")
    set_back(engine)
    fire()
    ahead = timedelta(days=400)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE schedules SET next_at = next_at + :by, due_at = due_at + :by, last_at = last_at + :by"
            ),
            {"by": ahead},
        )
    fire()
    assert outcomes(client) == ["fired"]
    assert client.get("/schedules/tick/explain").json["state"] == "waiting_until"
