"""Pausing queues and tasks over HTTP, and what is on record of it."""

from __future__ import annotations

import json

import pytest
from factories import claimed, queued
from sqlalchemy import text

from tasks.sweeps.prune import run_change_prune


def paused_of(client, path="/queues/default"):
    return client.get(path).json["paused"]


@pytest.mark.parametrize("path", ["/queues/default", "/tasks/noop"])
def test_a_pause_says_who_and_why_until_it_is_resumed(client, path):
    assert client.get(path).headers["ETag"] == '"0"'
    answer = client.post(f"{path}/pause", json={"by": "ada", "why": "maintenance"})
    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    shown = client.get(path).json
    assert {name: shown[name] for name in ("paused", "paused_by", "paused_why", "version")} == {
        "paused": True,
        "paused_by": "ada",
        "paused_why": "maintenance",
        "version": 1,
    }
    assert shown["paused_at"] == answer.json["paused_at"] is not None
    resumed = client.post(f"{path}/resume", json={"by": "bob"}).json
    assert (resumed["paused"], resumed["paused_at"], resumed["paused_by"], resumed["version"]) == (
        *(False, None, None),
        2,
    )
    assert client.get(path).json["paused"] is False


def test_without_a_name_the_callers_address_is_on_record(client):
    assert client.post("/queues/default/pause").json["paused_by"] == "127.0.0.1"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_asking_twice_changes_nothing(client, verb):
    client.post("/queues/default/pause", json={"why": "first"})
    client.post(f"/queues/default/{verb}", json={"why": "second"})
    again = client.post(f"/queues/default/{verb}", json={"why": "third"})
    before = client.get("/queues/default").json
    assert again.json["version"] == before["version"] == (1 if verb == "pause" else 2)
    assert before["paused_why"] == ("first" if verb == "pause" else None)
    assert len(client.get("/flow/changes").json["items"]) == before["version"]


@pytest.mark.parametrize(("kind", "name"), [("queues", "mial"), ("tasks", "nope"), ("queues", "maintenance")])
@pytest.mark.parametrize("verb", ["", "/pause", "/resume"])
def test_what_does_not_exist_is_not_found_and_what_exists_is_named(client, kind, name, verb):
    path = f"/{kind}/{name}{verb}"
    answer = client.post(path) if verb else client.get(path)
    assert answer.status_code == 404
    assert f"there is no {kind[:-1]} {name!r}; there are " in answer.json["detail"]
    assert ("default" if kind == "queues" else "noop") in answer.json["detail"]
    assert client.get("/flow/changes").json["items"] == []


def test_a_queue_whose_handlers_are_gone_can_still_be_resumed(client, engine):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO queues (name, paused_at) VALUES ('old', now())"))
    assert client.post("/queues/old/resume").json["paused"] is False


@pytest.mark.parametrize("path", ["/queues/default", "/tasks/noop"])
def test_a_stale_version_changes_nothing(client, path):
    client.post(f"{path}/pause", headers={"If-Match": '"0"'})
    stale = client.post(f"{path}/resume", headers={"If-Match": '"0"'})
    assert stale.status_code == 412
    assert 'If-Match must be its ETag, "1"; given: "0"' in stale.json["detail"]
    assert paused_of(client, path) is True
    assert client.post(f"{path}/resume", headers={"If-Match": '"1"'}).status_code == 200
    assert paused_of(client, path) is False


def test_a_stale_version_leaves_no_row(client, engine):
    assert client.post("/queues/default/pause", headers={"If-Match": '"4"'}).status_code == 412
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM queues")).scalar_one() == 0


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"why": 17}, "why: must be a string (given: 17)"),
        ({"why": "x" * 501}, "why: must have at most 500 characters"),
        ({"why": ""}, "why: must have at least 1 characters"),
        ({"reason": "x"}, "reason: is not a field of this request (given: 'x')"),
    ],
)
def test_a_wrong_body_changes_nothing(client, body, detail):
    answer = client.post("/queues/default/pause", json=body)
    assert answer.status_code == 422
    assert detail in answer.json["detail"]
    assert paused_of(client) is False


def test_changes_are_on_record_and_paged(client):
    for number in range(3):
        client.post("/queues/default/pause", json={"by": "ada", "why": str(number)})
        client.post("/queues/default/resume", json={"by": "bob", "why": str(number)})
    client.post("/tasks/noop/pause")
    first = client.get("/flow/changes?limit=4").json
    assert [(one["target"], one["why"], one["new"]["paused"]) for one in first["items"]] == [
        ("tasks/noop", None, True),
        ("queues/default", "2", False),
        ("queues/default", "2", True),
        ("queues/default", "1", False),
    ]
    rest = client.get("/flow/changes", query_string={"limit": 4, "cursor": first["next_cursor"]}).json
    assert [one["who"] for one in rest["items"]] == ["ada", "bob", "ada"]
    assert rest["next_cursor"] is None
    one = client.get("/flow/changes?target=tasks/noop").json["items"]
    assert [(change["old"], change["new"]) for change in one] == [({"paused": False}, {"paused": True})]


