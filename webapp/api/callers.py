"""Who asks, and whether they may: each request is judged by what its view needs, before anything is done for it."""

from __future__ import annotations

from typing import cast

from flask import Flask, current_app, g, request

from webapp.access.errors import ScopeMissing
from webapp.access.model import ANYONE, Caller, Need, Scope, refusal_of
from webapp.api.needs import needs_of


def init_app(app: Flask) -> None:
    """Has every view say what it needs; comes after all views.

    Raises:
        UndeclaredNeed: one does not say it.
    """
    app.extensions["needs"] = needs_of(app)


def judge() -> None:
    """Lets all callers in: no key is asked for.

    Raises:
        ScopeMissing: the caller may not do this.
    """
    need: Need | None = current_app.extensions["needs"].get(request.endpoint)
    g.caller = ANYONE
    if (
        need is not None
        and (refused := refusal_of(need, g.caller)) is not None
        and refused.missing is not None
    ):
        raise ScopeMissing(refused.missing, g.caller.name)


def caller() -> Caller:
    """Who asks for what this request does.

    Raises:
        AttributeError: they were not judged, as outside of a request's work.
    """
    return cast("Caller", g.caller)


def require(scope: Scope) -> None:
    """Asks for a scope that only some requests to a view need.

    Raises:
        ScopeMissing: the caller does not have it.
    """
    if scope not in caller().scopes:
        raise ScopeMissing(scope, caller().name)
