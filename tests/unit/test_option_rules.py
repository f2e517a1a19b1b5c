from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from webapp.api.breaches import breaches_of
from webapp.jobs.errors import PayloadRefused
from webapp.jobs.handlers import Handler, HandlerRegistry
from webapp.jobs.options import MAX_DELAY, NO_OPTIONS, Options, checked_backoff, checked_number
from webapp.jobs.request import SubmitRequest
from webapp.jobs.submission import Submission, fingerprint

NOW = datetime.now(UTC)
SOON, LATER = NOW + timedelta(hours=1), NOW + timedelta(hours=2)


def asked(**options):
    return SubmitRequest.model_validate({"payload": {}, **options}).submission(None).options


def test_nothing_asked_is_no_options_and_null_stands_for_nothing():
    assert asked() is NO_OPTIONS
    assert asked(**dict.fromkeys(("queue", "priority", "run_at", "delay", "tags", "backoff"))) is NO_OPTIONS


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"queue": "mail"}, Options(queue="mail")),
        ({"priority": 0}, Options(priority=0)),
        ({"priority": 9}, Options(priority=9)),
        ({"delay": 0}, Options(delay=0.0)),
        ({"delay": 2.5}, Options(delay=2.5)),
        ({"delay": MAX_DELAY}, Options(delay=MAX_DELAY)),
        ({"run_at": "2020-01-01T00:00:00Z"}, Options(run_at=datetime(2020, 1, 1, tzinfo=UTC))),
        ({"run_at": "2020-01-01T02:00:00+02:00"}, Options(run_at=datetime(2020, 1, 1, tzinfo=UTC))),
        ({"run_at": "2090-01-01T00:00:00-11:00"}, Options(run_at=datetime(2090, 1, 1, 11, tzinfo=UTC))),
        ({"max_retries": 0}, Options(max_retries=0)),
        ({"max_retries": 100}, Options(max_retries=100)),
        ({"timeout": 0.1}, Options(timeout=0.1)),
        ({"backoff": [1, 2.5, 0]}, Options(backoff=[1.0, 2.5, 0.0])),
        ({"backoff": {"base": 3}}, Options(backoff={"base": 3.0})),
        (
            {"backoff": {"base": 3, "max": 10, "jitter": 0.5}},
            Options(backoff={"base": 3, "max": 10, "jitter": 0.5}),
        ),
        ({"tags": ["a", "b c", "ä"]}, Options(tags=("a", "b c", "ä"))),
        ({"tags": []}, Options(tags=())),
        ({"expires_at": SOON.isoformat()}, Options(expires_at=SOON)),
        (
            {"run_at": SOON.isoformat(), "expires_at": LATER.isoformat()},
            Options(run_at=SOON, expires_at=LATER),
        ),
        ({"callback_url": "https://x.test/a?b=c"}, Options(callback_url="https://x.test/a?b=c")),
        ({"callback_url": "http://[2606:4700::1111]/"}, Options(callback_url="http://[2606:4700::1111]/")),
    ],
    ids=repr,
)
def test_an_option_within_its_bounds_is_kept(given, kept):
    assert asked(**given) == kept


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"queue": ""}, "queue"),
        ({"queue": "q" * 101}, "queue"),
        ({"queue": 1}, "queue"),
        ({"priority": -1}, "priority"),
        ({"priority": 10}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": 5.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"delay": -1}, "delay"),
        ({"delay": MAX_DELAY * 1.01}, "delay"),
        ({"delay": "1"}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": 1, "run_at": SOON.isoformat()}, "delay"),
        ({"run_at": "2030-01-01T00:00:00"}, "run_at"),
        ({"run_at": "2030-01-01"}, "run_at"),
        ({"run_at": "tomorrow"}, "run_at"),
        ({"run_at": 1_900_000_000}, "run_at"),
        ({"run_at": "9999-12-31T23:59:59-23:59"}, "run_at"),
        ({"run_at": "0001-01-01T00:00:00+23:59"}, "run_at"),
        ({"run_at": "2199-01-01T00:00:00Z"}, "run_at"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 101}, "max_retries"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 86_401}, "timeout"),
        ({"backoff": []}, "backoff"),
        ({"backoff": [1] * 101}, "backoff"),
        ({"backoff": [1, -1]}, "backoff.1"),
        ({"backoff": [1, "2"]}, "backoff.1"),
        ({"backoff": [86_400 * 31]}, "backoff.0"),
        ({"backoff": {"base": 0.5}}, "backoff.base"),
        ({"backoff": {"max": -1}}, "backoff.max"),
        ({"backoff": {"jitter": 1.5}}, "backoff.jitter"),
        ({"backoff": {"cap": 1}}, "backoff.cap"),
        ({"backoff": 5}, "backoff"),
        ({"backoff": "fast"}, "backoff"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"tags": "a"}, "tags"),
        ({"tags": ["a", "a"]}, "tags"),
        ({"tags": [str(n) for n in range(21)]}, "tags"),
        ({"tags": [""]}, "tags.0"),
        ({"tags": ["x" * 65]}, "tags.0"),
        ({"tags": ["a", " b"]}, "tags.1"),
        ({"tags": ["a\n"]}, "tags.0"),
        ({"tags": ["a\x00"]}, "tags.0"),
        ({"tags": ["\ud800"]}, "tags.0"),
        ({"tags": [1]}, "tags.0"),
        ({"callback_url": "ftp://x.test/"}, "callback_url"),
        ({"callback_url": "https:///x"}, "callback_url"),
        ({"callback_url": "//x.test/"}, "callback_url"),
        ({"callback_url": "https://me:pw@x.test/"}, "callback_url"),
        ({"callback_url": "https://x.test/a b"}, "callback_url"),
        ({"callback_url": "https://x.test/\n"}, "callback_url"),
        ({"callback_url": "https://x.test:99999/"}, "callback_url"),
        ({"callback_url": "https://[x/"}, "callback_url"),
        ({"callback_url": "https://x.test/" + "a" * 2_048}, "callback_url"),
        ({"callback_url": 1}, "callback_url"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_an_option_that_breaks_its_rule_is_named(given, field):
    with pytest.raises(ValidationError) as caught:
        SubmitRequest.model_validate({"payload": {}, **given})
    assert {breach.field for breach in breaches_of(caught.value)} == {field}


@pytest.mark.parametrize(
    ("options", "late"),
    [
        (Options(), False),
        (Options(expires_at=SOON), False),
        (Options(expires_at=NOW), True),
        (Options(expires_at=SOON, run_at=NOW), False),
        (Options(expires_at=SOON, run_at=SOON), True),
        (Options(expires_at=SOON, run_at=LATER), True),
        (Options(expires_at=NOW, run_at=NOW - timedelta(days=1)), True),
        (Options(expires_at=SOON, delay=3_599), False),
        (Options(expires_at=SOON, delay=3_600), True),
    ],
)
def test_a_job_that_could_never_start_in_time_is_late(options, late):
    assert options.is_late(NOW) is late


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Options(priority=5), NO_OPTIONS, False),
        (Options(priority=0), NO_OPTIONS, False),
        (Options(priority=1, delay=2), Options(delay=2, priority=1), True),
        (Options(run_at=SOON), Options(run_at=SOON), True),
        (Options(run_at=SOON), Options(run_at=LATER), False),
        (Options(tags=("a", "b")), Options(tags=("b", "a")), False),
        (Options(backoff=[1]), Options(backoff={"base": 1}), False),
    ],
)
def test_a_fingerprint_is_that_of_all_that_was_asked(one, other, same):
    payload = {"task": "noop"}
    prints = {fingerprint(Submission(payload, None, options)) for options in (one, other)}
    assert (len(prints) == 1) is same


