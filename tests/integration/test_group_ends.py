"""Notes of members' ends: every way in which a job ends or comes back leaves one, in its transaction, and it counts once."""

from __future__ import annotations

import pytest
from ending import complete, end_again, end_cancelled, end_last
from factories import ERROR, LEASE, WORKER, age, claimed, completed, dead_lettered, queued
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from tasks.runtime import runtime
from tasks.sweeps import count_ends
from webapp.dead_letters import store as dead_letters
from webapp.dead_letters.model import DeadLetterFilter, ResolveRequest
from webapp.groups import store
from webapp.groups.model import Totals
from webapp.infra.broker.hints import Ticket
from webapp.jobs import control, ends, history, retention
from webapp.jobs.states import AttemptOutcome
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

FAILED = AttemptOutcome.FAILED


def group(engine, kind="batch", *, total=0, parent=None):
    """A group that is there."""
    number = uuid7()
    statement = text(
        "INSERT INTO groups (id, kind, status, total, parent_id) VALUES (:id, :kind, 'open', :total, :parent)"
    )
    with engine.begin() as connection:
        connection.execute(statement, {"id": number, "kind": kind, "total": total, "parent": parent})
    return number


def notes(engine, number):
    """What is noted of a group, in order: what each member was and became."""
    statement = text("SELECT was, became FROM group_ends WHERE group_id = :id ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement, {"id": number})]


def count(engine, number, limit=5_000):
    """Counts, and tells what the group has come to by its counters alone."""
    with engine.begin() as connection:
        assert store.may_count(connection)
        store.count_ends(connection, limit)
    return count_of(engine, number)


def count_of(engine, number):
    """What a group has come to by its counters alone."""
    statement = text("SELECT total, completed, failed, cancelled, skipped FROM groups WHERE id = :id")
    with engine.connect() as connection:
        return Totals(*connection.execute(statement, {"id": number}).one())


def totals(engine, number):
    with engine.connect() as connection:
        return store.totals(connection, [number]).get(number)


def run(work):
    """A way to end a member that runs."""

    def way(engine, number):
        claim = claimed(engine, group=number)
        with engine.begin() as connection:
            work(connection, claim)

    return way


def in_chunks(connection, claim):
    assert ends.complete_many(connection, [ends.completed(claim, None)] * 1) == 1


def by_a_ticket(connection, claim):
    done = [ends.completed(claim, None, 0.0, 0.1)]
    ended, _ = tickets.end_and_claim(
        connection, done, Ticket("default", "noop", 300.0, 5), ClaimTerms(10, WORKER, LEASE)
    )
    assert ended == 1


def asked_to_stop(connection, claim):
    control.cancel(connection, claim.id)
    assert end_cancelled(connection, claim)


def released_when_asked(connection, claim):
    control.cancel(connection, claim.id)
    ends.end_attempt(connection, ends.released(claim))


def cancelled_while_it_waits(engine, number):
    row = queued(engine, group=number)
    with engine.begin() as connection:
        control.cancel(connection, row.id)


def expired(engine, number):
    row = queued(engine, group=number)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = :id"), {"id": row.id}
        )
        assert retention.cancel_expired(connection, 10) == 1


def died(engine, number):
    dead_lettered(engine, group=number)


ENDS = {
    "completed": (run(lambda connection, claim: complete(connection, claim, "1")), "completed"),
    "completed in a chunk": (run(in_chunks), "completed"),
    "completed by a ticket": (run(by_a_ticket), "completed"),
    "asked to stop": (run(asked_to_stop), "cancelled"),
    "released when it was asked": (run(released_when_asked), "cancelled"),
    "cancelled while it waits": (cancelled_while_it_waits, "cancelled"),
    "expired": (expired, "cancelled"),
    "died": (died, "failed"),
}


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(("way", "became"), ENDS.values(), ids=ENDS)
def test_every_end_of_a_member_is_noted_once(engine, way, became):
    number = group(engine, total=1)
    way(engine, number)
    assert notes(engine, number) == [(None, became)]
    assert getattr(totals(engine, number), became) == 1
    assert count(engine, number) == totals(engine, number)
    assert notes(engine, number) == []
    assert getattr(count(engine, number), became) == 1, "it counts once"


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "work",
    [
        lambda connection, claim: end_again(connection, claim, FAILED, ERROR, delay=1.0),
        lambda connection, claim: end_again(connection, claim, AttemptOutcome.SNOOZED, None, delay=1.0),
        lambda connection, claim: ends.end_attempt(connection, ends.released(claim)),
        lambda connection, claim: end_last(connection, claim, FAILED, ERROR),
    ],
    ids=["retried", "snoozed", "released", "waits for its dead letter"],
)
def test_what_has_not_ended_is_not_noted(engine, work):
    number = group(engine, total=1)
    run(work)(engine, number)
    assert notes(engine, number) == []


@pytest.mark.usefixtures("clean")
def test_jobs_without_a_group_are_not_noted(engine):
    for way, _ in ENDS.values():
        way(engine, None)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM group_ends")).scalar() == 0


def requeue_one(connection, claim):
    assert control.requeue(connection, claim.id)


