"""Keys of a queue by how much waits or runs of them: whose jobs flood it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
from factories import claimed, queued
from sqlalchemy import text

from webapp.flow import keys as module
from webapp.flow.model import lane_of
from webapp.jobs.options import PLAIN


def made(make, engine, count, key, **values):
    for number in range(count):
        given = {name: value(number) if callable(value) else value for name, value in values.items()}
        make(engine, terms=replace(PLAIN, key=key), **given)


waits, runs = partial(made, queued), partial(made, claimed)


def ranked(client, order, more=""):
    answer = client.get(f"/queues/default/keys?order={order}{more}")
    assert answer.status_code == 200, answer.text
    return answer.json


def figures(answer):
    return [(one["key"], one["waiting"], one["running"]) for one in answer["items"]]


def test_the_keys_of_which_most_waits_come_first_and_those_without_limits_too(client, engine):
    waits(engine, 2, "few", lane=lane_of("default", "few"))
    waits(engine, 3, "many", dispatched=True)
    waits(engine, 2, "also", dispatched=False)
    waits(engine, 9, "elsewhere", queue="other")
    waits(engine, 9, None)
    runs(engine, 1, "few")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO key_limits (queue, key, weight, version) VALUES ('default', 'few', 3, 1)")
        )
    answer = ranked(client, "waiting")
    assert figures(answer) == [("many", 3, 0), ("also", 2, 0), ("few", 2, 1)]
    assert [(one["weight"], one["version"]) for one in answer["items"]] == [(1.0, 0), (1.0, 0), (3.0, 1)]
    assert (answer["next_cursor"], answer["counts_are_capped"]) == (None, False)
    assert figures(ranked(client, "waiting", "&limit=1")) == [("many", 3, 0)]


def test_the_keys_of_which_most_runs_come_first(client, engine):
    """What is counted are processes: one that has claimed several jobs runs one after the other."""
    runs(engine, 3, "chunk", worker_id="w/1")
    runs(engine, 2, "wide", worker_id=lambda number: f"w/{number + 2}")
    runs(engine, 4, "elsewhere", queue="other", worker_id=lambda number: f"w/{number + 9}")
    waits(engine, 5, "waits")
    waits(engine, 1, "wide")
    assert figures(ranked(client, "running")) == [("wide", 1, 2), ("chunk", 0, 1)]


def test_where_nothing_waits_or_runs_no_key_is_named(client):
    for order in ("waiting", "running"):
        assert ranked(client, order) == {"items": [], "next_cursor": None, "counts_are_capped": False}


@pytest.mark.parametrize("where", [{}, {"dispatched": True}, {"lane": 1}], ids=str)
def test_jobs_are_counted_up_to_a_bound_and_the_answer_says_so(client, engine, monkeypatch, where):
    monkeypatch.setattr(module, "MOST_RANKED", 3)
    waits(engine, 2, "few", **where)
    assert ranked(client, "waiting")["counts_are_capped"] is False
    waits(engine, 4, "many", **where)
    answer = ranked(client, "waiting")
    assert answer["counts_are_capped"] is True
    assert sum(one["waiting"] for one in answer["items"]) == 3


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("/queues/nowhere/keys?order=waiting", (404, [])),
        ("/queues/default/keys?order=name", (422, ["order"])),
        ("/queues/default/keys?order=waiting&cursor=a", (422, ["order"])),
        ("/queues/default/keys?order=waiting&limit=1001", (422, ["limit"])),
    ],
)
def test_what_breaks_a_rule_is_refused(client, path, refusal):
    answer = client.get(path)
    assert (answer.status_code, [one["field"] for one in answer.json.get("errors", [])]) == refusal


def test_the_command_line_ranks_keys(flask, engine, monkeypatch):
    waits(engine, 2, "few")
    waits(engine, 3, "many")
    shown = json.loads(flask("queues", "keys", "default", "--order", "waiting", "--json").stdout)
    assert figures(shown) == [("many", 3, 0), ("few", 2, 0)]
    monkeypatch.setattr(module, "MOST_RANKED", 4)
    table = flask("queues", "keys", "default", "--order", "waiting")
    assert "many" in table.stdout
    assert "more jobs than were counted" in table.stderr
    assert "no keys" in flask("queues", "keys", "default", "--order", "running").stdout
