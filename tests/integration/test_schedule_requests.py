"""Schedules over HTTP and on the command line: what is taken, what is refused with one sentence, and what is on record."""

from __future__ import annotations

import json
import threading

import pytest
from scheduled import JOB, count, fire, jobs_of, outcomes, put, set_back

from webapp.access.model import NewKey, Scope

NIGHTLY = {"cron": "30 2 * * *", "zone": "Europe/Berlin", "job": JOB}


def test_a_schedule_is_made_changed_and_deleted(client, engine):
    made = client.put("/schedules/nightly", json=NIGHTLY)
    assert (made.status_code, made.headers["ETag"], made.json["version"]) == (201, '"1"', 1)
    assert made.json["words"] == "At 02:30 every day, Europe/Berlin"
    assert len(made.json["next_times"]) == 5
    same = client.put("/schedules/nightly", json=NIGHTLY)
    assert (same.status_code, same.json["version"]) == (200, 1)
    changed = client.put(
        "/schedules/nightly", json=NIGHTLY | {"cron": "@daily", "why": "earlier"}, headers={"If-Match": '"1"'}
    )
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    versions = client.get("/schedules/nightly/versions").json["items"]
    assert [(one["version"], one["why"], one["spec"]["cron"]) for one in versions] == [
        (2, "earlier", "0 0 * * *"),
        (1, None, "30 2 * * *"),
    ]
    assert client.delete("/schedules/nightly", headers={"If-Match": '"1"'}).status_code == 412
    assert client.delete("/schedules/nightly", headers={"If-Match": '"2"'}).status_code == 204
    assert client.get("/schedules/nightly").status_code == 404
    assert count(engine, "SELECT count(*) FROM schedule_versions") == 0


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"If-Match": '"7"'}, "If-Match must be its ETag"),
        ({"If-None-Match": "*"}, "If-None-Match must be left out"),
    ],
)
def test_a_schedule_that_is_not_as_the_request_says_stays_as_it_is(client, headers, sentence):
    client.put("/schedules/nightly", json=NIGHTLY)
    refused = client.put("/schedules/nightly", json=NIGHTLY | {"cron": "@hourly"}, headers=headers)
    assert refused.status_code == 412
    assert sentence in refused.json["detail"]
    assert client.get("/schedules/nightly").json["version"] == 1
    missing = client.put("/schedules/none", json=NIGHTLY, headers={"If-Match": '"1"'})
    assert (missing.status_code, client.get("/schedules/none").status_code) == (412, 404)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (NIGHTLY | {"zone": "Berlin"}, "zone"),
        (NIGHTLY | {"zone": "CET"}, "zone"),
        (NIGHTLY | {"cron": "0 0 31 2 *"}, "cron"),
        (NIGHTLY | {"cron": "61 * * * *"}, "cron"),
        (NIGHTLY | {"every": 60}, "every"),
        ({"job": JOB}, "every"),
        ({"every": 60}, "job"),
        ({"every": 60, "job": {"payload": {}, "idempotency_key": "k"}}, "job.idempotency_key"),
        ({"every": 60, "job": JOB | {"queue": "nowhere"}}, "job.queue"),
        ({"every": 60, "workflow": {"steps": {}}, "job": JOB}, "workflow"),
        ({"every": 60, "job": JOB, "catch_up": "some"}, "catch_up"),
        ({"every": 60, "job": JOB, "catch_up": "all", "overlap": "cancel_other"}, "overlap"),
        (
            {"every": 60, "job": JOB, "end_at": "2020-01-01T00:00:00Z", "start_at": "2021-01-01T00:00:00Z"},
            "end_at",
        ),
        ({"every": 60, "job": JOB, "start_at": "0001-01-01T00:00:00Z"}, "start_at"),
        ({"every": 60, "job": JOB, "end_at": "9999-12-31T23:59:59Z"}, "end_at"),
        ({"every": 60, "job": JOB, "time_key": "task"}, "time_key"),
        ({"every": 60, "job": JOB, "grace": 0}, "grace"),
        ({"every": 60, "job": JOB, "colour": "red"}, "colour"),
    ],
)
def test_a_field_that_breaks_a_rule_is_named_and_nothing_is_made(client, engine, spec, field):
    refused = client.put("/schedules/nightly", json=spec)
    assert refused.status_code == 422
    assert refused.json["errors"][0]["field"] == field
    assert count(engine, "SELECT count(*) FROM schedules") == 0
    assert count(engine, "SELECT count(*) FROM audit_events") == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/schedules/none", None),
        ("DELETE", "/schedules/none", None),
        ("POST", "/schedules/none/pause", {}),
        ("POST", "/schedules/none/resume", {}),
        ("POST", "/schedules/none/run", {}),
        ("POST", "/schedules/none/backfill", {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}),
        ("GET", "/schedules/none/firings", None),
        ("GET", "/schedules/none/versions", None),
        ("GET", "/schedules/none/next", None),
        ("GET", "/schedules/none/explain", None),
    ],
)
def test_a_schedule_that_there_is_not(client, method, path, body):
    answer = client.open(path, method=method, **({} if body is None else {"json": body}))
    assert answer.status_code == 404
    assert "there is no schedule 'none'" in answer.json["detail"]


