"""What a handler may be, and what it may return."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial, partialmethod, wraps

import pytest

from webapp.jobs.functions import NeverRan, check_run
from webapp.jobs.handlers import Handler, HandlerRegistry


async def send(payload, context, *, retries=0):
    return 1


def plain(payload, context, *, retries=0):
    return 1


def pages(payload, context):
    yield 1


async def feed(payload, context):
    yield 1


class Sender:
    def __init__(self, result=None):
        self.result = result

    async def __call__(self, payload, context):
        return self.result

    async def method(self, payload, context):
        return 1

    @staticmethod
    async def static(payload, context):  # noqa: ARG004
        return 1

    @classmethod
    async def of_class(cls, payload, context):  # noqa: ARG003
        return 1

    def generator(self, payload, context):
        yield 1

    with_retries = partialmethod(method)


class Pages:
    def __call__(self, payload, context):
        yield 1


@wraps(send)
async def wrapped(payload, context):
    return await send(payload, context)


@pytest.mark.parametrize(
    "function",
    [
        send,
        wrapped,
        Sender(),
        Sender().method,
        Sender.static,
        Sender.of_class,
        partial(send, retries=3),
        partial(partial(send), retries=3),
        partial(Sender()),
        partial(Sender().method),
    ],
    ids=str,
)
def test_coroutine_functions_are_known(function):
    assert Handler("a", function).is_coroutine


@pytest.mark.parametrize(
    "function", [plain, partial(plain, retries=1), lambda p, c: None, print, Sender], ids=str
)
def test_other_functions_are_called_as_they_are(function):
    assert not Handler("a", function).is_coroutine


@pytest.mark.parametrize(
    "function",
    [pages, feed, partial(pages), partial(partial(feed)), Pages(), Sender().generator, partial(Pages())],
    ids=str,
)
def test_a_generator_is_refused_in_one_sentence(function):
    with pytest.raises(
        ValueError, match=r"handler 'a' is a generator .*its body would not run: return the result"
    ) as caught:
        HandlerRegistry().add(Handler("a", function))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [None, "send", 1, {}])
def test_what_cannot_be_called_is_refused(function):
    with pytest.raises(ValueError, match="handler 'a' must be a function"):
        HandlerRegistry().add(Handler("a", function))


def test_a_module_that_is_imported_again_may_register_a_partial_and_an_object():
    registry = HandlerRegistry()
    for _ in range(2):
        registry.add(Handler("a", partial(send, retries=3)))
        registry.add(Handler("b", Sender()))
    with pytest.raises(ValueError, match="registered twice"):
        registry.add(Handler("a", Sender()))


def returned(kind):
    match kind:
        case "coroutine":
            return send({}, None)
        case "generator":
            return pages({}, None)
        case "async_generator":
            return feed({}, None)
        case "Future":
            loop = asyncio.new_event_loop()
            loop.close()
            return asyncio.Future(loop=loop)
        case "map":
            return map(str, [1])
        case "filter":
            return filter(None, [1])


KINDS = ["coroutine", "generator", "async_generator", "Future", "map", "filter"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "around", [lambda one: one, lambda one: [1, one], lambda one: (one,), lambda one: {"a": one}]
)
def test_work_that_was_not_done_is_no_result(kind, around):
    work = returned(kind)
    with pytest.raises(NeverRan, match=f"returned a {kind}, whose work was not done"):
        check_run(around(work))
    if kind == "coroutine":
        assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


@pytest.mark.parametrize(
    "result", [None, 1, "x", [1, 2], {"a": [1]}, {1, 2}, object(), iter([1]), range(3), b"x"]
)
def test_any_other_result_is_one(result):
    check_run(result)
