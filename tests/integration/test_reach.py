"""Keys with queues: jobs of other queues are not there for them, in no list, number, search or group, and cannot be touched."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from factories import claimed, completed, dead_lettered, preparing, queued, row_of, tables
from sqlalchemy import event, text
from uuid_utils.compat import uuid7

from webapp.access.model import NewKey, Role
from webapp.api.openapi import document
from webapp.flow import store as flow_store
from webapp.flow.limits import Limits, QueueLimits
from webapp.flow.model import Kind, Target, lane_of
from webapp.infra.broker import heartbeats
from webapp.infra.broker.hints import Ticket
from webapp.infra.postgres.engine import Statement
from webapp.jobs import search
from webapp.jobs.options import PLAIN, Terms
from webapp.queues import backlog, tickets
from webapp.queues.tickets import ClaimTerms

#: What stands in all that a job of another queue carries.
CANARY = "canary-5105"
VIDEO, OTHER = "video", "billing"


@pytest.fixture
def guarded(another_app):
    """An application that asks for keys."""
    return another_app(api_auth="keys")


@pytest.fixture
def make(guarded):
    """Makes keys; gives the header that shows one."""

    def made(*queues, role=Role.OPERATOR, scopes=()):
        issued = guarded.extensions["access"].create(NewKey("a test's", role, scopes, queues=queues), by=None)
        # Else one that is made right after a look is not known for a tenth of a second.
        guarded.extensions["doorkeeper"].book.forget()
        return {"Authorization": f"Bearer {issued.secret}"}

    return made


@pytest.fixture
def tasks(handle):
    """A task of each queue, and one more of the other."""
    handle(lambda _payload, _context: None, queue=VIDEO)
    return {
        VIDEO: handle(lambda _payload, _context: None, queue=VIDEO),
        OTHER: handle(lambda _payload, _context: None, queue=OTHER),
    }


@contextmanager
def statements(engine):
    """The statements that are sent meanwhile."""
    sent = []

    def note(_connection, _cursor, statement, *_):
        sent.append(statement)

    def noting(statement, connection, values):
        sent.append(statement.text)
        return run(statement, connection, values)

    # Those of the hot path go by SQLAlchemy.
    run, Statement.run = Statement.run, noting
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
        Statement.run = run


def engine_of(app):
    with app.app_context():
        return app.extensions["sqlalchemy"].engine


def filled(engine, queue, mark="mine"):
    """A job of a queue in each state, carrying a mark."""
    carried = {"queue": queue, "payload": {"card": mark}, "terms": Terms(tags=(mark,))}
    ended = [completed(engine, f'"{mark}"', **carried), dead_lettered(engine, **carried)]
    return [queued(engine, **carried), *ended, claimed(engine, **carried)]


def of_a_job(app):
    """Every operation about one job, as (method, path)."""
    return [
        (method.upper(), path)
        for path, methods in document(app)["paths"].items()
        for method in methods
        if "{job_id}" in path
    ]


def without_ids(answer):
    """An answer, without what names the request and the job."""
    return (
        re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", answer.text),
        answer.status_code,
        dict(answer.headers).keys(),
    )


def test_a_job_of_another_queue_is_answered_as_one_that_is_not_there(guarded, make, engine):
    client, headers = guarded.test_client(), make(VIDEO)
    theirs = filled(engine, OTHER, CANARY)
    before = tables(engine)
    called = of_a_job(guarded)
    assert len(called) >= 8
    for method, path in called:
        for job in theirs:
            found = client.open(path.format(job_id=job.id), method=method, headers=headers)
            unknown = client.open(path.format(job_id=uuid7()), method=method, headers=headers)
            assert found.status_code == 404, (method, path, found.text)
            assert without_ids(found) == without_ids(unknown), (method, path)
    assert tables(engine) == before


def test_the_statements_for_it_are_those_for_one_that_is_not_there(guarded, make, engine):
    client, headers = guarded.test_client(), make(VIDEO)
    theirs = filled(engine, OTHER)
    client.get("/access/me", headers=headers)
    for job in theirs:
        with statements(engine_of(guarded)) as for_theirs:
            client.get(f"/jobs/{job.id}", headers=headers)
        with statements(engine_of(guarded)) as for_none:
            client.get(f"/jobs/{uuid7()}", headers=headers)
        assert [one for one in for_theirs if "FROM jobs" in one] == [
            one for one in for_none if "FROM jobs" in one
        ]


def test_a_wait_and_a_stream_end_at_once_for_a_job_of_another_queue(guarded, make, engine):
    client, headers = guarded.test_client(), make(VIDEO)
    job = queued(engine, queue=OTHER)
    assert client.get(f"/jobs/{job.id}?wait=20", headers=headers).status_code == 404
    assert client.get(f"/jobs/{job.id}/events", headers=headers).status_code == 404


LISTS = (
    *("/jobs", "/jobs?status=queued", "/jobs?status=completed", "/jobs?status=processing", "/jobs?task=noop"),
    *(f"/jobs?tag={CANARY}", f"/jobs?queue={OTHER}", f'/jobs?payload={{"card":"{CANARY}"}}'),
    *("/dlq", "/dlq/letters", "/dlq/groups", f"/dlq?queue={OTHER}", f"/dlq/letters?queue={OTHER}", f"/dlq/groups?queue={OTHER}"),
)  # fmt: skip


@pytest.mark.parametrize("queues", [(VIDEO,), (VIDEO, "mail")])
@pytest.mark.parametrize("path", LISTS)
def test_no_list_number_or_search_knows_of_other_queues(guarded, make, engine, queues, path):
    client, headers = guarded.test_client(), make(*queues)
    filled(engine, VIDEO)
    before = client.get(path, headers=headers)
    assert before.status_code == 200, before.text
    for _ in range(3):
        filled(engine, OTHER, CANARY)
    after = client.get(path, headers=headers)
    assert CANARY not in after.text
    assert after.json == before.json
    # All of it is there for who reaches everything.
    assert client.get(path, headers=make()).json != before.json


@pytest.mark.parametrize("queues", [(VIDEO,), (VIDEO, "mail")])
def test_what_is_reached_is_listed_and_counted(guarded, make, engine, queues):
    client, headers = guarded.test_client(), make(*queues)
    mine = filled(engine, VIDEO)
    filled(engine, OTHER, CANARY)
    page = client.get("/jobs", headers=headers).json
    assert ({one["id"] for one in page["items"]}, page["total"]) == ({str(job.id) for job in mine}, 4)
    letters = client.get("/dlq/letters", headers=headers).json
    assert ([one["job_id"] for one in letters["items"]], letters["total"]) == ([str(mine[2].id)], 1)
    (group,) = client.get("/dlq/groups", headers=headers).json["items"]
    assert (group["count"], group["sample_job_id"]) == (1, str(mine[2].id))


@pytest.mark.parametrize("verb", ["requeue", "discard"])
@pytest.mark.parametrize("body", [{"all": True}, {"filter": {"queue": OTHER}}, {"filter": {"task": "noop"}}])
def test_what_is_done_to_many_is_done_to_what_is_reached(guarded, make, engine, verb, body):
    client, headers = guarded.test_client(), make(VIDEO)
    filled(engine, VIDEO)
    theirs = filled(engine, OTHER, CANARY)[2]
    before = row_of(engine, theirs.id)
    answer = client.post(f"/dlq/{verb}", headers=headers, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json["matched"] == (0 if "queue" in body.get("filter", {}) else 1)
    assert row_of(engine, theirs.id) == before
    report = client.post(f"/dlq/{verb}", headers=headers, json={"ids": [str(theirs.id)]})
    assert report.json["matched"] == 0


def test_a_job_is_submitted_to_no_other_queue(guarded, make, tasks, engine):
    client, headers = guarded.test_client(), make(VIDEO)
    assert client.post("/jobs", headers=headers, json={"payload": {"task": tasks[VIDEO]}}).status_code == 201
    for body in ({"payload": {"task": tasks[OTHER]}}, {"payload": {"task": tasks[VIDEO]}, "queue": OTHER}):
        answer = client.post("/jobs", headers=headers, json=body)
        assert (
            answer.status_code,
            f"the queue '{OTHER}' is not one of this key's: video" in answer.json["detail"],
        ) == (
            403,
            True,
        ), answer.text
    answer = client.post(
        "/jobs/batch",
        headers=headers,
        json={"jobs": [{"payload": {"task": tasks[one]}} for one in (VIDEO, OTHER, VIDEO)]},
    )
    assert [one["outcome"] for one in answer.json["items"]] == ["created", "invalid", "created"]
    assert answer.json["items"][1]["errors"][0]["field"] == "queue"
    assert {row["queue"] for row in tables(engine) if "queue" in row} == {VIDEO}


def test_no_key_of_a_job_tells_of_one_in_another_queue(guarded, make, tasks):
    client, headers, all_of_it = guarded.test_client(), make(VIDEO), make()
    for more in ({"idempotency_key": "k"}, {"unique": {"key": "k"}}):
        theirs = client.post(
            "/jobs", headers=all_of_it, json={"payload": {"task": tasks[OTHER], "card": CANARY}} | more
        )
        assert theirs.status_code == 201
        for on_conflict in ({}, {"on_conflict": "refuse"}, {"on_conflict": "replace"}):
            asked = {name: one | on_conflict if name == "unique" else one for name, one in more.items()}
            body = {"payload": {"task": tasks[VIDEO]}} | asked
            answer = client.post("/jobs", headers=headers, json=body)
            assert answer.status_code == 409, answer.text
            assert theirs.json["id"] not in answer.text
            assert CANARY not in answer.text
            batch = client.post("/jobs/batch", headers=headers, json={"jobs": [body]})
            assert theirs.json["id"] not in batch.text
        kept = client.get(f"/jobs/{theirs.json['id']}", headers=all_of_it).json
        assert kept["payload"]["card"] == CANARY


def test_queues_are_shown_and_steered_as_far_as_they_are_reached(guarded, make, tasks, engine):
    client, headers, all_of_it = guarded.test_client(), make(VIDEO), make()
    filled(engine, OTHER)
    assert [one["name"] for one in client.get("/queues", headers=headers).json["items"]] == [VIDEO]
    for path in (f"/queues/{OTHER}", f"/queues/{OTHER}/keys", f"/queues/{OTHER}/keys/acme"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.text.count(OTHER)) == (404, 1), answer.text
    for method, path, body in (
        ("POST", f"/queues/{OTHER}/pause", None),
        ("POST", f"/queues/{OTHER}/resume", None),
        ("PUT", f"/queues/{OTHER}", {"concurrency": 1}),
        ("DELETE", f"/queues/{OTHER}", None),
        ("PUT", f"/queues/{OTHER}/keys/acme", {"paused": True}),
        ("DELETE", f"/queues/{OTHER}/keys/acme", None),
    ):
        assert client.open(path, method=method, headers=headers, json=body).status_code == 404, (method, path)
    answer = client.post(f"/tasks/{tasks[VIDEO]}/pause", headers=headers)
    assert (answer.status_code, "runs in all queues" in answer.json["detail"]) == (403, True)
    assert client.post(f"/queues/{OTHER}/pause", headers=all_of_it, json={"why": CANARY}).status_code == 200
    assert client.post(f"/queues/{VIDEO}/pause", headers=headers).json["paused"] is True
    changes = client.get("/flow/changes", headers=headers)
    assert [one["target"] for one in changes.json["items"]] == [f"queues/{VIDEO}"]
    assert CANARY not in changes.text


ABOUT_ALL = ("metrics:read", "system:read", "audit:read", "access:manage")


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        *(({"scopes": ["jobs:read", scope]}, scope) for scope in ABOUT_ALL),
        ({"role": "operator"}, "metrics:read, system:read"),
        ({"role": "admin"}, "access:manage, audit:read, metrics:read, system:read"),
        ({"role": "viewer", "scopes": ["audit:read"]}, "audit:read"),
    ],
)
def test_no_key_of_queues_is_made_for_what_is_about_all(guarded, make, flask, asked, refused):
    client, headers = guarded.test_client(), make(role=Role.ADMIN)
    body = {"name": "robot", "queues": [VIDEO]} | asked
    answer = client.post("/access/keys", headers=headers, json=body)
    assert answer.status_code == 422, answer.text
    assert f"cannot have queues and {refused}: " in answer.json["detail"]
    words = [f"--scope={scope}" for scope in asked.get("scopes", ())]
    words += [f"--role={asked['role']}"] if "role" in asked else []
    result = flask("access", "key", "create", "robot", "--queue", VIDEO, *words)
    assert result.exit_code == 2
    assert f"cannot have queues and {refused}: " in result.output


def test_a_key_of_queues_that_was_given_such_a_scope_all_the_same_does_not_have_it(guarded, make):
    client, headers = guarded.test_client(), make(VIDEO, role=Role.ADMIN)
    told = client.get("/access/me", headers=headers).json
    assert (told["queues"], set(ABOUT_ALL) & set(told["scopes"])) == ([VIDEO], set())
    for path, missing in (("/audit", 2), ("/metrics", 0), ("/system", 1), ("/access/keys", 3)):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json["missing_scope"]) == (403, ABOUT_ALL[missing]), answer.text


def test_a_key_of_queues_is_made_over_http_and_on_record(guarded, make):
    client, headers = guarded.test_client(), make(role=Role.ADMIN)
    body = {"name": "robot", "role": "viewer", "queues": [VIDEO]}
    made = client.post("/access/keys", headers=headers, json=body)
    assert (made.status_code, made.json["queues"]) == (201, [VIDEO])
    number = made.json["id"]
    (act,) = client.get(f"/audit?event=key.create&target=key:{number}", headers=headers).json["items"]
    assert act["details"]["queues"] == [VIDEO]


GONE = (
    ({"idempotency_key": "k"}, 410),
    ({"unique": {"key": "k", "for": 60}}, 410),
    ({"unique": {"key": "k", "for": 60, "on_conflict": "refuse"}}, 409),
)


@pytest.mark.parametrize("taken", GONE, ids=str)
def test_a_job_that_was_deleted_is_named_to_who_reaches_all_queues_alone(guarded, make, tasks, engine, taken):
    more, status = taken
    client, headers, all_of_it = guarded.test_client(), make(VIDEO), make()
    body = {"payload": {"task": tasks[VIDEO]}} | more
    stored = client.post("/jobs", headers=all_of_it, json=body)
    assert stored.status_code == 201, stored.text
    gone = stored.json["id"]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    named = client.post("/jobs", headers=all_of_it, json=body)
    assert (named.status_code, gone in named.text) == (status, True), named.text
    told = client.post("/jobs", headers=headers, json=body)
    assert (told.status_code, gone in told.text) == (410, False), told.text
    batch = client.post("/jobs/batch", headers=headers, json={"jobs": [body, body | {"priority": 1}]})
    assert (batch.status_code, gone in batch.text) == (200, False), batch.text
    assert [one["outcome"] for one in batch.json["items"]] == ["invalid", "invalid"]
    if "idempotency_key" in more:
        reused = client.post("/jobs", headers=headers, json=body | {"priority": 1})
        assert (reused.status_code, gone in reused.text) == (422, False), reused.text


def test_an_idempotency_key_beside_a_unique_key_tells_of_no_other_job(guarded, make, tasks):
    client, headers, all_of_it = guarded.test_client(), make(VIDEO), make()
    theirs = client.post(
        "/jobs", headers=all_of_it, json={"payload": {"task": tasks[OTHER]}, "idempotency_key": "k"}
    )
    body = {"payload": {"task": tasks[VIDEO]}, "idempotency_key": "k", "unique": {"key": "u"}}
    answer = client.post("/jobs", headers=headers, json=body)
    assert (answer.status_code, theirs.json["id"] in answer.text) == (409, False), answer.text


def test_the_same_request_is_not_answered_with_a_job_of_a_queue_that_its_task_has_left(
    guarded, make, tasks, engine
):
    client, headers, all_of_it = guarded.test_client(), make(VIDEO), make()
    body = {"payload": {"task": tasks[VIDEO]}, "idempotency_key": "k"}
    before = client.post("/jobs", headers=all_of_it, json=body).json["id"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs_living SET queue = :queue"), {"queue": OTHER})
    again = client.post("/jobs", headers=all_of_it, json=body)
    assert (again.status_code, again.json["id"]) == (200, before)
    answer = client.post("/jobs", headers=headers, json=body)
    assert (answer.status_code, before in answer.text) == (409, False), answer.text
    batch = client.post("/jobs/batch", headers=headers, json={"jobs": [body]})
    assert (batch.json["items"][0]["outcome"], before in batch.text) == ("invalid", False), batch.text


def test_in_a_batch_a_key_of_another_queues_job_is_in_the_way_of_its_item_alone(guarded, make, tasks, engine):
    client, headers, all_of_it = guarded.test_client(), make(VIDEO), make()
    theirs = client.post(
        "/jobs",
        headers=all_of_it,
        json={"payload": {"task": tasks[OTHER], "card": CANARY}, "unique": {"key": "k"}},
    )
    before = row_of(engine, theirs.json["id"])
    plain = {"payload": {"task": tasks[VIDEO]}}
    replacing = plain | {"unique": {"key": "k", "on_conflict": "replace"}, "idempotency_key": "i"}
    refused = plain | {"unique": {"key": "k", "on_conflict": "refuse"}}
    items = [plain | {"unique": {"key": "k"}}, plain, replacing, replacing, refused]
    answer = client.post("/jobs/batch", headers=headers, json={"jobs": items})
    assert [one["outcome"] for one in answer.json["items"]] == [
        *("invalid", "created", "invalid", "invalid", "invalid")
    ], answer.text
    assert {one["errors"][0]["field"] for one in answer.json["items"] if one["outcome"] == "invalid"} == {
        "unique.key"
    }
    assert theirs.json["id"] not in answer.text
    assert row_of(engine, theirs.json["id"]) == before


@pytest.fixture
def _worker(redis):
    """A worker that listens: else that there is none is what holds every job."""
    described = {"role": "w", "queues": [VIDEO, OTHER], "children": 9, "knows": ["limits"]}
    heartbeats.beat(redis, "w:1:x", 60, json.dumps(described))


@pytest.mark.usefixtures("_worker")
def test_an_explanation_counts_who_holds_a_tasks_slots_in_other_queues_and_names_none(guarded, make, engine):
    client = guarded.test_client()
    task = Target(Kind.TASK, "noop")
    with engine.begin() as connection:
        flow_store.lock(connection, task)
        flow_store.set_limits(connection, task, QueueLimits(Limits(concurrency=3)))
    held = []
    for number, queue in enumerate((OTHER, VIDEO, OTHER)):
        key = CANARY if queue == OTHER else "mine"
        queued(engine, queue=queue, lane=lane_of(queue, key), terms=replace(PLAIN, key=key))
        worker = f"{queue}/{number}"
        with engine.begin() as connection:
            (claim,) = tickets.claim_due(
                connection, Ticket(queue, "noop", 300.0), ClaimTerms(1, worker, 60.0), in_lanes=True
            )
        held.append({"worker_id": worker, "job_id": str(claim.id)})
    waits = queued(engine, queue=VIDEO, lane=lane_of(VIDEO, "mine"), terms=replace(PLAIN, key="mine"))
    whole = client.get(f"/jobs/{waits.id}/explain", headers=make()).json
    assert whole["facts"]["held_by"] == sorted(held, key=lambda one: one["worker_id"])
    found = client.get(f"/jobs/{waits.id}/explain", headers=make(VIDEO))
    assert found.status_code == 200, found.text
    assert found.json["state"] == whole["state"] == "task_limit"
    assert found.json["facts"] == {"limit": 3, "used": 3, "held_by": [held[1]]}
    assert not [word for word in (OTHER, CANARY, held[0]["job_id"], held[2]["job_id"]) if word in found.text]


@pytest.mark.usefixtures("_worker")
def test_no_explanation_knows_of_jobs_in_other_queues(guarded, make, engine):
    client, headers = guarded.test_client(), make(VIDEO)
    mine = filled(engine, VIDEO)
    before = [client.get(f"/jobs/{job.id}/explain", headers=headers).json for job in mine]
    for _ in range(3):
        filled(engine, OTHER, CANARY)
    after = [client.get(f"/jobs/{job.id}/explain", headers=headers).json for job in mine]
    assert [one["state"] for one in after] == ["due", "final", "final", "running"]
    assert after == before


@pytest.fixture
def _backlog(engine):
    """Jobs of the other queue that wait, more than a search with little time looks at, and an old one of mine."""
    mine = uuid7()
    with preparing(engine) as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, created_at)
            SELECT CASE n WHEN 900 THEN CAST(:mine AS uuid) ELSE uuidv7(-make_interval(secs => n / 1000.0)) END, 'noop', '{}',
                   CASE n WHEN 900 THEN :video ELSE :other END, 3, 300, '', now() - make_interval(secs => n / 1000.0)
              FROM generate_series(1, 2000) AS n"""),
            {"mine": UUID(int=mine.int - (900 << 80)), "video": VIDEO, "other": OTHER},
        )
    yield
    with preparing(engine) as connection:
        connection.execute(text("TRUNCATE jobs CASCADE"))


