"""Statements that must agree hold the same text: each file opens in psql as it is, so the text stands in each."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from alembic.script import ScriptDirectory

from webapp.flow import store as flow_store
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import ends, store
from webapp.jobs.columns import FIELDS, OF_ONE, columns_of
from webapp.jobs.model import Claim, LeasedJob
from webapp.queues import store as queue_store
from webapp.queues import tickets


def words(text):
    return re.sub(r"\s+", " ", text).strip()


def between(text, start, end):
    return text.split(start, 1)[1].split(end, 1)[0]


def selected(text):
    """The names under which a list of columns is selected."""
    whole = re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", text)))
    return tuple(re.split(r"[\s.]", one.strip())[-1] for one in whole.split(","))


def test_the_head_of_a_queue_is_the_same_for_all_that_look_at_it():
    look, take, claim = (
        words(between(read_sql(queue_store.__file__, "head", name), "head AS (", "LIMIT :limit"))
        for name in ("look", "take", "claim")
    )
    aside = words(between(read_sql(queue_store.__file__, "aside", "set_aside"), "head AS (", "LIMIT :limit"))
    assert look == take == claim == aside


def test_a_claim_pays_for_no_pause_where_nothing_is_paused():
    assert "closed" not in store._CLAIM.text
    guard = ":closed_queues) AND task <> ALL(:closed_tasks)"
    assert guard in read_sql(store.__file__, "claim", "claim")
    plain = words(read_sql(store.__file__, "claim", "claim").replace("AND queue <> ALL(" + guard, ""))
    assert plain == words(read_sql(store.__file__, "claim", "claim", without=["paused"]))


def test_queues_and_tasks_are_changed_by_the_same_statements():
    for name in ("find", "all", "make", "lock", "set"):
        queue, task = (read_sql(flow_store.__file__, file, name) for file in ("queues", "tasks"))
        same = task.replace("has_aside = has_aside OR :paused, ", "").replace("task_limits", "queues")
        # A task has no limits of keys, and no bounds.
        same = same.replace(
            "NULL::int, NULL::int, NULL::float8, NULL::int, false, NULL::text, NULL::float8", "KEYS"
        )
        same = re.sub(r"NULL::int, NULL::float8, NULL::int(?= FROM|$)", "BOUNDS", words(same))
        queue = words(queue).replace("max_depth, max_age, key_max_depth", "BOUNDS")
        queue = queue.replace(
            "key_concurrency, key_rate_limit, key_rate_per, key_rate_burst, fair, key_order, ageing", "KEYS"
        )
        assert words(re.sub(r"\btask\b", "name", same)) == words(queue)


def test_a_queue_without_an_order_is_claimed_from_by_the_statement_of_before():
    scripts = ScriptDirectory(str(Path(__file__).resolve().parents[2] / "migrations"))
    before, now = (scripts.get_revision(number).module for number in ("0019", "0021"))
    plain = now._CLAIM.format(**now._PLAIN)
    assert words(plain) in words(before._TAKE)
    assert plain in now._take()


def test_both_claims_write_and_answer_the_same():
    named, ticket = (
        read_sql(store.__file__, "claim", "claim"),
        read_sql(queue_store.__file__, "head", "claim"),
    )
    assert words(between(named, "SET", "WHERE")) == words(between(ticket, "SET", "FROM head WHERE"))
    answer = words(named.split("RETURNING", 1)[1])
    assert words(between(ticket, "RETURNING priority,", ")\nSELECT")) == answer
    assert (
        words(between(read_sql(store.__file__, "claim", "claimed_by"), "SELECT", "FROM jobs_living"))
        == answer
    )
    assert selected(answer) == Claim._fields


def test_a_jobs_columns_are_those_of_its_row():
    for name in ("find", "find_ended"):
        text = words(between(read_sql(store.__file__, "find_job", name), "SELECT", "FROM jobs"))
        assert text.startswith(words(columns_of(FIELDS)) + ", (SELECT")
        assert text.endswith(f") AS {OF_ONE}")


def test_a_plain_job_is_stored_without_what_it_does_not_use():
    every = {"keyed", "terms", "as sent"}
    for name in ("one", "many"):
        whole = read_sql(store.__file__, "insert", name)
        plain = read_sql(store.__file__, "insert", name, without=sorted(every))
        assert "--" not in whole + plain
        for word in ("key_ttl", ":expires_in", ":as_sent", "callback_url"):
            assert word in whole
            assert word not in plain


def test_jobs_are_taken_over_with_the_same_fields():
    expired, held = (
        words(between(read_sql(store.__file__, "leases", name), "SELECT", "FROM jobs_living j"))
        for name in ("take_expired", "take_held_by")
    )
    assert expired == held
    assert len(selected(expired)) == len(fields(LeasedJob))


def test_one_job_and_many_are_stored_in_the_same_columns_under_the_same_rule_for_keys():
    one, many = (words(read_sql(store.__file__, "insert", name)) for name in ("one", "many"))
    for start, end in (("INSERT INTO jobs_living (", ")"), ("ON CONFLICT (key)", "RETURNING job_id")):
        assert between(one, start, end) == between(many, start, end)


def test_every_form_of_an_attempts_end_has_the_fence():
    forms = (
        ends._END_ATTEMPTS,
        ends._END_ONE,
        ends._COMPLETE_MANY,
        ends._COMPLETE_ONE,
        tickets._END_AND_CLAIM,
    )
    fences = {
        words(between(form.text, "WHERE jobs.id = ANY(ARRAY[given.id])", ") IS NULL")) for form in forms
    }
    assert len(fences) == 1
    (fence,) = fences
    assert "jobs.attempt = given.attempt AND jobs.ended_by IS NULL" in fence
    assert "FROM job_attempts AS before" in fence


def test_an_end_pays_for_nothing_that_it_has_not():
    other, times = (
        ("follows", "delays", "reasons", "death_reason"),
        (":ran_from", ":ran_until", "make_interval"),
    )
    assert not any(word in ends._COMPLETE_MANY.text for word in other)
    assert not any(word in ends._COMPLETE_ONE.text for word in (*other, *times, "unnest", "recorded"))
    assert all(word in ends._END_ATTEMPTS.text for word in (*other, *times))
    assert "unnest" not in ends._END_ONE.text
    assert not any("job_attempts (" in form.text for form in (ends._COMPLETE_ONE, ends._COMPLETE_MANY))
