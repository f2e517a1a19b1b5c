"""What a seal is a digest of, and whether it fits, as pure decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from webapp.audit.seals import (
    LAST_ID,
    LAST_XID,
    NONE_YET,
    START,
    Look,
    Mark,
    Seal,
    digest_of,
    ended_numbering,
    line_of,
    look_at,
    place_fault,
    signature_of,
)

NOW = datetime(2026, 11, 28, 4, 0, 0, 1, tzinfo=UTC)
LINES = ['{"id":1}', '{"id":2}', '{"id":3}']
KEY, OTHER = "k" * 32, "o" * 32


def seal(seq=1, previous=NONE_YET.sha256, lines=LINES, key=None, **changes):
    made = Seal(seq, NOW, 7, START.id, Mark(9, seq * 3), seq * 3, NOW, len(lines), previous)
    made = replace(made, **changes)
    digest = digest_of(made, lines)
    return replace(made, sha256=digest, hmac=signature_of(key, digest) if key else None)


FIRST = seal()
SECOND = seal(2, FIRST.sha256)


def test_a_digest_is_that_of_the_release_that_made_it():
    assert digest_of(FIRST, LINES).hex() == "ce650c223b0f358bb7725b822663206546e1ff0c89e4f9a88cad2b9530de148f"
    assert (
        signature_of(KEY, FIRST.sha256).hex()
        == "4f15d530530b58cb3fb412df42c8b9d784769fb72511ce1e0801c5e8a301963c"
    )


def test_a_line_has_all_that_is_known_in_an_order_of_its_own():
    assert line_of({"b": "ñ\n", "a": 1, "c": None, "d": False}) == '{"a":1,"b":"\\u00f1\\n","d":false}'


@pytest.mark.parametrize(
    "changed",
    [
        {"seq": 2},
        {"sealed_at": NOW + timedelta(microseconds=1)},
        {"server": 8},
        {"after_id": 0},
        {"up_to": Mark(9, 4)},
        {"up_to": Mark(10, 3)},
        {"greatest_id": 4},
        {"oldest_at": None},
        {"events": 4},
        {"previous": bytes(31) + b"\1"},
    ],
)
def test_what_a_seal_says_of_itself_is_in_its_digest(changed):
    assert digest_of(replace(FIRST, **changed), LINES) != FIRST.sha256


@pytest.mark.parametrize(
    "lines",
    [
        ['{"id":1}', '{"id":2}', '{"id":4}'],
        ['{"id":1}', '{"id":3}', '{"id":2}'],
        ['{"id":1}{"id":2}', '{"id":3}', ""],
    ],
)
def test_lines_and_their_order_are_in_the_digest(lines):
    assert digest_of(FIRST, lines) != FIRST.sha256
    assert look_at(FIRST, lines, (), NOW).fault == "an event, or what the seal says of itself, was changed"


LATER = NOW + timedelta(seconds=1)
GONE = Look(None, is_gone=True)


@pytest.mark.parametrize(
    ("lines", "kept_since", "look"),
    [
        (LINES, NOW, Look()),
        (LINES, LATER, Look()),
        ([*LINES, "{}"], NOW, Look("an event was added to those that it is over")),
        ([*LINES, "{}"], LATER, Look("an event was added to those that it is over")),
        (LINES[:2], NOW, Look("1 of its 3 events is missing")),
        ([], NOW, Look("3 of its 3 events are missing")),
        (LINES[:2], LATER, GONE),
        ([], LATER, GONE),
    ],
)
def test_a_seal_fits_its_lines_or_those_that_may_be_gone(lines, kept_since, look):
    assert look_at(FIRST, lines, (), kept_since) == look


@pytest.mark.parametrize(
    ("made_with", "keys", "fits"),
    [
        (None, (), True),
        (None, (KEY,), True),
        (KEY, (), True),
        (KEY, (KEY,), True),
        (KEY, (OTHER, KEY), True),
        (KEY, (OTHER,), False),
    ],
)
@pytest.mark.parametrize("kept_since", [NOW, LATER])
def test_a_signature_is_of_one_of_the_keys(made_with, keys, fits, kept_since):
    lines = LINES if kept_since == NOW else []
    found = look_at(seal(key=made_with), lines, keys, kept_since).fault
    assert found == (None if fits else "its HMAC differs: it was made with another key")


BEGINS = seal(2, FIRST.sha256, [], after_id=3, up_to=START, oldest_at=None)
SIGNED = seal(key=KEY)


@pytest.mark.parametrize(
    ("before", "one", "fault"),
    [
        (NONE_YET, FIRST, None),
        (FIRST, SECOND, None),
        (FIRST, BEGINS, None),
        (BEGINS, seal(3, BEGINS.sha256, after_id=3, up_to=Mark(1, 9)), None),
        (NONE_YET, SECOND, (1, "it is missing")),
        (FIRST, replace(SECOND, seq=4), (2, "it is missing")),
        (
            replace(FIRST, sha256=bytes(32)),
            SECOND,
            (2, "it does not follow seal 1: it was made after another one of that number"),
        ),
        (SIGNED, SECOND, (2, "it is not signed, and those before are")),
        (SECOND, seal(3, SECOND.sha256, up_to=Mark(9, 5)), (3, "it ends before the one before")),
        (SECOND, seal(3, SECOND.sha256, up_to=Mark(8, 99)), (3, "it ends before the one before")),
        (FIRST, replace(BEGINS, events=1), (2, "it cannot begin a numbering of transactions there")),
        (FIRST, replace(BEGINS, up_to=Mark(1, 1)), (2, "it cannot begin a numbering of transactions there")),
        (FIRST, replace(BEGINS, after_id=2), (2, "it cannot begin a numbering of transactions there")),
    ],
)
def test_a_seal_stands_after_the_one_that_it_was_made_after(before, one, fault):
    assert place_fault(before, one, must_be_signed=True) == fault


def test_a_seal_may_be_unsigned_where_that_is_allowed():
    unsigned = seal(2, SIGNED.sha256)
    assert place_fault(SIGNED, unsigned, must_be_signed=False) is None


@pytest.mark.parametrize(
    ("newest", "server", "ahead", "ended"),
    [
        (FIRST, 7, None, None),
        (FIRST, 8, None, 3),
        (FIRST, 8, 2, 3),
        (FIRST, 8, 12, 12),
        (NONE_YET, 8, None, None),
        (NONE_YET, 8, 12, 12),
    ],
)
def test_a_numbering_ends_where_a_record_comes_to_another_server(newest, server, ahead, ended):
    assert ended_numbering(newest, server, ahead) == ended


def test_every_line_lies_between_the_ends():
    assert START < Mark(0, START.id + 1) < Mark(3, 1) < Mark(LAST_XID, LAST_ID)
