"""What kind of function a handler is: one that returns, a coroutine function, or one whose body would never run. Pure."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Iterable
from functools import partial
from typing import Any

#: Types of results that are surely none of `UNRUN`; most are.
_PLAIN = frozenset({type(None), bool, int, float, str, dict, list, tuple})
#: What has a body that has not run, or is not over.
UNRUN = (Awaitable, AsyncIterator, map, filter)


def origin(function: Any) -> Any:
    """The function behind partials and behind an object that is called."""
    while isinstance(function, partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function).__call__ if callable(function) else function


def is_coroutine_function(function: Any) -> bool:
    """True if calling it only makes a coroutine.

    Example:
        >>> async def send(payload, context): ...
        >>> is_coroutine_function(partial(send, retries=3))
        True
    """
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(origin(function))


def check_function(name: str, function: Any) -> None:
    """Refuses a function that could not do its work.

    Raises:
        ValueError: it cannot be called, or is a generator, whose body does not run when it is called.
    """
    if not callable(function):
        raise ValueError(  # noqa: TRY004 - `@handler` raises one kind of error
            f"handler {name!r} must be a function; given: {type(function).__name__}"
        )
    found = origin(function)
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise ValueError(
            f"handler {name!r} is a generator (there is a yield in it), so its body would not run: return the result"
        )


class NeverRan(TypeError):
    """A handler returned work that has not been done, such as a coroutine that it did not await."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"the handler returned a {kind}, whose work was not done; await it, or return its result"
        )


def check_run(result: Any) -> None:
    """Refuses a result that is work still to be done, or a list or dictionary that holds some.

    Raises:
        NeverRan: it is; a coroutine is closed first, so that Python does not warn of it later.
    """
    kind = type(result)
    if kind in (list, tuple):
        unrun = _unrun_in(result)
    elif kind is dict:
        unrun = _unrun_in(result.values())
    else:
        unrun = _unrun_in((result,))
    if unrun:
        for one in unrun:
            if inspect.iscoroutine(one) or inspect.isgenerator(one):
                one.close()
        raise NeverRan(type(unrun[0]).__name__)


def _unrun_in(values: Iterable[Any]) -> list[Any]:
    return [
        one
        for one in values
        if type(one) not in _PLAIN and (isinstance(one, UNRUN) or inspect.isgenerator(one))
    ]
