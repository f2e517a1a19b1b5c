"""The testing kit says of a handler what a worker would make of its job."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import date
from uuid import UUID

import pytest
from pydantic import BaseModel

from tasks import testing
from webapp.jobs import Cancelled, Discard, Retry, Snooze, handler
from webapp.jobs.errors import JobTimeout, KeyReused, OptionRefused, PayloadRefused, UnknownTask
from webapp.jobs.functions import NeverRan
from webapp.jobs.handlers import registry
from webapp.jobs.submitter import SomeRefused


@pytest.fixture
def registered():
    """Forgets the handlers that a test registers."""
    before = dict(registry._handlers)
    yield
    registry._handlers.clear()
    registry._handlers.update(before)


def raises(error):
    def run(payload, context):
        raise error

    return run


def test_a_result_is_as_clients_get_it():
    done = testing.run(lambda payload, context: {"at": date(2030, 1, 2), "ids": (1, 2)})
    assert done == testing.Completed(result={"at": "2030-01-02", "ids": [1, 2]})
    assert testing.run(lambda payload, context: None) == testing.Completed()


def test_of_a_result_that_is_not_kept_it_is_said_why():
    done = testing.run(lambda payload, context: b"x")
    assert (done.result, "bytes" in done.result_note) == (None, True)
    assert "bytes are more than" in testing.run(lambda payload, context: "x" * 65_536).result_note


def test_a_payload_goes_through_json_and_names_its_task():
    assert testing.run(lambda payload, context: payload, {"a": (1, 2)}).result == {
        "task": "handler",
        "a": [1, 2],
    }


@pytest.mark.parametrize("payload", [{"x": object()}, {"x": math.nan}, {"x": {1, 2}}])
def test_a_payload_that_is_not_json_is_refused(payload):
    with pytest.raises((TypeError, ValueError)):
        testing.run(lambda payload, context: None, payload)


@pytest.mark.parametrize(
    ("error", "used", "expected", "after"),
    [
        (ValueError("no"), 0, testing.Retried, 2.0),
        (ValueError("no"), 2, testing.Retried, 8.0),
        (ValueError("no"), 3, testing.Failed, None),
        (Retry(after=5), 0, testing.Retried, 5.0),
        (Retry("not yet"), 3, testing.Failed, None),
        (Snooze(90), 3, testing.Snoozed, 90.0),
        (Discard("never"), 0, testing.Discarded, None),
        (Cancelled(), 0, testing.Retried, 2.0),
        (SystemExit(3), 0, testing.Retried, 2.0),
        (asyncio.CancelledError(), 3, testing.Failed, None),
        (ExceptionGroup("all", [Discard("a"), Discard("b")]), 0, testing.Discarded, None),
    ],
    ids=repr,
)
def test_what_becomes_of_a_job_whose_handler_raises(error, used, expected, after):
    outcome = testing.run(raises(error), retry_count=used)
    assert type(outcome) is expected
    assert getattr(outcome, "after", None) == after


def test_an_error_is_told_as_the_attempts_record_tells_it():
    outcome = testing.run(raises(ValueError("no mail")))
    assert (outcome.error.type, outcome.error.message) == ("ValueError", "no mail")
    assert outcome.error.summary == "ValueError: no mail"
    assert "in run\n    raise error" in outcome.error.traceback
    assert isinstance(outcome.exception, ValueError)


def test_work_that_was_not_done_is_no_result():
    async def sends(payload, context):
        return 1

    def forgets(payload, context):
        return sends(payload, context)

    assert isinstance(testing.run(forgets).exception, NeverRan)


def test_coroutine_functions_run():
    async def sends(payload, context):
        await asyncio.sleep(0)
        context.progress(1, 1)
        return {"sent": payload["n"]}

    outcome = testing.run(sends, {"n": 3})
    assert (outcome.result, outcome.progress[0].done) == ({"sent": 3}, 1)


@pytest.mark.parametrize("waits", [time.sleep, asyncio.sleep], ids=["function", "coroutine"])
def test_a_handler_past_its_time_limit_is_stopped(waits):
    async def coroutine(payload, context):
        await waits(30)

    chosen = coroutine if waits is asyncio.sleep else lambda payload, context: waits(30)
    began = time.monotonic()
    outcome = testing.run(chosen, timeout=0.05)
    assert time.monotonic() - began < 5
    assert isinstance(outcome.exception, JobTimeout)
    assert outcome.error.summary.endswith("the attempt ran longer than its timeout of 0.05 s")


def test_what_a_handler_says_on_its_way_is_seen():
    def says(payload, context):
        context.logger.warning("%d pages", 3, extra={"book": "b"})
        context.logger.debug("quiet", level="taken")
        context.progress(1, 3, "page 1")
        context.progress(2)

    outcome = testing.run(says)
    assert outcome.lines == (
        testing.Line("WARNING", "3 pages", {"book": "b"}),
        testing.Line("DEBUG", "quiet", {"extra_level": "taken"}),
    )
    assert outcome.progress == ((1, 3, "page 1"), (2, None, ""))


def test_progress_that_breaks_its_rule_fails_the_attempt():
    outcome = testing.run(lambda payload, context: context.progress(-1))
    assert "done" in outcome.error.message


@pytest.mark.parametrize("asked", [True, lambda: True])
def test_a_job_whose_cancellation_was_asked_is_cancelled_unless_it_completes(asked):
    assert type(testing.run(lambda payload, context: context.check_cancelled(), cancelled=asked)) is (
        testing.Cancelled
    )
    assert type(testing.run(raises(Snooze(1)), cancelled=asked)) is testing.Cancelled
    assert testing.run(lambda payload, context: context.cancelled(), cancelled=asked).result is True


def test_the_context_is_that_of_the_attempt():
    def tells(payload, context):
        return [str(context.job_id), context.attempt, context.retry_count, context.traceparent]

    job_id = UUID(int=7)
    assert testing.run(tells, job_id=job_id).result == [str(job_id), 1, 0, None]
    assert testing.run(tells, retry_count=2).result[1:3] == [3, 2]
    assert testing.run(tells, retry_count=2, attempt=9).result[1:3] == [9, 2]
    left = testing.run(lambda payload, context: context.deadline - time.monotonic(), timeout=60).result
    assert 55 < left <= 60


def test_a_registered_handler_has_its_own_limits_and_model(registered):
    class Mail(BaseModel):
        to: str

    @handler("mail", max_retries=1, backoff=[7], model=Mail)
    def mail(payload, context):
        raise ValueError(payload["task"])

    for one in ("mail", mail):
        assert testing.run(one, {"to": "a"}).after == 7
        assert type(testing.run(one, {"to": "a"}, retry_count=1)) is testing.Failed
        assert testing.run(one, {"to": "a"}, retry_count=1, max_retries=5, backoff=[1, 2]).after == 2
        with pytest.raises(PayloadRefused):
            testing.run(one, {"to": 5})


def test_a_name_that_no_handler_has_is_refused():
    with pytest.raises(UnknownTask, match="must name a registered handler"):
        testing.run("no-such-task")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.fail.Exception("wrong")])
def test_what_ends_a_test_ends_it(error):
    with pytest.raises(type(error)):
        testing.run(raises(error))


def test_what_a_handler_submits_is_told_and_a_name_is_not_submitted_again():
    def submit(payload, context):
        receipt = context.submit({"task": "noop", "order": 7}, name="receipt", priority=7)
        context.submit_many([{"payload": {"task": "noop"}, "tags": ["a"]}])
        if context.attempt == 1:
            raise Retry
        return {"created": receipt.created}

    first = testing.run(submit, job_id=UUID(int=7))
    named, other = first.submitted
    assert (named.name, named.payload, named.options.priority) == (
        "receipt",
        {"task": "noop", "order": 7},
        7,
    )
    assert (other.name, other.options.tags) == (None, ("a",))
    second = testing.run(submit, job_id=UUID(int=7), retry_count=1, submitted=first.submitted)
    assert (second.result, [one.name for one in second.submitted]) == ({"created": False}, [None])


def test_a_child_that_would_be_refused_is_refused(registered):
    handler("known")(lambda payload, context: None)

    def submit(payload, context):
        with pytest.raises(OptionRefused, match="priority must be at most 9"):
            context.submit({"task": "noop"}, priority=10)
        with pytest.raises(SomeRefused, match=r"jobs\.0: expires_at must be after now"):
            context.submit_many([{"payload": {"task": "known"}, "expires_at": "2020-01-01T00:00:00Z"}])
        context.submit({"task": "noop"}, name="a")
        context.submit({"task": "noop", "other": True}, name="a")

    ended = testing.run(submit)
    assert isinstance(ended.exception, KeyReused)
    assert [one.name for one in ended.submitted] == ["a"]
