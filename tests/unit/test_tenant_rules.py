"""Tenants as values: how their keys are kept apart, which queues are their own, and how far one of them reaches."""

from __future__ import annotations

import pytest

from webapp.access.queued import LATEST, Look, wait_of
from webapp.flow.reach import EVERYTHING, Reach
from webapp.flow.tenant import DEFAULT, LONGEST_MARK, Tenant, kept, mark_of, owner_of, told
from webapp.jobs.errors import KeyFull, KeyRace, KeyReused, UniqueHeld, UniqueRace
from webapp.jobs.filters import Filter, parts_of

ACME, BETA = Tenant(7, "acme"), Tenant(8, "beta")
OF_ACME = Reach(ACME, None, frozenset({"default", "beta"}))
OF_DEFAULT = Reach(DEFAULT, None, frozenset({"acme", "beta"}))
ALONE = Reach(DEFAULT, None, is_alone=True)


@pytest.mark.parametrize("key", ["order-1", "", "7\x1forder-1", "\x1e", "a\x1f7\x1fb"])
def test_keys_of_two_tenants_never_meet_and_are_told_as_they_were_given(key):
    stored = [kept(tenant.id, key) for tenant in (DEFAULT, ACME, BETA)]
    assert len(set(stored)) == 3
    assert [told(one) for one in stored] == [key] * 3
    assert stored[0] == key


def test_a_mark_has_room_before_the_longest_key():
    assert len(mark_of(2**31 - 1)) == LONGEST_MARK


@pytest.mark.parametrize("text", ["\x1f", "\x1fx", "\x1fx\x1fy", "\x1f\x1fy"])
def test_what_is_no_mark_is_left_as_it_is(text):
    assert told(text) == text


@pytest.mark.parametrize(
    ("queue", "owner"), [("acme.video", "acme"), ("acme", ""), ("acme.a.b", "acme"), (".x", "")]
)
def test_a_queue_is_the_tenants_whose_name_it_begins_with(queue, owner):
    assert owner_of(queue) == owner


@pytest.mark.parametrize(
    ("reach", "queue", "has", "owns"),
    [
        (OF_ACME, "acme.video", True, True),
        (OF_ACME, "beta.video", False, False),
        (OF_ACME, "default.video", False, False),
        (OF_ACME, "gamma.video", True, False),
        (OF_ACME, "video", True, False),
        (OF_DEFAULT, "acme.video", False, False),
        (OF_DEFAULT, "video", True, True),
        (OF_DEFAULT, "gamma.video", True, True),
        (ALONE, "acme.video", True, True),
        (EVERYTHING, "acme.video", True, True),
        (Reach(ACME, frozenset({"video"}), frozenset({"beta"})), "acme.video", False, True),
        (Reach(ACME, frozenset({"beta.video"}), frozenset({"beta"})), "beta.video", False, False),
    ],
)
def test_a_tenant_uses_what_is_shared_and_changes_what_is_its_own(reach, queue, has, owns):
    assert (reach.has(queue), reach.owns(queue)) == (has, owns)
    assert reach.narrowed(queue) == ((queue, None) if has else (queue, ()))


@pytest.mark.parametrize(
    ("reach", "number", "home", "is_guest"),
    [
        (EVERYTHING, None, DEFAULT, False),
        (ALONE, None, DEFAULT, False),
        (ALONE.apart(), 1, DEFAULT, False),
        (OF_DEFAULT, 1, DEFAULT, False),
        (OF_ACME, 7, ACME, True),
        (Reach(ACME, None), 7, ACME, True),
    ],
)
def test_no_tenant_reaches_all_of_them_by_accident(reach, number, home, is_guest):
    assert (reach.number, reach.home, reach.is_guest) == (number, home, is_guest)
    assert reach.is_everything == (number is None)


def test_a_reach_says_of_which_tenant_it_is():
    with pytest.raises(TypeError):
        Reach(queues=None)
    with pytest.raises(TypeError):
        Reach(ACME)


def test_a_filter_takes_tenant_and_key_of_its_caller():
    within = Filter(key="k").within(OF_ACME)
    assert (within.tenant, within.key) == (7, "\x1f7\x1fk")
    assert within.within(OF_ACME) == within
    assert Filter(key="k").within(ALONE) == Filter(key="k")
    assert Filter().within(OF_DEFAULT).values() == {"default_tenant": 1}


def test_jobs_of_a_tenant_are_found_by_its_own_index_and_those_of_the_default_one_as_ever():
    (part,) = parts_of(Filter(status="completed").within(OF_ACME))
    assert (part.column, part.value, part.is_of_history) == ("tenant_id", ":tenant", True)
    (part,) = parts_of(Filter(status="queued").within(OF_ACME))
    assert (part.column, part.is_of_history) == ("tenant_id", False)
    assert parts_of(Filter(task="noop").within(OF_DEFAULT)) == parts_of(Filter(task="noop"))
    assert not Filter().within(OF_ACME).is_search
    assert not Filter().within(OF_DEFAULT).is_search


@pytest.mark.parametrize(
    "error",
    [
        KeyReused(kept(7, "k"), None),
        KeyRace(kept(7, "k")),
        UniqueHeld(kept(7, "k"), None),
        UniqueRace(kept(7, "k")),
        KeyFull("video", kept(7, "k"), 9, 1),
    ],
)
def test_errors_name_a_key_as_it_was_given(error):
    assert "'k'" in str(error)
    assert "\x1f" not in str(error)


@pytest.mark.parametrize(
    ("look", "wanted", "now", "seconds"),
    [
        (Look(0.0, 100, full_since=0.0), 1, 0.0, 1),
        (Look(9.0, 100, full_since=0.0), 1, 9.0, 9),
        # Ten have left within ten seconds.
        (Look(10.0, 100, full_since=0.0, surplus=10), 1, 10.0, 1),
        (Look(10.0, 100, full_since=0.0, surplus=10), 30, 10.0, 30),
        (Look(9_999.0, 100, full_since=0.0), 1, 9_999.0, LATEST),
    ],
)
def test_a_tenant_is_told_to_come_again_when_so_many_have_left(look, wanted, now, seconds):
    assert wait_of(look, wanted, 100, now) == seconds
