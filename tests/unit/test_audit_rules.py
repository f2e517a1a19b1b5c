"""What goes on record, by whom, and which months it lies in, as pure decisions."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import pytest

from webapp.access.model import ANYONE, Caller
from webapp.api.actors import actor_of
from webapp.audit.model import SYSTEM, Act, Actor, ActorKind, Event, Named
from webapp.audit.months import is_over, months_to_make
from webapp.dead_letters.model import MOST_NAMED, DeadLetterFilter, ResolveRequest, act_of
from webapp.flow.reach import EVERYTHING

NOV, DEC, JAN, FEB = date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)
JOB = UUID("018f3a5e-1111-7222-8333-444455556666")
SHOP = Caller(frozenset(), EVERYTHING, key=7, name="shop")


@pytest.mark.parametrize(
    ("caller", "address", "actor"),
    [
        (SHOP, "10.0.0.5", Actor(ActorKind.KEY, "7", "shop", "10.0.0.5", "r")),
        (ANYONE, "10.0.0.5", Actor(ActorKind.ADDRESS, "10.0.0.5", "10.0.0.5", "10.0.0.5", "r")),
        (ANYONE, "", Actor(ActorKind.ADDRESS, "socket", "socket", "", "r")),
    ],
)
def test_an_actor_is_their_key_or_else_their_address(caller, address, actor):
    assert actor_of(caller, address, "r") == actor


@pytest.mark.parametrize(
    ("by", "details"),
    [
        (None, {"a": 1}),
        ("djps", {"a": 1}),
        ("ceo@example.com", {"a": 1, "on_behalf_of": "ceo@example.com"}),
    ],
)
def test_what_a_request_says_of_itself_stands_beside_the_actor(by, details):
    assert Act(Event.DLQ_DISCARD, on_behalf_of=by, details={"a": 1}).details_for(SYSTEM) == details


@pytest.mark.parametrize("given", ["", "job", ":7", "key:"])
def test_a_name_without_kind_or_id_is_refused(given):
    with pytest.raises(ValueError, match="must be a kind and an id"):
        Named.read(given)


@pytest.mark.parametrize(
    ("wanted", "target", "details"),
    [
        (DeadLetterFilter(ids=(JOB,)), Named("job", str(JOB)), {}),
        (DeadLetterFilter(ids=(JOB, JOB)), None, {"ids": [str(JOB)] * 2, "selected": 2}),
        (DeadLetterFilter(ids=(JOB,) * 1_000), None, {"ids": [str(JOB)] * MOST_NAMED, "selected": 1_000}),
        (DeadLetterFilter(), None, {"filter": {}}),
        (
            DeadLetterFilter(task="noop", dead_after=datetime(2026, 11, 1, tzinfo=UTC)),
            None,
            {"filter": {"task": "noop", "dead_after": "2026-11-01T00:00:00+00:00"}},
        ),
    ],
)
def test_what_a_request_about_dead_letters_was_about_is_on_record(wanted, target, details):
    act = act_of(Event.DLQ_REQUEUE, ResolveRequest(wanted, by="ada", why="fixed"), 5, 3)
    assert act == Act(Event.DLQ_REQUEUE, target, 5, 3, "fixed", "ada", details)


@pytest.mark.parametrize(
    ("existing", "unfiled", "made"),
    [
        ([], None, [NOV, DEC, JAN]),
        ([NOV, DEC, JAN], None, []),
        ([NOV, DEC], None, [JAN]),
        ([], date(2026, 11, 20), [DEC, JAN]),
        ([], date(2026, 11, 1), [DEC, JAN]),
        ([], date(2026, 10, 31), [NOV, DEC, JAN]),
    ],
)
def test_three_months_are_made_but_none_whose_events_lie_elsewhere(existing, unfiled, made):
    assert months_to_make(existing, date(2026, 11, 28), unfiled) == made


@pytest.mark.parametrize(
    ("now", "days", "over"),
    [
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), 31, False),
        (datetime(2027, 1, 1, tzinfo=UTC), 31, True),
        (datetime(2027, 1, 1, tzinfo=UTC), 32, False),
    ],
)
def test_a_month_is_over_when_its_last_event_is_old(now, days, over):
    assert is_over(NOV, now, days) is over