def test_a_name_that_cannot_be_shown_is_refused(client):
    answer = client.put("/schedules/%20x", json=NIGHTLY)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "name")
    assert client.put(f"/schedules/{'x' * 201}", json=NIGHTLY).status_code == 422
    client.put("/schedules/x", json=NIGHTLY)
    assert client.get("/schedules/x/firings?before=yesterday").status_code == 422


def test_of_fifty_changes_of_one_version_one_is_made(app, client):
    client.put("/schedules/nightly", json=NIGHTLY)
    statuses, barrier = [], threading.Barrier(10)

    def change(number):
        barrier.wait()
        for turn in range(5):
            spec = NIGHTLY | {"grace": 100 + number * 5 + turn}
            answer = app.test_client().put("/schedules/nightly", json=spec, headers={"If-Match": '"1"'})
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(10)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (statuses.count(200), statuses.count(412)) == (1, 49)
    assert [one["version"] for one in client.get("/schedules/nightly/versions").json["items"]] == [2, 1]


def test_ten_requests_that_make_one_schedule_make_one(app, client):
    statuses, barrier = [], threading.Barrier(10)

    def make():
        barrier.wait()
        statuses.append(app.test_client().put("/schedules/nightly", json=NIGHTLY).status_code)

    threads = [threading.Thread(target=make) for _ in range(10)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(statuses) == [200] * 9 + [201]
    assert client.get("/schedules/nightly").json["version"] == 1


def test_an_edit_at_the_moment_of_a_time_fires_it_once(client, engine):
    put(client)
    set_back(engine)
    put(client, grace=61)
    fire()
    assert outcomes(client) == ["fired"]
    (line,) = client.get("/schedules/tick/firings").json["items"]
    assert line["version"] == 1
    assert client.get("/schedules/tick").json["version"] == 2


def test_a_run_by_hand_is_a_firing_and_leaves_the_times(client):
    before = put(client)
    ran = client.post("/schedules/tick/run", json={"why": "at once", "by": "ada"})
    assert (ran.status_code, ran.json["kind"], ran.json["outcome"]) == (200, "manual", "fired")
    assert client.get(f"/jobs/{ran.json['job_id']}").json["status"] == "queued"
    second = client.post("/schedules/tick/run")
    assert (second.json["outcome"], second.json["job_id"]) == ("skipped", None)
    third = client.post("/schedules/tick/run", json={"overlap": "allow_all"})
    assert third.json["outcome"] == "fired"
    after = client.get("/schedules/tick").json
    assert (after["next_at"], after["fired"]) == (before["next_at"], 0)
    client.post("/schedules/tick/pause")
    assert client.post("/schedules/tick/run", json={"overlap": "allow_all"}).json["outcome"] == "fired"


def hours(client, **more):
    body = {"from": "2026-10-01T00:00:00Z", "to": "2026-10-30T23:59:59Z"} | more
    answer = client.post("/schedules/hourly/backfill", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_a_backfill_fires_each_time_once_however_often_it_is_sent(client, engine):
    put(client, "hourly", cron="0 * * * *")
    first = hours(client, to="2026-10-01T23:00:00Z")
    assert (first["matched"], first["fired"], first["existing"]) == (24, 24, 0)
    assert hours(client, dry_run=True) == {
        "matched": 720,
        "fired": 696,
        "existing": 24,
        "refused": 0,
        "more": False,
        "next_from": None,
    }
    assert count(engine, "SELECT count(*) FROM jobs") == 24
    rest = hours(client)
    assert (rest["matched"], rest["fired"], rest["existing"]) == (720, 696, 24)
    again = hours(client)
    assert (again["matched"], again["fired"], again["existing"]) == (720, 0, 720)
    assert count(engine, "SELECT count(*) FROM jobs") == 720
    more = hours(client, to="2026-10-01T02:00:00Z", again=True)
    assert (more["fired"], more["existing"]) == (3, 0)
    rounds = {one["round"] for one in client.get("/schedules/hourly/firings?limit=1000").json["items"]}
    assert rounds == {0, 1}


def test_a_backfill_keeps_its_rate(client, engine):
    put(client, "hourly", cron="0 * * * *")
    hours(client, to="2026-10-01T09:00:00Z", rate=10)
    spread = count(engine, "SELECT round(extract(epoch FROM max(run_at) - min(run_at)) * 1000) FROM jobs")
    assert spread == 900
    assert client.get("/schedules/hourly").json["open_job_id"] is None


def test_a_backfill_fires_what_was_passed_over(client, engine):
    put(client)
    set_back(engine)
    fire()
    line = client.get("/schedules/tick/firings").json["items"][0]
    from sqlalchemy import text  # noqa: PLC0415 - only here

    with engine.begin() as connection:
        connection.execute(text("UPDATE firings SET outcome = 'skipped', job_id = NULL"))
    body = {"from": line["at"], "to": line["at"]}
    assert client.post("/schedules/tick/backfill", json=body).json["fired"] == 1
    assert outcomes(client) == ["fired"]
    assert len(jobs_of(client)) == 1


def test_a_backfill_of_what_has_not_come_is_refused(client):
    put(client)
    for body, field in (
        ({"from": "2026-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z"}, "to"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "to"),
        ({"from": "now", "to": "2026-01-01T00:00:00Z"}, "from"),
    ):
        refused = client.post("/schedules/tick/backfill", json=body)
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, field)


def test_a_preview_is_what_would_fire_and_keeps_nothing(client, engine):
    body = {"cron": "30 2 * * *", "zone": "Europe/Berlin", "after": "2026-03-28T00:00:00Z", "count": 2}
    answer = client.post("/schedules/preview", json=body).json
    assert [one["at"] for one in answer["times"]] == ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"]
    assert answer["times"][1]["local"] == "2026-03-29T03:00:00+02:00"
    for after in ("1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z"):
        for timing in ({"every": 366 * 86_400}, {"cron": "0 0 29 2 1", "zone": "Pacific/Apia"}):
            assert len(client.post("/schedules/preview", json={"after": after, **timing}).json["times"]) == 10
    assert (
        client.post("/schedules/preview", json={"every": 1, "after": "0001-01-01T00:00:00Z"}).status_code
        == 422
    )
    put(client, cron="0 6 * * *")
    times = [one["at"] for one in client.get("/schedules/tick/next?count=3").json["times"]]
    shown = client.get("/schedules/tick").json
    assert times == shown["next_times"][:3]
    assert count(engine, "SELECT count(*) FROM schedules") == 1


def test_schedules_are_listed_in_pages(client):
    for number in range(5):
        put(client, f"s{number}")
    client.post("/schedules/s3/pause")
    first = client.get("/schedules?limit=2").json
    assert [one["name"] for one in first["items"]] == ["s0", "s1"]
    rest = client.get(f"/schedules?limit=10&cursor={first['next_cursor']}").json
    assert ([one["name"] for one in rest["items"]], rest["next_cursor"]) == (["s2", "s3", "s4"], None)
    assert [one["name"] for one in client.get("/schedules?state=paused").json["items"]] == ["s3"]


def test_firings_are_listed_in_pages(client, engine):
    put(client, "hourly", cron="0 * * * *")
    hours(client, to="2026-10-01T09:00:00Z")
    first = client.get("/schedules/hourly/firings?limit=4").json
    second = client.get(f"/schedules/hourly/firings?limit=100&before={first['next_cursor']}").json
    times = [one["at"] for one in first["items"] + second["items"]]
    assert (len(times), times) == (10, sorted(times, reverse=True))


def test_each_act_is_on_record(client):
    put(client)
    put(client, grace=61)
    client.post("/schedules/tick/pause", json={"note": "moving"})
    client.post("/schedules/tick/pause")
    client.post("/schedules/tick/resume")
    client.post("/schedules/tick/run")
    client.post(
        "/schedules/tick/backfill",
        json={"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T02:00:00Z", "why": "lost"},
    )
    client.delete("/schedules/tick")
    events = client.get("/audit?target=schedule:tick").json["items"]
    assert [one["event"] for one in reversed(events)] == [
        *("schedule.put", "schedule.put", "schedule.pause", "schedule.resume"),
        *("schedule.run", "schedule.backfill", "schedule.delete"),
    ]
    assert (events[1]["matched"], events[1]["changed"], events[1]["reason"]) == (3, 3, "lost")


def test_who_may_not_see_what_jobs_carry_sees_schedules_without_it(another_app):
    app = another_app(api_auth="keys")
    access, client = app.extensions["access"], app.test_client()
    boss = access.create(NewKey("boss", None, tuple(Scope)), by=None)
    viewer = access.create(NewKey("viewer", None, (Scope.SCHEDULES_READ,)), by=None)
    app.extensions["doorkeeper"].book.forget()
    job = {"payload": {"task": "noop", "card": "4111"}, "callback_url": "https://example.org/?key=secret"}
    as_boss = {"Authorization": f"Bearer {boss.secret}"}
    made = client.put("/schedules/tick", json={"every": 60, "job": job}, headers=as_boss)
    assert made.json["spec"]["job"]["payload"]["card"] == "4111"
    headers = {"Authorization": f"Bearer {viewer.secret}"}
    for path in ("/schedules/tick", "/schedules/tick/versions", "/schedules"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200
        assert "4111" not in answer.text
        assert "secret" not in answer.text
        # A list shows no jobs at all.
        assert ('"redacted":true' in answer.text) == path.startswith("/schedules/")
    assert client.post("/schedules/tick/run", headers=headers).status_code == 403


def test_a_name_that_belongs_to_another_queue_is_taken(another_app, handle):
    app = another_app(api_auth="keys")
    handle(lambda _payload, _context: None, queue="video")
    access, client = app.extensions["access"], app.test_client()
    may = (Scope.SCHEDULES_READ, Scope.SCHEDULES_MANAGE)
    mine, theirs = (
        access.create(NewKey(name, None, may, queues=(name,)), by=None) for name in ("video", "default")
    )
    app.extensions["doorkeeper"].book.forget()

    def ask(key, method, path, **given):
        return client.open(path, method=method, headers={"Authorization": f"Bearer {key.secret}"}, **given)

    assert ask(theirs, "PUT", "/schedules/tick", json={"every": 60, "job": JOB}).status_code == 201
    video = {"every": 60, "job": JOB | {"queue": "video"}}
    assert ask(mine, "PUT", "/schedules/tick", json=video).status_code == 409
    assert ask(mine, "GET", "/schedules/tick").status_code == 404
    assert ask(mine, "PUT", "/schedules/other", json={"every": 60, "job": JOB}).status_code == 403
    assert ask(mine, "PUT", "/schedules/other", json=video).status_code == 201
    assert [one["name"] for one in ask(mine, "GET", "/schedules").json["items"]] == ["other"]


@pytest.fixture
def command(app):
    """Gives a command of `flask --app wsgi schedules`."""
    runner = app.test_cli_runner()

    def give(*words, code=0):
        done = runner.invoke(args=["schedules", *map(str, words)])
        assert done.exit_code == code, done.output
        return done.output

    return give


FILE = """
[schedules.nightly]
cron = "30 2 * * *"
zone = "Europe/Berlin"
job.payload = {task = "noop"}

[schedules.tick]
every = 60
job.payload.task = "noop"
"""


def test_a_file_is_applied_again_and_again_and_makes_one_version(command, client, tmp_path):
    file = tmp_path / "schedules.toml"
    file.write_text(FILE)
    assert "2 would be changed" in command("apply", file, "--dry-run")
    assert client.get("/schedules").json["items"] == []
    assert "2 were changed" in command("apply", file)
    for _ in range(3):
        assert "0 were changed" in command("apply", file)
    file.write_text(FILE.replace("60", "90"))
    assert "schedule 'tick': version 2" in command("apply", file)
    file.write_text(json.dumps({"schedules": {"tick": {"every": 90, "job": JOB}}}))
    as_json = file.rename(tmp_path / "schedules.json")
    assert "schedule 'nightly': would be deleted" in command("apply", as_json, "--delete", "--dry-run")
    assert "schedule 'nightly': deleted" in command("apply", as_json, "--delete")
    assert [one["name"] for one in client.get("/schedules").json["items"]] == ["tick"]


def test_a_file_with_a_fault_changes_nothing(command, client, tmp_path):
    file = tmp_path / "schedules.toml"
    file.write_text(FILE.replace("Europe/Berlin", "Berlin"))
    assert "schedules.nightly.zone: must be an IANA name" in command("apply", file, code=2)
    file.write_text(FILE.replace("nightly", '"nightly/report"'))
    assert "must not contain /" in command("apply", file, code=2)
    file.write_text("[schedules")
    command("apply", file, code=2)
    command("apply", tmp_path / "none.toml", code=2)
    assert client.get("/schedules").json["items"] == []


def test_the_commands_say_what_the_api_says(command, client, engine):
    put(client, overlap="allow_all")
    set_back(engine)
    fire()
    assert "tick" in command("list")
    assert json.loads(command("list", "--json"))["items"][0]["name"] == "tick"
    assert json.loads(command("show", "tick", "--json"))["fired"] == 1
    assert "Every 3600 seconds" in command("show", "tick")
    assert "scheduled" in command("firings", "tick")
    assert len(json.loads(command("firings", "tick", "--json"))["items"]) == 1
    assert len(json.loads(command("versions", "tick", "--json"))["items"]) == 1
    assert "version" in command("versions", "tick")
    assert len(json.loads(command("next", "tick", "--count", 3, "--json"))["times"]) == 3
    assert "local" in command("next", "tick")
    assert "01:00:00Z" in command("preview", "--cron", "0 1 * * *", "--count", 1)
    assert "It fires at" in command("explain", "tick")
    assert json.loads(command("explain", "tick", "--json"))["state"] == "waiting_until"
    assert "fired" in command("run", "tick", "--why", "at once")
    assert json.loads(command("run", "tick", "--json"))["kind"] == "manual"
    times = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T02:00:00Z")
    assert "3 of 3 would fire" in command("backfill", "tick", *times, "--dry-run")
    assert json.loads(command("backfill", "tick", *times, "--json"))["fired"] == 3
    assert "is paused" in command("pause", "tick", "--note", "moving")
    assert json.loads(command("resume", "tick", "--json"))["state"] == "active"
    assert "1 were paused" in command("pause", "--all")
    assert "1 were resumed" in command("resume", "--all")
    command("pause", code=2)
    command("show", "none", code=4)
    command("firings", "tick", "--before", "x", code=2)
    assert "is deleted" in command("delete", "tick")
    assert "no schedules" in command("list")
