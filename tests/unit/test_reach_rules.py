"""How far a caller reaches, what they are told of jobs beyond, and that all that is asked for a caller asks how far they reach."""

from __future__ import annotations

import inspect
from uuid import UUID

import pytest

from webapp.access.service import Access
from webapp.dead_letters.service import DeadLetters
from webapp.flow.keys import Keys
from webapp.flow.reach import EVERYTHING, Reach
from webapp.flow.service import Flow
from webapp.flow.tenant import DEFAULT
from webapp.jobs.errors import KeyElsewhere, KeyOfPruned, KeyReused, UniqueHeld, UniqueOfPruned
from webapp.jobs.options import Options
from webapp.jobs.service import Jobs
from webapp.jobs.submission import Placed, Submission
from webapp.jobs.unique import Unique
from webapp.jobs.unseen import Unseen, hidden, taken_keys

ONE, TWO = Reach(DEFAULT, frozenset({"video"})), Reach(DEFAULT, frozenset({"video", "mail"}))
MINE, THEIRS, GONE = UUID(int=1), UUID(int=2), UUID(int=3)
UNSEEN = Unseen(frozenset({THEIRS}), frozenset({GONE}))
#: What of the services answers no caller about a queue or a job.
ABOUT_NONE = {
    Jobs: {"can_judge", "flush"},
    DeadLetters: set(),
    Flow: {"check_workers", "note", "put_on_record", "wait_for_books", "settle"},
    Keys: set(),
    # Keys are made and looked up by who holds a secret, or by a command.
    Access: {"create", "init", "adopt", "of_secret", "disconnect", "has_keys"},
}


def asked_of(service):
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(service, inspect.isroutine)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("service", ABOUT_NONE, ids=lambda one: one.__name__)
def test_all_that_is_asked_for_a_caller_takes_their_reach_and_has_no_default_for_it(service):
    asked = asked_of(service)
    forgets = {
        name
        for name, signature in asked.items()
        if "reach" not in signature.parameters
        or signature.parameters["reach"].default is not inspect.Parameter.empty
    }
    assert forgets == ABOUT_NONE[service]
    assert asked.keys() > ABOUT_NONE[service]


@pytest.mark.parametrize(
    ("reach", "queue", "has", "looks_for"),
    [
        (EVERYTHING, "video", True, ("video", None)),
        (EVERYTHING, None, True, (None, None)),
        (ONE, "video", True, ("video", None)),
        (ONE, "billing", False, ("billing", ())),
        (ONE, None, False, ("video", None)),
        (TWO, None, False, (None, ("mail", "video"))),
        (TWO, "mail", True, ("mail", None)),
        (Reach(DEFAULT, frozenset()), None, False, (None, ())),
    ],
)
def test_a_reach_has_its_queues_and_what_is_looked_for_is_kept_to_them(reach, queue, has, looks_for):
    assert (reach.has(queue), reach.narrowed(queue)) == (has, looks_for)


@pytest.mark.parametrize(
    ("taken", "kind", "field", "status"),
    [
        (KeyReused("k", THEIRS), KeyElsewhere, "idempotency_key", "a queue that is not one of this key's"),
        (KeyOfPruned("k", THEIRS), KeyElsewhere, "idempotency_key", "a queue that is not one of this key's"),
        (UniqueHeld("k", THEIRS), KeyElsewhere, "unique.key", "a queue that is not one of this key's"),
        (UniqueOfPruned("k", THEIRS), KeyElsewhere, "unique.key", "a queue that is not one of this key's"),
        (KeyReused("k", GONE), KeyReused, "idempotency_key", "used with another request"),
        (KeyOfPruned("k", GONE), KeyOfPruned, "idempotency_key", "used for a job that was deleted"),
        (UniqueHeld("k", GONE), UniqueOfPruned, "unique.key", "held for a job that was deleted"),
        (UniqueOfPruned("k", GONE), UniqueOfPruned, "unique.key", "held for a job that was deleted"),
    ],
)
def test_of_a_taken_key_no_one_is_told_a_job_that_they_do_not_see(taken, kind, field, status):
    told = UNSEEN.told(taken)
    assert (type(told), told.field, told.given) == (kind, field, "k")
    assert status in str(told)
    assert str(taken.job_id) in str(taken)
    assert str(taken.job_id) not in str(told)
    assert getattr(told, "job_id", None) is None


@pytest.mark.parametrize("kind", [KeyReused, KeyOfPruned, UniqueHeld, UniqueOfPruned])
def test_a_job_that_they_see_is_named(kind):
    taken = kind("k", MINE)
    assert UNSEEN.told(taken) is taken
    assert Unseen().told(kind("k", THEIRS)).job_id == THEIRS


def test_of_a_batch_the_answers_are_changed_that_name_what_is_not_seen():
    asked = Submission({}, "i", Options(unique=Unique("u")))
    answers = {
        0: Placed(MINE, created=True),
        1: Placed(MINE, created=False),
        2: Placed(THEIRS, created=False),
        3: Placed(THEIRS, created=False, held=True),
        4: Placed(GONE, created=False),
        5: Placed(GONE, created=False, held=True),
        6: KeyReused("i", THEIRS),
        7: UniqueHeld("u", MINE),
    }
    taken = taken_keys([asked] * len(answers), answers)
    assert {number: one.job_id for number, one in taken.items()} == {
        1: MINE, 2: THEIRS, 3: THEIRS, 4: GONE, 5: GONE, 6: THEIRS, 7: MINE,
    }  # fmt: skip
    found = hidden(taken, UNSEEN)
    assert {number: (type(one), one.field, one.given) for number, one in found.items()} == {
        2: (KeyElsewhere, "idempotency_key", "i"),
        3: (KeyElsewhere, "unique.key", "u"),
        4: (KeyOfPruned, "idempotency_key", "i"),
        5: (UniqueOfPruned, "unique.key", "u"),
        6: (KeyElsewhere, "idempotency_key", "i"),
    }
