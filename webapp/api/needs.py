"""What each view needs of its caller, said beside it; an application with a view that says nothing does not start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from flask import Flask

from webapp.access.model import Need

View = TypeVar("View", bound=Callable[..., Any])

_needs: dict[Callable[..., Any], Need] = {}


class UndeclaredNeed(RuntimeError):
    """A view does not say what it needs, so who may call it is not known."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            f"the view {endpoint!r} does not say which scope its callers need: say it by `documented(..., need=)`, or by `needs`"
        )


def needs(need: Need) -> Callable[[View], View]:
    """Says what a view needs; `documented` does this for views that are in the description.

    Example:
        >>> @needs(Scope.JOBS_READ)  # doctest: +SKIP
        ... def show(): ...
    """

    def note(view: View) -> View:
        _needs[view] = need
        return view

    return note


def layers_of(view: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A view, and what it is wrapped around, from the outside in."""
    wrapped: Callable[..., Any] | None = view
    while wrapped is not None:
        yield wrapped
        wrapped = getattr(wrapped, "__wrapped__", None)


def need_of(view: Callable[..., Any]) -> Need | None:
    """What was said of a view, under whatever it is wrapped in."""
    return next((_needs[layer] for layer in layers_of(view) if layer in _needs), None)


def needs_of(app: Flask) -> Mapping[str, Need]:
    """What each view of an application needs, by its endpoint.

    Raises:
        UndeclaredNeed: one does not say it.
    """
    found: dict[str, Need] = {}
    for endpoint, view in app.view_functions.items():
        need = need_of(view)
        if need is None:
            raise UndeclaredNeed(endpoint)
        found[endpoint] = need
    return found