@pytest.fixture
def _hurried(monkeypatch):
    """Searches whose time is over after their first slice."""
    for name, value in (("PAGE_SECONDS", 0.0), ("COUNT_SECONDS", 0.0), ("GROWTH", 1), ("FIRST_SLICE", 100)):
        monkeypatch.setattr(search, name, value)


@pytest.mark.parametrize("queues", [(VIDEO,), (VIDEO, "mail")])
@pytest.mark.parametrize("query", ["", "?status=queued", "?task=noop", "?payload={}"])
@pytest.mark.usefixtures("_backlog", "_hurried")
def test_a_search_whose_time_is_over_names_no_job_of_another_queue(guarded, make, engine, queues, query):
    client, headers = guarded.test_client(), make(*queues)
    with engine.connect() as connection:
        theirs = {
            str(one)
            for one in connection.execute(
                text("SELECT id FROM jobs WHERE queue = :q"), {"q": OTHER}
            ).scalars()
        }
    found, cursor, ended_early = [], None, 0
    while True:
        more = f"{'&' if query else '?'}cursor={cursor}" if cursor else ""
        page = client.get(f"/jobs{query}{more}", headers=headers).json
        found += [one["queue"] for one in page["items"]]
        ended_early += "ended_early" in page
        cursor = page["next_cursor"]
        assert cursor not in theirs
        if cursor is None:
            break
    assert found == [VIDEO]
    assert ended_early >= 5


