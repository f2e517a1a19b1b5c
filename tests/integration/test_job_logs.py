"""What handlers log is kept with their jobs where that is asked for: the last lines, off the handler's way, and never at the job's cost."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from factories import attempts_of, claimed, ended, preparing, queued, row_of
from several_tenants import MINE, OTHER, key_of, made
from sqlalchemy import create_engine, text

from tasks.attempt import handler_log, kept_log, run
from tasks.attempt.kept_log import KeptLog, Writer, line_of
from tasks.chunk import execute_jobs
from tasks.execution import execute_job
from tasks.sweeps.prune import run_log_prune
from webapp.access.model import Role
from webapp.infra.telemetry import metrics
from webapp.jobs import job_logs
from webapp.jobs.job_logs import MOST_BYTES, MOST_LINES, Line, Part, log_of


@pytest.fixture
def run_kept(handle, engine):
    """Runs attempts of a job whose lines are kept; gives its id."""

    def once(function, **changes):
        name = handle(function, keep_log=True)
        row = queued(engine, task=name, payload={"task": name}, **changes)
        ended(execute_job, str(row.id))
        return row.id

    return once


@pytest.fixture
def logged(client):
    def of(job_id, **query):
        answer = client.get(f"/jobs/{job_id}/logs", query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.json

    return of


def texts(page):
    return [item["text"] for item in page["items"]]


def dropped():
    return sum(
        one.value for one in metrics.job_log_lines_dropped.collect()[0].samples if one.name.endswith("_total")
    )


def test_lines_of_a_handler_are_kept_with_attempt_time_and_level(run_kept, logged, engine):
    def work(payload, context):
        context.logger.info("page was fetched", extra={"page": 3})
        context.logger.warning("slow: %s s", 7)
        try:
            int("no such page")
        except ValueError:
            context.logger.exception("gave up")

    job_id = run_kept(work)
    page = logged(job_id)
    assert [(item["attempt"], item["level"]) for item in page["items"]] == [
        (1, "INFO"),
        (1, "WARNING"),
        (1, "ERROR"),
    ]
    first, second, third = texts(page)
    assert (first, second) == ('page was fetched {"page": 3}', "slow: 7 s")
    assert third.startswith("gave up\nTraceback")
    assert third.endswith("ValueError: invalid literal for int() with base 10: 'no such page'")
    at = datetime.fromisoformat(page["items"][0]["at"])
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
    assert (page["next_after"], page["dropped"], page["kept"]) == (None, 0, True)
    # Nothing waits for more: they were written before the attempt's end was.
    assert row_of(engine, job_id).status == "completed"


def test_lines_of_all_attempts_follow_each_other_and_come_in_pages(run_kept, logged, engine):
    def work(payload, context):
        context.logger.info("attempt %d", context.attempt)
        if context.attempt < 3:
            raise ValueError

    job_id = run_kept(work)
    for _ in range(2):
        with engine.begin() as connection:
            connection.execute(text("UPDATE jobs SET run_at = now()"))
        ended(execute_job, str(job_id))
    first = logged(job_id, limit=2)
    assert texts(first) == ["attempt 1", "attempt 2"]
    second = logged(job_id, limit=2, after=first["next_after"])
    assert (texts(second), second["next_after"]) == (["attempt 3"], None)
    assert len(attempts_of(engine, job_id)) == 3


def test_nothing_is_kept_that_is_not_asked_for(handle, engine, logged, parts):
    def work(payload, context):
        context.logger.info("a line")

    name, never = handle(work), handle(work, keep_log=False)
    ids = []
    for on in (False, True):
        object.__setattr__(parts.settings, "keep_job_logs", on)
        try:
            for one in (name, never):
                ids.append(queued(engine, task=one, payload={"task": one}).id)
                ended(execute_job, str(ids[-1]))
        finally:
            object.__setattr__(parts.settings, "keep_job_logs", False)
    assert [texts(logged(one)) for one in ids] == [[], [], ["a line"], []]
    assert logged(ids[0])["kept"] is False


def test_an_attempt_that_keeps_none_makes_nothing(parts, engine):
    assert run._log_of(parts, claimed(engine)) is None


def test_a_job_keeps_its_last_lines_and_says_how_many_are_gone(run_kept, logged):
    def many(payload, context):
        for number in range(450):
            context.logger.info("line %d", number)

    page = logged(run_kept(many))
    assert texts(page) == [f"line {number}" for number in range(250, 450)]
    assert page["dropped"] == 250

    def large(payload, context):
        for number in range(40):
            context.logger.info("%d %s", number, "x" * 4_000)

    page = logged(run_kept(large))
    assert sum(len(one) for one in texts(page)) <= MOST_BYTES
    assert texts(page)[-1].startswith("39 ")
    assert len(page["items"]) + page["dropped"] == 40


def test_what_a_long_job_writes_is_written_in_between_and_the_table_stays_small(parts, engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        for number in range(30):
            lines = [Line("2030-01-01T00:00:00Z", "INFO", f"{number}.{n}") for n in range(20)]
            job_logs.write(connection, [Part(claim.id, 1, number * 20, lines)])
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM job_logs")).scalar_one() == 10
        log = job_logs.read(connection, claim.id)
    assert (log.lines[0].text, log.lines[-1].text, log.dropped) == ("20.0", "29.19", 400)


@pytest.mark.parametrize(
    "given",
    [
        ("a\x00b \ud800 \x1b[31mred\r\nevent: final\ndata: {}",),
        ({"not": "a sentence"},),
        ("<script>alert(1)</script>",),
        ("x" * 10_000,),
        (b"\xff",),
    ],
    ids=repr,
)
def test_whatever_is_logged_becomes_a_line_of_text(run_kept, logged, given):
    class Hostile:
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

    def work(payload, context):
        context.logger.info(*given)
        context.logger.info(
            "field", extra={"job_id": "forged", "level": "X", "it": Hostile(), 7: float("nan")}
        )

    page = logged(run_kept(work))
    assert len(page["items"]) == 2
    assert {item["level"] for item in page["items"]} == {"INFO"}
    assert all(len(one) <= kept_log.LONGEST_TEXT for one in texts(page))
    assert '"extra_job_id": "forged"' in texts(page)[1]


def test_a_password_in_a_url_is_not_kept(run_kept, logged):
    job_id = run_kept(lambda payload, context: context.logger.info("at %s", "postgresql://ada:secret@db/x"))
    assert texts(logged(job_id)) == ["at postgresql://ada:***@db/x"]


def test_coroutines_threads_and_chunks_keep_theirs_apart(handle, engine, logged):
    async def coroutine(payload, context):
        context.logger.info("before")
        await asyncio.sleep(0)
        await asyncio.to_thread(context.logger.info, "in a thread")

    def pooled(payload, context):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda n: context.logger.info("%s %d", payload["n"], n), range(2)))

    one = handle(coroutine, keep_log=True)
    job = queued(engine, task=one, payload={"task": one})
    ended(execute_job, str(job.id))
    assert texts(logged(job.id)) == ["before", "in a thread"]
    name = handle(pooled, keep_log=True)
    ids = [queued(engine, task=name, payload={"task": name, "n": n}).id for n in range(20)]
    execute_jobs.run(list(map(str, ids)))
    for number, job_id in enumerate(ids):
        assert sorted(texts(logged(job_id))) == [f"{number} 0", f"{number} 1"]


def test_a_process_that_the_handler_forks_keeps_none_and_hangs_nothing(run_kept, logged):
    def work(payload, context):
        context.logger.info("parent")
        child = os.fork()
        if child == 0:
            context.logger.info("copy")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    assert texts(logged(run_kept(work))) == ["parent"]


def test_a_database_that_is_away_costs_lines_and_not_the_job(engine, closed_port, clock):
    writer = Writer(create_engine(engine.url.set(port=closed_port)))
    log = KeptLog(claimed(engine), writer)
    before, began = dropped(), time.monotonic()
    for _ in range(3):
        log.logger.info("lost")
    log.end(wait=True)
    assert time.monotonic() - began < 2
    writer._engine = engine
    log.logger.info("kept")
    writer.hurry(5.0, log)
    with engine.connect() as connection:
        found = job_logs.read(connection, log._claim.id)
    assert ([line.text for line in found.lines], found.dropped) == (["kept"], 3)
    assert dropped() == before + 3


def test_a_slow_database_is_not_waited_for(engine, eventually):
    claim = claimed(engine)
    writer = Writer(engine)
    log = KeptLog(claim, writer)
    with engine.begin() as holder:
        holder.execute(text("LOCK TABLE job_logs"))
        log.logger.info("waits")
        began = time.monotonic()
        log.end(wait=True)
        assert time.monotonic() - began < 0.9
        # Its statement ends by itself, and the thread goes on.
        eventually(lambda: not writer._waiting and not writer._is_writing, 10)


def test_while_an_attempt_runs_it_writes_once_a_second(engine, eventually):
    writer = Writer(engine)
    log = KeptLog(claimed(engine), writer)
    log.logger.info("first")
    eventually(lambda: not writer._waiting and not writer._is_writing, 10)
    until = writer._write_at
    log.logger.info("second")
    assert log in writer._waiting
    eventually(lambda: log not in writer._waiting, 10)
    assert time.monotonic() >= until


def test_too_many_attempts_that_wait_are_bounded(engine, monkeypatch):
    monkeypatch.setattr(kept_log, "MOST_WAITING", 2)
    writer = Writer(engine)
    writer._thread.ensure = lambda: True
    before = dropped()
    for _ in range(5):
        KeptLog(claimed(engine), writer).logger.info("line")
    assert (len(writer._waiting), dropped()) == (2, before + 3)


# ---- who sees them ----


def test_they_need_the_scope_of_content_and_are_their_tenants(another_app, engine, parts):
    guarded = another_app(api_auth="keys")
    tenants = made(guarded, engine, MINE, OTHER)
    claim = claimed(engine, tenant=tenants[MINE])
    with engine.begin() as connection:
        job_logs.write(connection, [Part(claim.id, 1, 0, [Line("2030-01-01T00:00:00Z", "INFO", "canary")])])
    path = f"/jobs/{claim.id}/logs"
    assert key_of(guarded, MINE)(path).json["items"][0]["text"] == "canary"
    assert key_of(guarded, OTHER)(path).status_code == 404
    seen = key_of(guarded, MINE, role=Role.VIEWER)(path)
    assert (seen.status_code, seen.json["missing_scope"]) == (403, "jobs:content")
    assert key_of(guarded)(path).status_code == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [({"limit": 0}, "limit"), ({"limit": 201}, "limit"), ({"after": -1}, "after"), ({"x": 1}, "x")],
)
def test_a_query_that_breaks_a_rule_is_told_which(client, engine, query, field):
    answer = client.get(f"/jobs/{queued(engine).id}/logs", query_string=query)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, field)


def test_a_job_that_there_is_not_has_none(client):
    assert client.get("/jobs/01a20af4-1c53-716c-9a00-04d2b42b60c5/logs").status_code == 404


def read(stream):
    """The next event of a stream: name, id, data."""
    for chunk in stream:
        fields = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n") if line[0] != ":")
        if "event" in fields:
            return fields["event"], fields["id"], json.loads(fields["data"])
    return None


def put(engine, claim, *lines, before=0):
    with engine.begin() as connection:
        made = [Line("2030-01-01T00:00:00Z", "INFO", one) for one in lines]
        job_logs.write(connection, [Part(claim.id, claim.attempt, before, made)])


def test_a_stream_tells_each_line_once_and_before_the_end(client, engine, handle):
    name = handle(lambda payload, context: None, keep_log=True)
    claim = claimed(engine, task=name, payload={"task": name})
    put(engine, claim, "one")
    answer = client.get(f"/jobs/{claim.id}/events")
    stream = answer.iter_encoded()
    assert next(stream) == b"retry: 1000\n\n"
    name, first, data = read(stream)
    assert (name, data["text"]) == ("log", "one")
    assert read(stream)[0] == "state"
    put(engine, claim, "two\nevent: final", "three", before=1)
    assert [read(stream)[2]["text"] for _ in range(2)] == ["two\nevent: final", "three"]
    put(engine, claim, "four", before=3)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET status = 'completed', finished_at = now(), updated_at = now(), lease_expires_at = NULL, worker_id = NULL"
            )
        )
    told = [read(stream) for _ in range(2)]
    assert [one[0] for one in told] == ["log", "final"]
    assert read(stream) is None
    answer.close()
    assert client.get(f"/jobs/{claim.id}/events", headers={"Last-Event-ID": told[1][1]}).status_code == 204
    again = client.get(f"/jobs/{claim.id}/events", headers={"Last-Event-ID": first})
    rest = [read(again.iter_encoded()) for _ in range(4)]
    again.close()
    assert [one[2]["text"] for one in rest[:3]] == ["two\nevent: final", "three", "four"]
    assert rest[3][0] == "final"


def test_a_stream_tells_no_lines_to_who_sees_no_content(another_app, engine, handle):
    guarded = another_app(api_auth="keys")
    name = handle(lambda payload, context: None, keep_log=True)
    claim = claimed(engine, task=name, payload={"task": name})
    put(engine, claim, "canary")
    answer = key_of(guarded, role=Role.VIEWER)(f"/jobs/{claim.id}/events")
    assert read(answer.iter_encoded())[0] == "state"
    answer.close()


@pytest.mark.parametrize("last", ["x/y", "/", "1/", "1/99999999999999999999", "/-1"])
def test_an_event_id_of_no_ones_is_no_fault(client, engine, handle, last):
    name = handle(lambda payload, context: None, keep_log=True)
    claim = claimed(engine, task=name, payload={"task": name})
    put(engine, claim, "one")
    answer = client.get(f"/jobs/{claim.id}/events", headers={"Last-Event-ID": last})
    assert read(answer.iter_encoded())[2]["text"] == "one"
    answer.close()


# ---- how long ----


def test_lines_go_with_the_day_of_their_jobs(parts, engine):
    claim, days = claimed(engine), parts.settings.retention_days
    put(engine, claim, "old")
    put(engine, claim, "young", before=1)
    with preparing(engine) as connection:
        connection.execute(
            text("UPDATE job_logs SET written_at = now() - make_interval(days => :days) WHERE before = 0"),
            {"days": days + 1},
        )
    assert run_log_prune(parts, 1.0) == 1
    with engine.connect() as connection:
        assert [line.text for line in job_logs.read(connection, claim.id).lines] == ["young"]


def test_the_last_lines_of_rows_are_found_whatever_is_lost_between():
    def body(*lines):
        return [["2030-01-01T00:00:00Z", "INFO", one] for one in lines]

    assert log_of([]) == ([], 0)
    log = log_of([(1, 1, 0, 2, body("a", "b")), (2, 1, 5, 1, body("c")), (4, 2, 0, 1, body("d"))])
    assert [(line.id, line.attempt, line.text) for line in log.lines] == [
        (1000, 1, "a"),
        (1001, 1, "b"),
        (2000, 1, "c"),
        (4000, 2, "d"),
    ]
    assert log.dropped == 3
    assert log.page(1000, 2) == (log.lines[1:3], 2000)
    many = log_of([(1, 1, 0, 300, body(*map(str, range(300))))])
    assert (len(many.lines), many.dropped) == (MOST_LINES, 100)


def test_a_line_is_made_in_any_thread_of_any_record():
    found = []
    record = handler_log.logger.makeRecord("x", logging.INFO, "f", 1, "m", (), None, extra={"a": {1, 2}})
    thread = threading.Thread(target=lambda: found.append(line_of(record)))
    thread.start()
    thread.join()
    assert found[0].text.startswith("m {")
    broken = handler_log.logger.makeRecord("x", logging.INFO, "f", 1, "%s %s", ("too few",), None)
    assert line_of(broken).text.startswith("%s %s (its arguments do not fit")
