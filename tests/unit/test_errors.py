from __future__ import annotations

from uuid import UUID

import pytest

from webapp.jobs import errors
from webapp.jobs.error_report import MAX_ERROR_CHARACTERS, MAX_TRACEBACK_CHARACTERS, ErrorReport
from webapp.jobs.errors import Discard, Retry


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


class NotText(Exception):
    def __str__(self):
        return 1  # noqa: PLE0307 - that is what is tested


def test_a_built_in_error_is_named_without_its_module():
    report = ErrorReport.of(ValueError("x"))
    assert (report.type, report.message, report.traceback) == ("ValueError", "x", None)


def test_any_other_error_is_named_with_its_module():
    assert ErrorReport.of(Discard("x")).type == "webapp.jobs.errors.Discard"
    assert ErrorReport.of(Mute()).type == f"{__name__}.Mute"


@pytest.mark.parametrize(("error", "cause"), [(Mute(), "RuntimeError"), (NotText(), "TypeError")])
def test_an_error_whose_text_cannot_be_read_is_reported_all_the_same(error, cause):
    assert ErrorReport.of(error).message == f"(its text could not be read: {cause})"


def test_a_long_message_keeps_its_beginning_and_a_long_traceback_its_end():
    report = ErrorReport.of(ValueError("a" * 10_000_000 + "z"), "a" * 10_000_000 + "z")
    assert report.message == "a" * MAX_ERROR_CHARACTERS
    assert report.traceback == "a" * (MAX_TRACEBACK_CHARACTERS - 1) + "z"


def test_what_postgresql_cannot_keep_is_written_out():
    report = ErrorReport.of(ValueError("a\x00b \ud800 ä"), "\x00\udfff")
    assert report.message == "a\\x00b \\ud800 ä"
    assert report.traceback == "\\x00\\udfff"


def test_the_name_of_a_type_is_kept_printable_and_short():
    strange = type("N" + "x" * 1_000, (Exception,), {"__module__": "m\x00"})
    report = ErrorReport.of(strange())
    assert report.type.startswith("m\\x00.Nx")
    assert len(report.type) == 200


def test_errors_that_differ_only_in_numbers_and_ids_have_one_fingerprint():
    one = ErrorReport("E", "row 17 of 019d0000-0000-7000-8000-000000000001 at 0x7f3a")
    two = ErrorReport("E", "row 4 of 019dffff-0000-7000-8000-00000000000f at 0x11")
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 16


@pytest.mark.parametrize("other", [ErrorReport("F", "x"), ErrorReport("E", "y"), ErrorReport("", "")])
def test_other_errors_have_other_fingerprints(other):
    assert ErrorReport("E", "x").fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.JobNotFound(UUID(int=7)), "no job has the id 00000000-0000-0000-0000-000000000007"),
        (
            errors.UnknownTask(["x"], ("a", "b")),
            "payload.task must name a registered handler (a, b); given: \"['x']\"",
        ),
        (
            errors.UnknownTask("slep", ("noop", "sleep")),
            "payload.task must name a registered handler (noop, sleep); did you mean 'sleep'?; given: 'slep'",
        ),
        (
            errors.KeyReused("k", UUID(int=7)),
            "idempotency_key 'k' was used with another request, for job 00000000-0000-0000-0000-000000000007",
        ),
        (
            errors.KeyRace("k"),
            "another request with idempotency_key 'k' is under way; send this one again",
        ),
        (errors.JobTimeout(1.5), "the attempt ran longer than its timeout of 1.5 s"),
        (Retry(), "the handler asked for another try"),
        (Retry("busy", after=3), "busy"),
        (Discard("no use"), "no use"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_names_the_rule_and_what_was_given(error, text):
    assert str(error) == text


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("slep", "sleep"),
        ("SLEEP", "sleep"),
        ("sleep ", "sleep"),
        ("send_email", "Send-Email"),
        ("nothing like it", None),
        ("", None),
        (None, None),
        (5, None),
        (["sleep"], None),
        ("sleep" * 100_000, None),
    ],
)
def test_the_name_that_was_meant_is_found(name, closest):
    assert errors.closest_to(name, ("noop", "sleep", "Send-Email")) == closest


def test_of_many_handlers_some_are_named():
    known = tuple(f"handler-{number:03}" for number in range(500))
    text = str(errors.UnknownTask("x", known))
    assert "handler-029, and 470 more" in text
    assert len(text) < 1_000
