"""`flask --app wsgi batches` and `workflows`: what they print, and what they do."""

from __future__ import annotations

import json
from uuid import uuid4

from batched import JOB, added, made
from flowing import done, failed, step, submit

from webapp.jobs.states import JobStatus


def answer(result, code=0):
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_batches_are_listed_shown_and_explained(flask, client):
    assert flask("batches", "list").stdout == "no batches\n"
    batch = made(client, jobs=2, name="import")["id"]
    made(client, name="other")
    line = flask("batches", "list", "--name", "import").stdout
    assert batch in line
    assert "other" not in line
    assert [one["id"] for one in answer(flask("batches", "list", "--status", "open", "--json"))["items"]][
        1
    ] == batch
    shown = answer(flask("batches", "show", batch, "--json"))
    assert (shown["total"], shown["open"], shown["status"]) == (2, 2, "open")
    assert "import" in flask("batches", "show", batch).stdout
    told = answer(flask("batches", "explain", batch, "--json"))
    assert flask("batches", "explain", batch).stdout.strip() == told["sentence"]
    nowhere = uuid4()
    gone = flask("batches", "show", nowhere)
    assert (gone.exit_code, gone.stderr) == (4, f"Error: no batch has the id {nowhere}\n")


def test_a_page_of_batches_says_where_the_next_one_begins(flask, client):
    first, second = (made(client)["id"] for _ in range(2))
    page = answer(flask("batches", "list", "--limit", 1, "--json"))
    assert ([one["id"] for one in page["items"]], page["next_cursor"]) == ([second], second)
    rest = answer(flask("batches", "list", "--cursor", page["next_cursor"], "--json"))
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == ([first], None)


def test_batches_are_closed_cancelled_and_queued_again(flask, client):
    batch = made(client, jobs=1)["id"]
    added(client, batch, "more", 2)
    said = flask("batches", "close", batch).stdout
    assert said == f"batch {batch} is closed, 3 of 3 members are open\n"
    assert answer(flask("batches", "close", batch, "--json"))["status"] == "closed"
    assert answer(flask("batches", "retry", batch, "--json"))["requeued"] == 0
    assert flask("batches", "retry", batch).stdout == "0 members are queued again\n"
    said = flask("batches", "cancel", batch, "--reason", "not needed").stdout
    assert said == "3 members were cancelled, 0 were asked to stop\n"
    other = client.post("/batches", json={"jobs": [JOB]}).json["id"]
    assert answer(flask("batches", "cancel", other, "--json"))["cancelled"] == 1


def test_workflows_are_listed_shown_drawn_and_explained(flask, client, engine):
    assert flask("workflows", "list").stdout == "no workflows\n"
    number = submit(client, {"a": step(), "b": step("a")}, name="etl")
    submit(client, {"a": step()})
    assert number in flask("workflows", "list", "--name", "etl", "--status", "running").stdout
    page = answer(flask("workflows", "list", "--limit", 1, "--json"))
    rest = answer(flask("workflows", "list", "--cursor", page["next_cursor"], "--json"))
    assert [one["id"] for one in rest["items"]] == [number]
    shown = answer(flask("workflows", "show", number, "--json"))
    assert [(one["name"], one["status"]) for one in shown["steps"]] == [("a", "running"), ("b", "waiting")]
    assert "etl" in flask("workflows", "show", number).stdout
    assert flask("workflows", "graph", number).stdout.startswith("flowchart TD\n")
    assert [one["name"] for one in answer(flask("workflows", "graph", number, "--json"))["nodes"]] == [
        "a",
        "b",
    ]
    assert flask("workflows", "explain", number).stdout == "It waits for a to end.\n"
    assert answer(flask("workflows", "explain", number, "--step", "b", "--json"))["state"] == "waiting"
    done(client, engine, number, "a")
    assert flask("workflows", "explain", number, "--step", "a").stdout == "It is completed.\n"
    nowhere = uuid4()
    gone = flask("workflows", "show", nowhere)
    assert (gone.exit_code, gone.stderr) == (4, f"Error: no workflow has the id {nowhere}\n")


def test_workflows_are_retried_and_cancelled(flask, client, engine):
    number = submit(client, {"a": step(), "b": step("a")})
    failed(client, engine, number, "a")
    assert (
        flask("workflows", "retry", number, "--reason", "mended").stdout == f"workflow {number} is running\n"
    )
    assert answer(flask("workflows", "cancel", number, "--json"))["status"] == "cancelled"
    again = flask("workflows", "cancel", number)
    assert (again.exit_code, again.stdout) == (0, f"workflow {number} is cancelled\n")
    assert {one["status"] for one in client.get("/jobs").json["items"]} == {JobStatus.CANCELLED}