def test_changes_go_when_they_are_as_old_as_jobs_may_be(client, engine, parts):
    client.post("/queues/default/pause")
    client.post("/queues/default/resume")
    days = parts.settings.retention_days
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE flow_changes SET at = now() - make_interval(days => :days) WHERE id = "
                "(SELECT min(id) FROM flow_changes)"
            ),
            {"days": days + 1},
        )
    assert run_change_prune(parts, 1.0) == 1
    assert [one["new"] for one in client.get("/flow/changes").json["items"]] == [{"paused": False}]


def test_queues_are_listed_with_what_waits_and_runs(client, engine):
    for _ in range(2):
        queued(engine)
    claimed(engine)
    client.post("/queues/default/pause", json={"by": "ada"})
    listed = client.get("/queues").json
    assert listed["counts_are_estimates"] is False
    (one,) = [item for item in listed["items"] if item["name"] == "default"]
    assert (one["waiting"], one["due"], one["running"], one["paused"]) == (2, 2, 1, True)
    assert one["oldest_due_seconds"] >= 0
    assert client.get("/queues/default").json.keys() == one.keys()


def test_tasks_are_listed(client):
    client.post("/tasks/noop/pause", json={"by": "ada"})
    listed = {one["name"]: one["paused"] for one in client.get("/tasks").json["items"]}
    assert listed["noop"] is True
    assert listed["sleep"] is False


def test_the_gauges_say_what_is_paused(client):
    def told():
        text_of = client.get("/metrics").text
        return {line for line in text_of.splitlines() if line.startswith(("queue_paused{", "task_paused{"))}

    assert {'queue_paused{queue="default"} 0.0', 'task_paused{task="noop"} 0.0'} <= told()
    client.post("/queues/default/pause")
    client.post("/tasks/noop/pause")
    assert {'queue_paused{queue="default"} 1.0', 'task_paused{task="noop"} 1.0'} <= told()


@pytest.mark.parametrize(
    ("path", "state"), [("/queues/default", "queue_paused"), ("/tasks/noop", "task_paused")]
)
def test_a_job_is_explained_by_who_paused_it_since_when_and_why(client, engine, path, state):
    job = queued(engine)
    since = client.post(f"{path}/pause", json={"by": "ada", "why": "maintenance"}).json["paused_at"]
    told = client.get(f"/jobs/{job.id}/explain").json
    assert told["state"] == state
    assert told["sentence"].endswith(f"is paused since {since} by ada (maintenance)")
    assert told["facts"] == {
        "target": path[1:],
        "paused_at": since,
        "paused_by": "ada",
        "paused_why": "maintenance",
    }
    client.post(f"{path}/resume")
    assert client.get(f"/jobs/{job.id}/explain").json["state"] != state


@pytest.mark.parametrize("kind", ["queues", "tasks"])
def test_the_command_line_does_the_same(flask, client, kind):
    name = "default" if kind == "queues" else "noop"
    listed = flask(kind, "list")
    assert name in listed.output
    assert flask(kind, "pause", name, "--why", "maintenance", "--by", "ada").output.endswith("is paused\n")
    assert client.get(f"/{kind}/{name}").json["paused_by"] == "ada"
    assert "maintenance" in flask(kind, "show", name).output
    assert flask(kind, "resume", name, "--json").exit_code == 0
    assert paused_of(client, f"/{kind}/{name}") is False
    history = flask(kind, "history", name)
    assert history.output.count(f"{kind}/{name}") == 2
    missing = flask(kind, "pause", "nope")
    assert missing.exit_code == 4
    assert "there is no" in missing.output


def test_the_command_line_puts_the_user_of_the_shell_on_record(flask, client, monkeypatch):
    monkeypatch.setenv("LOGNAME", "grace")
    flask("queues", "pause", "default")
    assert client.get("/queues/default").json["paused_by"] == "grace"


@pytest.mark.parametrize(
    "words",
    [["queues", "list"], ["tasks", "list"], ["queues", "show", "default"], ["queues", "history", "default"]],
)
def test_programs_get_json(flask, words):
    assert json.loads(flask(*words, "--json").output)