def test_whether_numbers_of_queues_are_estimates_does_not_hang_on_other_queues(
    guarded, make, engine, monkeypatch
):
    monkeypatch.setattr(backlog, "COUNTED_OF_ONE", range(2, 2))
    client, headers, all_of_it = guarded.test_client(), make(VIDEO, "mail"), make()
    queued(engine, queue=VIDEO)
    assert client.get("/queues", headers=headers).json["counts_are_estimates"] is False
    for _ in range(3):
        queued(engine, queue=OTHER)
        claimed(engine, queue=OTHER)
    assert client.get("/queues", headers=headers).json["counts_are_estimates"] is False
    assert client.get("/queues", headers=all_of_it).json["counts_are_estimates"] is True


#: Statements of each request: of who reaches everything as many as there were before keys had queues, and of a key of queues.
COSTS = {
    "submit": (1, 1),
    "submit with a unique key": (5, 5),
    "submit again": (3, 3),
    "get": (1, 1),
    "cancel": (4, 5),
}


@pytest.mark.parametrize("key", ["none is asked for", "of all queues", "of queues"])
def test_a_request_costs_no_statement_more_where_no_queues_are_named(another_app, handle, key):
    app = another_app(api_auth="open" if key == "none is asked for" else "keys")
    queues = (VIDEO,) if key == "of queues" else ()
    issued = app.extensions["access"].create(NewKey("a test's", Role.OPERATOR, queues=queues), by=None)
    app.extensions["doorkeeper"].book.forget()
    client, headers = app.test_client(), {"Authorization": f"Bearer {issued.secret}"}
    body = {"payload": {"task": handle(lambda _payload, _context: None, queue=VIDEO)}}
    first = client.post("/jobs", headers=headers, json=body | {"idempotency_key": "k"})
    path = f"/jobs/{first.json['id']}"
    requests = {
        "submit": ("POST", "/jobs", body),
        "submit with a unique key": ("POST", "/jobs", body | {"unique": {"key": "k"}}),
        "submit again": ("POST", "/jobs", body | {"idempotency_key": "k"}),
        "get": ("GET", path, None),
        "cancel": ("POST", f"{path}/cancel", {}),
    }
    cost = {}
    for name, (method, where, sent_body) in requests.items():
        with statements(engine_of(app)) as sent:
            answer = client.open(where, method=method, headers=headers, json=sent_body)
        assert answer.status_code in {200, 201}, answer.text
        # Now and then a process looks whether keys, pauses and limits have changed, whatever is asked.
        cost[name] = len([one for one in sent if not re.search("access_|SELECT rule, name", one)])
    assert cost == {name: both[key == "of queues"] for name, both in COSTS.items()}


def test_a_key_of_all_queues_sends_the_statements_of_one_without_reach(guarded, make, engine):
    client, headers = guarded.test_client(), make()
    job = filled(engine, VIDEO)[2]
    with statements(engine_of(guarded)) as sent:
        for path in ("/jobs", f"/jobs/{job.id}", "/dlq", "/dlq/letters", "/dlq/groups", "/flow/changes"):
            assert client.get(path, headers=headers).status_code == 200
    assert not [
        one for one in sent if "queues" in one and "access_keys" not in one and "FROM queues" not in one
    ]