def requeue_dead_letters(connection, _):
    resolved = dead_letters.requeue(connection, ResolveRequest(DeadLetterFilter()), limit=10, first=None)
    assert resolved.count == 1


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("requeue", [requeue_one, requeue_dead_letters])
def test_a_member_that_is_queued_again_is_noted_as_what_it_was(engine, requeue):
    number = group(engine, total=1)
    claim = dead_lettered(engine, group=number)
    assert count(engine, number).failed == 1
    with engine.begin() as connection:
        requeue(connection, claim)
    assert notes(engine, number) == [("failed", None)]
    assert totals(engine, number) == count(engine, number) == Totals(1, 0, 0, 0, 0)


@pytest.mark.usefixtures("clean")
def test_an_end_on_a_day_without_a_table_is_noted_all_the_same(engine):
    number = group(engine, total=2)
    done, dead = claimed(engine, group=number), claimed(engine, group=number)
    with engine.begin() as connection:
        for period in history.periods(connection):
            connection.execute(text(f"DROP TABLE {period.name}"))
        assert complete(connection, done, None)
        assert end_last(connection, dead, FAILED, ERROR)
        assert dead_letters.move_to_dead_letters(connection, dead.id, dead.attempt)
        assert control.requeue(connection, dead.id)
        found = connection.execute(
            text("SELECT was, became FROM group_ends WHERE group_id = :id ORDER BY id"), {"id": number}
        )
        assert [tuple(row) for row in found] == [(None, "completed"), (None, "failed"), ("failed", None)]
        connection.rollback()


@pytest.mark.usefixtures("clean")
def test_a_member_that_is_deleted_for_its_age_stays_counted(engine):
    number = group(engine, total=1)
    claim = completed(engine, group=number)
    count(engine, number)
    age(engine, "finished_at", 40 * 86_400, claim.id)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM group_ends"))
        assert retention.prune(connection, days=30, limit=10) == 1
    assert notes(engine, number) == []
    assert totals(engine, number) == Totals(1, 1, 0, 0, 0)


@pytest.mark.usefixtures("clean")
def test_what_is_taken_back_is_not_noted(engine):
    number = group(engine, total=1)
    claim = claimed(engine, group=number)
    with engine.begin() as connection:
        complete(connection, claim, None)
        connection.rollback()
    assert notes(engine, number) == []


@pytest.mark.usefixtures("clean")
def test_the_end_of_a_child_is_noted_for_its_parent_and_so_is_its_return(engine):
    parent = group(engine, total=1)
    child = group(engine, total=0, parent=parent)
    change = text(
        "UPDATE groups SET status = :status, finished_at = CASE WHEN :ended THEN now() END WHERE id = :id"
    )
    with engine.begin() as connection:
        for status, is_ended in (("failed", True), ("running", False), ("completed", True)):
            connection.execute(change, {"status": status, "ended": is_ended, "id": child})
    assert notes(engine, parent) == [(None, "failed"), ("failed", None), (None, "completed")]
    assert count(engine, parent) == Totals(1, 1, 0, 0, 0)


@pytest.mark.usefixtures("clean")
def test_notes_are_counted_in_portions_and_of_batches_alone(engine):
    numbers = [group(engine, total=3) for _ in range(2)]
    steps = group(engine, "workflow", total=1)
    for number in (*numbers, *numbers, steps, *numbers):
        completed(engine, group=number)
    assert count(engine, numbers[0], limit=1).completed == 1
    assert [totals(engine, number).completed for number in numbers] == [3, 3]
    parts = runtime()
    assert count_ends.run_count(parts, batch=2) == 5
    assert count(engine, numbers[1]).completed == 3
    assert notes(engine, steps) == [(None, "completed")]


@pytest.mark.usefixtures("clean")
def test_one_session_counts_at_a_time(engine):
    number = group(engine, total=1)
    completed(engine, group=number)
    with engine.begin() as first, engine.begin() as second:
        assert store.may_count(first)
        assert not store.may_count(second)
        assert count_ends.run_count(runtime()) == 0
    assert count_ends.run_count(runtime()) == 1


@pytest.mark.usefixtures("clean")
def test_notes_of_a_group_that_is_gone_are_dropped(engine):
    number, other = group(engine, total=1), group(engine, total=1)
    completed(engine, group=number)
    completed(engine, group=other)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM groups WHERE id = :id"), {"id": number})
        assert store.count_ends(connection, 10).groups == [other]
        assert store.drop_orphans(connection, 10) == 1
    assert notes(engine, number) == []


@pytest.mark.usefixtures("clean")
def test_a_batch_whose_counters_are_broken_costs_the_others_nothing(engine):
    broken, whole = group(engine, total=0), group(engine, total=1)
    completed(engine, group=broken)
    completed(engine, group=whole)
    with pytest.raises(IntegrityError):
        count_ends.run_count(runtime())
    assert totals(engine, whole) == count_of(engine, whole) == Totals(1, 1, 0, 0, 0)
    assert notes(engine, broken) == [(None, "completed")], "nothing is lost by that"


def test_members_are_read_by_an_index(engine):
    with engine.connect() as connection:
        indexes = connection.execute(
            text("SELECT tablename FROM pg_indexes WHERE indexdef LIKE '%(group_id, id)%'")
        ).scalars()
        days = [period.name for period in history.periods(connection)]
        assert {*days, "jobs_living"} <= set(indexes)