def test_a_time_is_the_same_in_every_zone():
    moments = ("2030-01-01T00:00:00Z", "2030-01-01T01:00:00+01:00")
    one, other = (SubmitRequest.model_validate({"payload": {}, "run_at": at}) for at in moments)
    assert fingerprint(one.submission(None)) == fingerprint(other.submission("k"))


def test_no_payload_reads_like_another_one_with_options():
    options = Options(priority=1)
    assert fingerprint(Submission({"payload": {}, "priority": 1})) != fingerprint(
        Submission({}, None, options)
    )


class Page(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    url: str
    depth: int = Field(1, ge=0)
    at: datetime | None = None


class Named(BaseModel):
    task: str = Field(max_length=3)


def run(payload, context):
    return None


def test_a_payload_is_held_against_its_handlers_model_as_json():
    Handler("page", run, model=Page).check({"task": "page", "url": "u", "at": "2030-01-01T00:00:00Z"})
    Handler("page", run).check({"anything": 1})
    Handler("any", run, model=Named).check({"task": "any"})
    with pytest.raises(PayloadRefused):
        Handler("long", run, model=Named).check({"task": "long"})


def test_every_field_that_does_not_fit_is_named_with_its_path():
    with pytest.raises(PayloadRefused) as caught:
        Handler("page", run, model=Page).check({"task": "page", "depth": -1, "more": 1})
    found = {breach.field: breach.rule for breach in breaches_of(caught.value.error, "payload")}
    assert set(found) == {"payload.url", "payload.depth", "payload.more"}
    assert found["payload.url"] == "is required"
    assert "'page'" in str(caught.value)


@pytest.mark.parametrize(
    ("default", "rule"),
    [
        ({"priority": 10}, r"handler 'a': priority must be an integer from 0 to 9; given: 10"),
        ({"priority": -1}, r"handler 'a': priority must be an integer from 0 to 9; given: -1"),
        ({"backoff": []}, r"handler 'a': backoff must have 1 to 100 waits"),
        ({"backoff": [-1]}, r"a wait of backoff must be 0 to"),
        ({"backoff": {"cap": 1}}, r"base, max and jitter only; given: 'cap'"),
        ({"backoff": {"base": 0}}, r"backoff.base must be 1 to 100; given: 0"),
        ({"backoff": {"jitter": True}}, r"backoff.jitter must be 0 to 1; given: True"),
        ({"backoff": 3}, r"backoff must be a list of seconds"),
        ({"tags": ("",)}, r"handler 'a': tags must be at most 20"),
        ({"tags": tuple("abcdefghijklmnopqrstu")}, r"handler 'a': tags must be at most 20"),
        ({"expires_in": 0}, r"handler 'a': expires_in must be above 0"),
    ],
)
def test_a_handlers_default_out_of_bounds_is_refused(default, rule):
    with pytest.raises(ValueError, match=rule):
        HandlerRegistry().add(Handler("a", run, **default))


@pytest.mark.parametrize("backoff", [[1, 2.5], (0,), {}, {"base": 2, "max": 0, "jitter": 1}])
def test_a_backoff_within_its_bounds_is_kept(backoff):
    assert checked_backoff(backoff) == (list(backoff) if isinstance(backoff, tuple) else backoff)


def test_queues_that_no_handler_names_can_be_declared():
    registry = HandlerRegistry()
    registry.add(Handler("a", run, queue="mail"))
    registry.declare(("slow", "fast"))
    assert registry.queues() == ("default", "fast", "mail", "slow")


@pytest.mark.parametrize("name", ["", "a b", "maintenance"])
def test_a_queue_that_breaks_the_rule_is_not_declared(name):
    with pytest.raises(ValueError, match="QUEUES must "):
        HandlerRegistry().declare((name,))


def test_a_number_of_a_class_that_cannot_be_shown_is_refused_by_its_class():
    class Broken(float):
        def __repr__(self):
            raise OSError("not now")

    with pytest.raises(ValueError, match=r"must be a number from 0 to 1; given: a Broken \(OSError\)"):
        checked_number("delay", Broken(2), 0, 1)
