"""The dead letter queue as a tool: find, group, requeue, discard."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import uuid4

import pytest
from factories import ERROR, completed, dead_lettered, letters_of, preparing, queued, row_of, tables
from sqlalchemy import text

from webapp.dead_letters import service as dead_letters
from webapp.dead_letters import store
from webapp.dead_letters.model import DeadLetterFilter
from webapp.flow.reach import EVERYTHING
from webapp.infra.jsontext import iso
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import control
from webapp.jobs.error_report import ErrorReport

#: How often each race is run.
RACES = 200
TIMEOUT = ErrorReport("requests.Timeout", "no answer from 10.0.0.7", "Traceback of a timeout")
OTHER = ErrorReport("requests.Timeout", "no answer from 10.0.0.8", "Traceback of another")


def post(client, path, **body):
    return client.post(f"/dlq/{path}", **({"json": body} if body else {}))


def ids(answer):
    assert answer.status_code == 200, answer.text
    return {item["id"] for item in answer.json}


def many(engine, count):
    """Jobs in the dead letter queue, made at once."""
    with preparing(engine) as connection:
        connection.execute(
            text(
                "WITH made AS (INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status,"
                " attempt, last_attempt_at, finished_at) SELECT gen_random_uuid(), 'noop', '{}', 'default', 1, 1, '',"
                " 'failed', 1, now(), now() FROM generate_series(1, :count) RETURNING id)"
                " INSERT INTO dead_letters (job_id, reason, fingerprint, task, queue)"
                " SELECT id, 'exhausted', 'f', 'noop', 'default' FROM made"
            ),
            {"count": count},
        )


def test_without_parameters_it_is_an_array_of_jobs(client, engine):
    first, second = dead_lettered(engine), dead_lettered(engine)
    answer = client.get("/dlq")
    assert [item["id"] for item in answer.json] == [str(second.id), str(first.id)]
    assert answer.json[0]["last_error"] == ERROR.summary


def test_letters_are_found_by_what_they_died_of(client, engine):
    plain = dead_lettered(engine)
    slow = dead_lettered(engine, TIMEOUT, task="sleep", queue="slow")
    everything = {str(plain.id), str(slow.id)}
    (letter,) = letters_of(engine, slow.id)
    moment = iso(letter["dead_at"])
    for query, expected in {
        "": everything,
        "?task=sleep": {str(slow.id)},
        "?queue=default": {str(plain.id)},
        "?error_type=requests.Timeout": {str(slow.id)},
        f"?fingerprint={letter['fingerprint']}": {str(slow.id)},
        "?reason=exhausted": everything,
        "?reason=discarded": set(),
        f"?dead_before={moment}": {str(plain.id)},
        f"?dead_after={moment}&queue=slow": {str(slow.id)},
        "?limit=1": {str(slow.id)},
        "?limit=1&offset=1": {str(plain.id)},
    }.items():
        assert ids(client.get(f"/dlq{query}")) == expected, query


@pytest.mark.parametrize(
    "path",
    ["?reason=bored", "?dead_after=today", "?task=", "?queue=%00", "?colour=red", "?limit=0", "/letters?state=lost", "/letters?cursor=0",
     "/groups?limit=101"],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(client, path):
    assert client.get(f"/dlq{path}").status_code == 422


def test_groups_count_what_died_of_the_same_and_show_one_of_them(client, engine):
    dead_lettered(engine)
    dead_lettered(engine, TIMEOUT)
    newest = dead_lettered(engine, OTHER)
    timeouts, plain = client.get("/dlq/groups").json["items"]
    assert (timeouts["count"], timeouts["error_type"], timeouts["task"]) == (2, "requests.Timeout", "noop")
    assert timeouts["sample_job_id"] == str(newest.id)
    assert timeouts["sample_message"] == OTHER.message
    assert timeouts["sample_traceback"] == OTHER.traceback
    assert timeouts["first_dead_at"] < timeouts["last_dead_at"]
    assert plain["count"] == 1
    assert len(client.get("/dlq/groups?limit=1").json["items"]) == 1
    assert client.get("/dlq/groups?error_type=nothing").json == {"items": []}


def test_a_dry_run_says_how_many_and_changes_nothing(client, engine):
    for error in (ERROR, TIMEOUT, OTHER):
        dead_lettered(engine, error)
    before = tables(engine)
    for what in ("requeue", "discard"):
        answer = post(client, what, filter={"error_type": "requests.Timeout"}, dry_run=True)
        assert answer.status_code == 200
        assert (answer.json["matched"], answer.json["changed"], answer.json["dry_run"]) == (2, 0, True)
        # To send it again would do no more.
        assert answer.json["more"] is False
    assert tables(engine) == before


def test_what_matches_is_requeued_with_a_fresh_budget_and_its_history(client, engine):
    kept, chosen = dead_lettered(engine), dead_lettered(engine, TIMEOUT)
    answer = post(
        client, "requeue", filter={"error_type": "requests.Timeout"}, by="ann", why="the proxy is back"
    )
    assert (answer.json["matched"], answer.json["changed"], answer.json["more"]) == (1, 1, False)
    row = row_of(engine, chosen.id)
    assert (row.status, row.retry_count, row.attempt, row.last_error) == ("queued", 0, 1, None)
    (letter,) = letters_of(engine, chosen.id)
    assert (letter["resolved_by"], letter["resolved_why"]) == ("ann", "the proxy is back")
    assert letter["requeued_at"] is not None
    assert row_of(engine, kept.id).status == "failed"
    assert ids(client.get("/dlq")) == {str(kept.id)}
    past = client.get("/dlq/letters?state=requeued").json
    assert [one["job_id"] for one in past["items"]] == [str(chosen.id)]
    assert past["items"][0]["resolved_by"] == "ann"


def test_a_selection_and_everything(client, engine):
    jobs = [dead_lettered(engine) for _ in range(4)]
    chosen = [str(job.id) for job in jobs[:2]]
    assert post(client, "requeue", ids=[*chosen, str(uuid4())]).json["changed"] == 2
    assert [row_of(engine, job.id).status for job in jobs] == ["queued", "queued", "failed", "failed"]
    assert post(client, "discard", all=True).json["changed"] == 2
    assert client.get("/dlq").json == []


def test_at_a_rate_the_jobs_become_due_one_after_the_other(client, engine, monkeypatch):
    monkeypatch.setattr(dead_letters, "BATCH", 2)
    jobs = [dead_lettered(engine) for _ in range(5)]
    answer = post(client, "requeue", all=True, rate=4).json
    due = [row_of(engine, job.id).run_at for job in jobs]
    assert [round((one - due[0]).total_seconds(), 3) for one in due] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert datetime.fromisoformat(answer["last_run_at"]) == due[-1]
    assert (datetime.fromisoformat(answer["next_start_at"]) - due[-1]).total_seconds() == 0.25


def test_what_is_left_over_goes_on_at_the_same_rate(client, engine, monkeypatch):
    monkeypatch.setattr(dead_letters, "BATCH", 2)
    monkeypatch.setattr(dead_letters, "WINDOW", 1e-9)
    jobs = [dead_lettered(engine) for _ in range(3)]
    first = post(client, "requeue", all=True, rate=1)
    if first.json["changed"] == 0:
        pytest.fail("a request must get on with at least one batch")
    assert (first.json["matched"], first.json["changed"], first.json["more"]) == (3, 2, True)
    second = post(client, "requeue", all=True, rate=1, start_at=first.json["next_start_at"]).json
    assert (second["matched"], second["changed"], second["more"]) == (1, 1, False)
    due = [row_of(engine, job.id).run_at for job in jobs]
    assert [round((one - due[0]).total_seconds(), 3) for one in due] == [0.0, 1.0, 2.0]


def test_thousands_are_dealt_with_in_batches(client, engine):
    many(engine, 2_500)
    answer = post(client, "requeue", filter={"task": "noop"}).json
    assert (answer["matched"], answer["changed"], answer["more"]) == (2_500, 2_500, False)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs WHERE status = 'queued'")).scalar() == 2_500


def test_dealing_with_letters_looks_jobs_up_by_their_ids_whatever_is_known_of_the_day(engine, app):
    """By statistics of an empty day, each letter would look at every job that failed."""
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text("ANALYZE jobs"))
        connection.execute(text("ANALYZE dead_letters"))
        made = connection.execute(
            text(
                "WITH made AS (INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt,"
                " last_attempt_at, finished_at) SELECT gen_random_uuid(), 'noop', '{}', 'default', 1, 1, '', 'failed', 1,"
                " now(), now() FROM generate_series(1, 2000) RETURNING id) INSERT INTO dead_letters (job_id, reason,"
                " fingerprint, task, queue) SELECT id, 'exhausted', 'f', 'noop', 'default' FROM made RETURNING job_id, dead_at"
            )
        ).all()
        ids = array_of([row.job_id for row in made[:1_000]])
        values = DeadLetterFilter(task="noop").values() | {"limit": 1_000}
        plans = {
            "take": (store._TAKE.by(EVERYTHING).text, values),
            "requeue": (
                control._REQUEUE.text,
                {"ids": ids, "since": made[0].dead_at, "first": None, "gap": 0.0},
            ),
        }
        for name, (statement, given) in plans.items():
            plan = "\n".join(connection.execute(text(f"EXPLAIN {statement}"), given).scalars())
            assert "_by_status" not in plan, (name, plan)
        transaction.rollback()


def test_discarded_letters_leave_the_queue_and_their_jobs_stay_failed(client, engine):
    job = dead_lettered(engine)
    answer = post(client, f"{job.id}/discard", why="known and harmless")
    assert (answer.status_code, answer.json["status"]) == (200, "failed")
    (letter,) = letters_of(engine, job.id)
    assert letter["discarded_at"] is not None
    assert (letter["resolved_by"], letter["resolved_why"]) == ("127.0.0.1", "known and harmless")
    assert client.get("/dlq").json == []
    assert client.get("/dlq/letters").json["items"] == []
    assert len(client.get("/dlq/letters?state=discarded").json["items"]) == 1
    assert post(client, f"{job.id}/discard").status_code == 409
    assert post(client, f"{job.id}/requeue").status_code == 409
    # A caller that wants it all the same queues the job itself.
    assert client.post(f"/jobs/{job.id}/retry").status_code == 200


def test_one_job_is_requeued_once(client, engine):
    job = dead_lettered(engine)
    answer = post(client, f"{job.id}/requeue")
    assert (answer.status_code, answer.json["status"]) == (200, "queued")
    again = post(client, f"{job.id}/requeue")
    assert again.status_code == 409
    assert "queued" in again.get_json(force=True)["detail"]


def test_a_job_without_a_letter_is_not_touched(client, engine):
    for job in (queued(engine), completed(engine)):
        before = tables(engine)
        assert post(client, f"{job.id}/requeue").status_code == 409
        assert post(client, f"{job.id}/discard").status_code == 409
        assert tables(engine) == before
    assert post(client, f"{uuid4()}/requeue").status_code == 404
    assert post(client, "x/discard").status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"all": True, "ids": [str(uuid4())]}, "body"),
        ({"all": False}, "all"),
        ({"filter": {}}, "body"),
        ({"filter": {"colour": "red"}}, "filter.colour"),
        ({"filter": {"reason": "x"}}, "filter.reason"),
        ({"ids": []}, "ids"),
        ({"ids": ["x"]}, "ids.0"),
        ({"ids": [str(uuid4())] * 1_001}, "ids"),
        ({"all": True, "rate": 0}, "rate"),
        ({"all": True, "rate": 20_000}, "rate"),
        ({"all": True, "start_at": "soon"}, "start_at"),
        ({"all": True, "why": ""}, "why"),
        ({"all": True, "by": "x" * 501}, "by"),
    ],
)
def test_a_request_that_could_mean_too_much_is_refused(client, engine, body, field):
    dead_lettered(engine)
    before = tables(engine)
    answer = client.post("/dlq/requeue", json=body)
    assert answer.status_code == 422
    assert answer.get_json(force=True)["errors"][0]["field"] == field
    assert tables(engine) == before


def test_pages_of_letters_have_a_cursor(client, engine):
    jobs = [dead_lettered(engine) for _ in range(3)]
    page = client.get("/dlq/letters?limit=2").json
    assert page["total"] == 3
    assert [one["job_id"] for one in page["items"]] == [str(jobs[2].id), str(jobs[1].id)]
    rest = client.get(f"/dlq/letters?limit=2&cursor={page['next_cursor']}").json
    assert [one["job_id"] for one in rest["items"]] == [str(jobs[0].id)]
    assert rest["next_cursor"] is None
    post(client, "requeue", ids=[str(jobs[0].id)])
    assert client.get("/dlq/letters?state=all").json["total"] == 3


@pytest.mark.parametrize("others", ["requeue", "discard"])
def test_of_two_who_deal_with_one_letter_one_does(app, engine, others):
    for _ in range(RACES):
        job = dead_lettered(engine)
        gate = threading.Barrier(2)

        def go(what, job=job, gate=gate):
            gate.wait(10)
            return app.test_client().post(f"/dlq/{job.id}/{what}").status_code

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(go, ("requeue", others)))
        assert sorted(answers) == [200, 409]
        (letter,) = letters_of(engine, job.id)
        assert (letter["requeued_at"] is None) != (letter["discarded_at"] is None)
        assert row_of(engine, job.id).status == ("queued" if letter["requeued_at"] else "failed")


#: Every statement that a filter narrows down, and what it is given besides.
STATEMENTS = {
    "page": {"limit": 20, "before": None},
    "count": {},
    "jobs": {"limit": 20, "offset": 0},
    "groups": {"limit": 20},
    "take": {"limit": 1_000},
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_filters_read_few_rows_of_many(engine, name):
    many(engine, 20_000)
    statement = read_sql(store.__file__, "dead_letters", name, without=["reach", "tenant", "default tenant"])
    wanted = DeadLetterFilter(task="rare", fingerprint="g")
    with engine.begin() as connection:
        connection.execute(text("ANALYZE dead_letters"))
        plan = connection.execute(text(f"EXPLAIN {statement}"), wanted.values() | STATEMENTS[name]).scalars()
        assert re.search("dead_letters_(alike|of_group)", "\n".join(plan))


def test_all_statements_match_by_the_same_conditions():
    def conditions(name):
        lines = read_sql(store.__file__, "dead_letters", name).splitlines()
        return [line.strip() for line in lines if "IS NULL OR" in line and ":before" not in line]

    (first, *others) = (conditions(name) for name in STATEMENTS)
    assert len(first) == len(DeadLetterFilter().values()) - len(["state"])
    assert all(other == first for other in others)
    assert all(read_sql(store.__file__, "dead_letters", name).count(":queues") == 1 for name in STATEMENTS)
    for word, times in ((":tenant", 2), ("-- tenant", 0)):
        assert all(read_sql(store.__file__, "dead_letters", name).count(word) == times for name in STATEMENTS)
