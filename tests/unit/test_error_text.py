"""Errors told in full: causes, members of groups, and errors that do their worst."""

from __future__ import annotations

from contextlib import suppress

import pytest

from webapp.jobs import error_text
from webapp.jobs.error_report import MAX_ERROR_CHARACTERS, MAX_TRACEBACK_CHARACTERS, ErrorReport
from webapp.jobs.errors import Cancelled, Discard, Retry, Snooze, meant


def raised(error, before=None):
    """The error as it is when it was raised while the one before was handled."""
    with suppress(type(error)):
        throw(error)
    error.__context__ = before
    return error


def throw(error):
    raise error


def caused(error, cause):
    error.__cause__ = cause
    return error


def hidden(error):
    error.__suppress_context__ = True
    return error


def report(error):
    return ErrorReport.of(error, error_text.trace_of(error))


class Strange(Exception):
    def __str__(self):
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (KeyError("to"), "KeyError: 'to'"),
        (KeyError(), "KeyError"),
        (Discard("no address"), "Discard: no address"),
        (caused(RuntimeError("no mail"), OSError("refused")), "RuntimeError: no mail; caused by OSError: refused"),
        (
            raised(KeyError("to"), ValueError("bad")),
            "KeyError: 'to'; while handling ValueError: bad",
        ),
        (hidden(raised(KeyError("to"), ValueError("bad"))), "KeyError: 'to'"),
        (
            ExceptionGroup("two", [KeyError("a"), ValueError("b")]),
            "ExceptionGroup: two (2 sub-exceptions): [KeyError: 'a', ValueError: b]",
        ),
        (
            BaseExceptionGroup("one", [caused(KeyboardInterrupt("x"), OSError("y"))]),
            "BaseExceptionGroup: one (1 sub-exception): [KeyboardInterrupt: x; caused by OSError: y]",
        ),
        (SystemExit("good bye"), "SystemExit: good bye"),
        (Strange(), "Strange: (its text could not be read: SystemExit)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_summary_begins_with_the_class_and_tells_causes_and_members(error, summary):
    assert report(error).summary == summary


def test_errors_with_other_causes_or_members_are_told_apart():
    one, other = OSError("refused"), TimeoutError("too late")
    assert (
        report(caused(ValueError("x"), one)).fingerprint != report(caused(ValueError("x"), other)).fingerprint
    )
    assert report(ExceptionGroup("x", [one])).fingerprint != report(ExceptionGroup("x", [other])).fingerprint
    assert (
        report(ExceptionGroup("x", [KeyError(1)])).fingerprint
        == report(ExceptionGroup("x", [KeyError(2)])).fingerprint
    )


def test_a_traceback_has_the_cause_first_and_the_members_last():
    group = raised(
        ExceptionGroup("many", [raised(KeyError("a")), raised(ValueError("b"))]), OSError("refused")
    )
    told = report(group).traceback
    places = [told.index(words) for words in (
        "OSError: refused", "During handling", "ExceptionGroup: many", "1 of 2", "KeyError: 'a'", "2 of 2", "ValueError: b",
    )]  # fmt: skip
    assert places == sorted(places)
    assert "The above exception was the direct cause" in report(caused(ValueError(), OSError())).traceback


def endless(count):
    error = ValueError("first")
    for number in range(count):
        error = caused(ValueError(str(number)), error)
    return error


def wide(levels):
    if not levels:
        return ValueError("x" * 10_000)
    return ExceptionGroup("g" * 10_000, [wide(levels - 1) for _ in range(8)])


def circle():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    return first


def recursive(error, depth):
    if depth:
        recursive(error, depth - 1)
    raise error


def deep():
    try:
        recursive(ValueError("deep"), 900)
    except ValueError as error:
        return error


@pytest.mark.parametrize("make", [lambda: endless(2_000), lambda: wide(4), circle, deep], ids=str)
def test_whatever_is_told_is_bounded(make):
    found = report(make())
    assert len(found.message) <= MAX_ERROR_CHARACTERS
    assert len(found.traceback) <= MAX_TRACEBACK_CHARACTERS


def test_a_long_text_gives_way_to_its_cause():
    found = report(caused(ValueError("x" * 10_000), OSError("refused")))
    assert found.message.endswith("; caused by OSError: refused")
    assert len(found.message) == MAX_ERROR_CHARACTERS


class NoAddress(Discard):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoAddress("x"), NoAddress),
        (ExceptionGroup("g", [NoAddress("x")]), NoAddress),
        (ExceptionGroup("g", [ExceptionGroup("h", [Cancelled()]), Cancelled()]), Cancelled),
        (ExceptionGroup("g", [Retry("x", after=5)]), Retry),
        (ExceptionGroup("g", [Snooze(5)]), Snooze),
        (ExceptionGroup("g", [Discard("x"), ValueError("y")]), ExceptionGroup),
        (ValueError("x"), ValueError),
        (SystemExit(1), SystemExit),
    ],
)
def test_a_group_that_says_one_thing_is_taken_for_it(error, kind):
    assert type(meant(error)) is kind


def test_frames_that_cannot_be_read_are_left_out(monkeypatch):
    def fail(*_):
        raise LookupError("unknown encoding")

    monkeypatch.setattr(error_text.traceback, "format_tb", fail)
    assert error_text.trace_of(ValueError("one")) == (
        "Traceback (most recent call last):\n  (its frames could not be read: LookupError)\nValueError: one\n"
    )
