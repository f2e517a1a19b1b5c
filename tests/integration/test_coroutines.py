"""Coroutine functions as handlers: on one event loop, with everything that other handlers have."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from functools import partial

import pytest
from factories import ENDS, attempts_of, ended, queued, row_of
from sqlalchemy import text

from tasks.attempt import coroutines
from tasks.attempt.soft_limit import SoftLimit
from tasks.chunk import execute_jobs
from tasks.execution import execute_job
from webapp.infra.telemetry.logs import bound_field
from webapp.jobs import Discard, control


def alone(job_id, seconds):
    """As Celery runs it, with a time limit that a signal brings."""
    try:
        with SoftLimit() as limit:
            limit.begin(seconds)
            execute_job.run(str(job_id))
    except ENDS:
        return


def in_a_chunk(job_id, seconds):
    ended(execute_jobs, [str(job_id)])


#: The time limit of a job that ends by itself, and of one that does not, seconds.
LONG, SHORT = 20.0, 0.3
#: Longest that a job which is past its time may go on, seconds: all that these jobs wait for takes a minute.
LATE = 30.0


@pytest.fixture(params=[alone, in_a_chunk])
def end(request, handle, engine):
    """Runs one attempt of a job whose handler is `function`; gives the job's row."""

    def run(function, seconds=LONG):
        name = handle(function)
        row = queued(engine, task=name, payload={"task": name, "n": 1}, timeout=seconds)
        began = time.monotonic()
        request.param(row.id, seconds)
        assert time.monotonic() - began < LATE
        return row_of(engine, row.id)

    return run


async def count(payload, context, *, by=1):
    await asyncio.sleep(0)
    return {"n": payload["n"] + by, "job": bound_field("job_id") == context.job_id}


class Counter:
    async def __call__(self, payload, context):
        return await count(payload, context)


@pytest.mark.parametrize(
    "function", [count, partial(count, by=1), Counter()], ids=["function", "partial", "object"]
)
def test_a_coroutine_runs_to_its_end_and_its_result_is_kept(end, function):
    row = end(function)
    assert (row.status, row.result) == ("completed", {"n": 2, "job": True})


def test_two_hundred_share_a_loop_and_a_chunk(engine, handle, eventually):
    loops = set()

    async def look(payload, context):
        await asyncio.sleep(0)
        loops.add(id(asyncio.get_running_loop()))
        context.progress(payload["n"], 200)
        return payload["n"]

    name = handle(look)
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in range(200)]

    def all_have_run() -> bool:
        # What a busy machine has not begun within a chunk's second is handed back.
        execute_jobs.run([str(row.id) for row in rows])
        return all(row_of(engine, row.id).status == "completed" for row in rows)

    eventually(all_have_run, 30)
    found = [row_of(engine, row.id) for row in rows]
    assert [(row.status, row.result) for row in found] == [("completed", n) for n in range(200)]
    assert len(loops) == 1


async def fail(payload, context):
    await asyncio.sleep(0)
    raise KeyError("to")


async def give_up(payload, context):
    raise asyncio.CancelledError("by hand")


async def leave(payload, context):
    raise SystemExit("good bye")


async def leave_from_within(payload, context):
    async def inner():
        raise SystemExit("from within")

    await asyncio.gather(inner(), asyncio.sleep(60))


async def fail_in_a_group(payload, context):
    async def inner():
        raise ValueError("one of them")

    async with asyncio.TaskGroup() as group:
        group.create_task(inner())
        group.create_task(asyncio.sleep(60))


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (fail, "KeyError: 'to'"),
        (give_up, "CancelledError: by hand"),
        (leave, "SystemExit: good bye"),
        (leave_from_within, "SystemExit: from within"),
        (
            fail_in_a_group,
            "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception): [ValueError: one of them]",
        ),
    ],
)
def test_an_error_in_a_coroutine_is_a_failed_attempt(end, engine, caplog, function, error):
    row = end(function)
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == [], "it is logged once"
    assert (row.status, row.retry_count, row.last_error) == ("queued", 1, error)
    assert function.__name__ in attempts_of(engine, row.id)[0]["traceback"]
    assert end(count).status == "completed", "the loop goes on"


