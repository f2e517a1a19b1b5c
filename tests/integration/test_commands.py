"""The command line and `GET /jobs/{id}/explain`, over real servers."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from ending import complete
from factories import claimed, completed, dead_lettered, letters_of, queued, row_of, waiting
from sqlalchemy import text

from tasks.presence.thread import Presence
from webapp.dead_letters import service as dead_letters
from webapp.infra.broker import heartbeats
from webapp.jobs.control import ask_cancel
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.options import Terms


def answer(result, code=0):
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def explained(client, job_id):
    found = client.get(f"/jobs/{job_id}/explain")
    assert found.status_code == 200
    return found.json


def live(redis, *queues):
    heartbeats.beat(
        redis, "w:1:x", 30, json.dumps({"role": "worker@h", "queues": queues, "children": 2, "running": 1})
    )


def test_why_a_job_is_not_running(client, engine, redis):
    first, second = queued(engine), queued(engine)
    urgent = queued(engine, dispatched=True, terms=Terms(priority=9))
    assert explained(client, first.id)["state"] == "no_worker"
    live(redis, "other")
    assert explained(client, first.id)["state"] == "no_worker"
    live(redis, "default")
    assert explained(client, urgent.id)["state"] == "sent"
    behind = explained(client, second.id)
    assert (behind["state"], behind["facts"]["ahead"]) == ("behind_others", 2)
    later = queued(engine, terms=Terms(run_at=datetime.now(UTC) + timedelta(hours=1)))
    assert explained(client, later.id)["state"] == "waiting_until"
    running = claimed(engine)
    assert explained(client, running.id)["facts"]["worker_id"] == running.worker_id
    with engine.begin() as connection:
        ask_cancel(connection, running.id)
    assert explained(client, running.id)["state"] == "stopping"
    assert explained(client, completed(engine).id)["state"] == "final"
    assert client.get(f"/jobs/{uuid4()}/explain").status_code == 404


def test_without_redis_it_is_not_known_who_listens(another_app, engine, closed_port):
    client = another_app(redis_url=f"redis://127.0.0.1:{closed_port}/0").test_client()
    assert explained(client, queued(engine).id)["state"] == "broker_away"


def test_what_a_worker_says_of_itself_is_read(redis, settings):
    presence = Presence(settings, "worker@test", queues=["a", "b"], capacity=3)
    presence.run_once()
    heartbeats.beat(redis, "strange", 30, "no JSON")
    ours, strange = sorted(heartbeats.workers(redis), key=lambda worker: worker.role, reverse=True)
    assert (ours.role, ours.queues, ours.children, ours.running) == ("worker@test", ("a", "b"), 3, 0)
    assert (strange.name, strange.queues) == ("strange", ())
    presence.stop()


def test_jobs_are_listed_for_people_and_for_programs(flask, engine):
    assert flask("jobs", "list").stdout == "no jobs\n"
    job, done = queued(engine, terms=Terms(tags=("a",))), completed(engine)
    table = flask("jobs", "list").stdout.splitlines()
    assert table[0].split()[:3] == ["id", "status", "task"]
    assert [line.split()[0] for line in table[1:]] == [str(done.id), str(job.id)]
    found = answer(flask("jobs", "list", "--status", "queued", "--tag", "a", "--json"))
    assert ([one["id"] for one in found["items"]], found["total"]) == ([str(job.id)], 1)
    refused = flask("jobs", "list", "--limit", "0")
    assert refused.exit_code == 2
    assert "limit" in refused.output


def test_a_job_is_shown_with_its_attempts(flask, engine):
    job = dead_lettered(engine)
    assert re.search(rf"^id +{job.id}$", flask("jobs", "show", job.id).stdout, re.MULTILINE)
    shown = flask("jobs", "show", job.id, "--attempts").stdout
    assert "broken" in shown
    assert shown.splitlines()[-2:] == ["attempt 1:", "  Traceback"]
    assert answer(flask("jobs", "show", job.id, "--attempts", "--json"))["attempts"][0]["outcome"] == "failed"
    assert "attempts" not in answer(flask("jobs", "show", job.id, "--json"))
    missing = flask("jobs", "show", uuid4())
    assert (missing.exit_code, missing.stdout) == (4, "")
    assert flask("jobs", "show", "x").exit_code == 2


def test_a_job_is_submitted_and_sent(flask, engine, redis):
    made = answer(
        flask("jobs", "submit", '{"task": "noop"}', "--key", "k", "--priority", 7, "--tag", "a", "--json")
    )
    assert (made["status"], made["priority"], made["tags"]) == ("queued", 7, ["a"])
    assert len(waiting(redis)) == 1
    again = flask("jobs", "submit", '{"task": "noop"}', "--key", "k", "--priority", 7, "--tag", "a")
    assert again.stdout == f"{made['id']} (was there before)\n"
    other = flask("jobs", "submit", '{"task": "sleep"}', "--key", "k")
    assert (other.exit_code, "another request" in other.output) == (1, True)
    for wrong in ("[1]", "{", '{"a": NaN}'):
        assert flask("jobs", "submit", wrong).exit_code == 2


def test_a_job_is_cancelled_and_queued_again(flask, engine):
    job = queued(engine)
    assert flask("jobs", "cancel", job.id, "--reason", "twice").stdout == f"{job.id} cancelled\n"
    assert answer(flask("jobs", "cancel", job.id, "--json"))["cancel_reason"] == "twice"
    assert flask("jobs", "retry", job.id).stdout == f"{job.id} queued\n"
    assert flask("jobs", "retry", job.id).exit_code == 1
    flask("jobs", "cancel", job.id)
    assert answer(flask("jobs", "retry", job.id, "--json"))["status"] == "queued"
    assert flask("jobs", "cancel", completed(engine).id).exit_code == 1


def test_waiting_ends_with_how_the_job_ended(flask, engine):
    assert flask("jobs", "wait", completed(engine).id).exit_code == 0
    assert answer(flask("jobs", "wait", dead_lettered(engine).id, "--json"), 1)["status"] == "failed"
    job = queued(engine)
    assert flask("jobs", "wait", job.id, "--timeout", "0.1").exit_code == 124
    assert flask("jobs", "wait", uuid4()).exit_code == 4
    claim = claimed(engine)

    def end():
        with engine.begin() as connection:
            complete(connection, claim, None)

    timer = threading.Timer(0.2, end)
    timer.start()
    assert flask("jobs", "wait", claim.id, "--timeout", "30").exit_code == 0
    timer.join()


def test_dead_letters_are_grouped_listed_and_dealt_with(flask, engine):
    assert flask("dlq", "groups").stdout == flask("dlq", "list").stdout == "no dead letters\n"
    jobs = [dead_lettered(engine) for _ in range(3)]
    assert flask("dlq", "groups", "--task", "noop").stdout.splitlines()[1].startswith("3 ")
    assert answer(flask("dlq", "groups", "--json"))["items"][0]["count"] == 3
    assert len(flask("dlq", "list").stdout.splitlines()) >= 4
    assert answer(flask("dlq", "list", "--limit", "1", "--json"))["total"] == 3
    assert flask("dlq", "requeue", "--all", "--dry-run").stdout == "3 match\n"
    assert (
        flask("dlq", "requeue", "--id", jobs[0].id, "--by", "ann", "--why", "try").stdout == "1 of 1 done\n"
    )
    (letter,) = letters_of(engine, jobs[0].id)
    assert (letter["resolved_by"], letter["resolved_why"]) == ("ann", "try")
    done = answer(flask("dlq", "discard", "--task", "noop", "--json"))
    assert (done["matched"], done["changed"]) == (2, 2)
    assert flask("dlq", "requeue").exit_code == 2
    assert flask("dlq", "discard", "--all", "--task", "noop").exit_code == 2


def test_what_takes_long_goes_on_at_its_rate_and_shows_how_far_it_is(flask, engine, monkeypatch):
    monkeypatch.setattr(dead_letters, "BATCH", 2)
    monkeypatch.setattr(dead_letters, "WINDOW", 0.0)
    jobs = [dead_lettered(engine) for _ in range(5)]
    assert answer(flask("dlq", "requeue", "--all", "--rate", "1", "--json"))["changed"] == 5
    due = [row_of(engine, job.id).run_at for job in jobs]
    assert [round((one - due[0]).total_seconds()) for one in due] == [0, 1, 2, 3, 4]


def test_live_workers_are_listed(flask, redis):
    assert flask("workers", "list").stdout == "no live workers\n"
    live(redis, "default", "mail")
    assert "default, mail" in flask("workers", "list").stdout
    assert answer(flask("workers", "list", "--json"))["items"][0]["children"] == 2


def test_a_server_that_is_away_is_named(another_app, engine, closed_port):
    app = another_app(redis_url=f"redis://127.0.0.1:{closed_port}/0")
    with app.app_context():
        assert app.test_cli_runner().invoke(args=["workers", "list"]).exit_code == 5
    away = another_app(database_url=f"postgresql+psycopg2://x@127.0.0.1:{closed_port}/x")
    with away.app_context():
        assert away.test_cli_runner().invoke(args=["jobs", "list"]).exit_code == 5


@pytest.mark.parametrize("task", ["send-email", "slep", None, 5])
def test_a_shell_without_handlers_refuses_what_it_cannot_judge(flask, engine, task):
    result = flask("jobs", "submit", json.dumps({"task": task}))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr == (
        f"Error: payload.task {str(task)!r} is not known here: set HANDLERS to what API and workers have, or use HTTP\n"
    )
    assert count_jobs(engine) == 0


def test_a_shell_with_handlers_judges_as_the_api_does(another_app, engine):
    made = another_app(handlers="tasks.handlers.demo")
    run = made.test_cli_runner().invoke
    with made.app_context():
        refused = run(args=["jobs", "submit", '{"task": "slep"}'])
        assert (refused.exit_code, "did you mean 'sleep'?" in refused.stderr) == (1, True)
        assert run(args=["jobs", "submit", '{"task": "sleep"}']).exit_code == 0
        assert run(args=["jobs", "submit", '{"to": "ada"}']).exit_code == 0
    assert count_jobs(engine) == 2


def count_jobs(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM jobs")).scalar_one()


#: Clears the screen, rings, turns the reading direction, begins a false line; C1's way of saying the first.
NASTY = "\x1b[2J\x07\u202eevil\nid  forged\x9b2J"


def test_what_it_prints_steers_no_terminal(flask, engine):
    job = dead_lettered(engine, ErrorReport(f"E{NASTY}", NASTY), queue="default", idempotency_key=f"k{NASTY}")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET task = :nasty, queue = :nasty, tags = ARRAY[:nasty], cancel_reason = :nasty,"
                 " payload = jsonb_build_object('task', CAST(:nasty AS text), CAST(:nasty AS text), 1)"),
            {"nasty": NASTY},
        )  # fmt: skip
        connection.execute(text("UPDATE dead_letters SET task = :nasty, queue = :nasty"), {"nasty": NASTY})
    for words in (
        ("jobs", "list"),
        ("jobs", "show", job.id),
        ("jobs", "show", job.id, "--attempts"),
        ("jobs", "tail", job.id),
        ("jobs", "explain", job.id),
        ("jobs", "watch", "--for", 0),
        ("jobs", "watch", "--for", 0, "--json"),
        ("dlq", "list"),
        ("dlq", "groups"),
        ("jobs", "submit", json.dumps({"task": NASTY})),
        ("jobs", "submit", json.dumps({"payload": {}}), "--queue", NASTY),
        ("jobs", "list", "--task", NASTY),
        ("dlq", "list", "--task", NASTY),
        ("jobs", "list", "--payload", NASTY),
    ):
        for more in ((), ("--json",)):
            result = flask(*words, *more)
            shown = result.stdout + result.stderr
            assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown), words
            assert not any(line.startswith("id  forged") for line in shown.splitlines()), words
    (item,) = answer(flask("jobs", "list", "--json"))["items"]
    assert (item["task"], item["idempotency_key"]) == (NASTY, f"k{NASTY}")