def test_a_group_of_discards_is_one(end):
    async def refuse(payload, context):
        async def inner():
            raise Discard("no address")

        async with asyncio.TaskGroup() as group:
            group.create_task(inner())

    assert end(refuse).last_error.startswith("ExceptionGroup: unhandled errors in a TaskGroup")


async def wait(payload, context):
    await asyncio.sleep(60)


async def compute(payload, context):
    while True:
        pass


async def compute_beside(payload, context):
    await asyncio.gather(compute(payload, context), asyncio.sleep(60))


async def wait_in_a_group(payload, context):
    async with asyncio.TaskGroup() as group:
        group.create_task(wait(payload, context))


async def wait_with_a_timeout(payload, context):
    async with asyncio.timeout(60):
        await asyncio.sleep(60)


async def block(payload, context):
    time.sleep(60)  # noqa: ASYNC251 - that is what is tested


@pytest.mark.parametrize(
    "function",
    [wait, compute, compute_beside, wait_in_a_group, wait_with_a_timeout, block],
    ids=lambda f: f.__name__,
)
def test_a_coroutine_past_its_time_limit_is_stopped(end, function):
    row = end(function, SHORT)
    assert row.last_error == "JobTimeout: the attempt ran longer than its timeout of 0.3 s"
    assert end(count).status == "completed", "the loop goes on"


def test_a_coroutine_may_clean_up_when_its_time_is_over(end):
    cleaned = []

    async def tidy(payload, context):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    assert end(tidy, SHORT).last_error.startswith("JobTimeout")
    assert cleaned == [1]


def test_a_coroutine_that_finishes_in_spite_of_the_limit_has_finished(end):
    async def stay(payload, context):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done"

    assert end(stay, SHORT).result == "done"


def test_a_cancellation_reaches_a_coroutine(engine, handle):
    async def look(payload, context):
        with engine.begin() as connection:
            control.ask_cancel(connection, context.job_id)
        await asyncio.sleep(0)
        context.check_cancelled()

    row = queued(engine, task=handle(look))
    alone(row.id, LONG)
    assert row_of(engine, row.id).status == "cancelled"


def test_what_a_handler_leaves_behind_does_not_run_beside_the_next_job(engine, handle):
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def leave_it(payload, context):
        asyncio.get_running_loop().create_task(tick())
        await asyncio.sleep(0.01)

    async def see(payload, context):
        before = len(ticks)
        await asyncio.sleep(0.05)
        return len(ticks) - before

    first, second = (queued(engine, task=handle(function)) for function in (leave_it, see))
    ended(execute_jobs, [str(first.id), str(second.id)])
    assert row_of(engine, first.id).status == "completed"
    assert row_of(engine, second.id).result == 0


def test_one_that_cannot_be_ended_loses_its_loop(end, monkeypatch):
    monkeypatch.setattr(coroutines, "LEFTOVER_PATIENCE", 0.05)

    async def stubborn():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def leave_it(payload, context):
        asyncio.get_running_loop().create_task(stubborn())
        await asyncio.sleep(0)

    assert end(leave_it).status == "completed"
    assert coroutines._own.runner is None
    assert end(count).status == "completed"


def test_a_forked_child_makes_a_loop_of_its_own(engine, handle):
    row = queued(engine, task=handle(count))
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET payload = '{\"n\": 1}'"))
    ended(execute_jobs, [str(row.id)])
    assert coroutines._own.runner is not None
    pid = os.fork()
    if not pid:
        os._exit(0 if coroutines._own.runner is None else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_handler_may_run_a_loop_of_its_own_between_two_coroutines(end):
    def own(payload, context):
        return asyncio.run(count(payload, context))

    for function in (count, own, count):
        assert end(function).result["n"] == 2


def test_what_a_coroutine_forks_ends_without_touching_the_loop(end):
    async def fork(payload, context):
        pid = os.fork()
        if not pid:
            return None
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            await asyncio.sleep(0.001)
            if os.waitpid(pid, os.WNOHANG)[0]:  # noqa: ASYNC222 - it does not wait
                return "parent"
        return "the copy lives on"

    assert end(fork).result == "parent"
    assert end(count).status == "completed"
