"""`/access/me`: who asks, and what they may.

Keys are made by the command line so far: who reaches the database owns the system, and a key that could make keys would have to be
kept from making greater ones than itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, jsonify

from webapp.access.model import Openness
from webapp.api import examples
from webapp.api.access_schemas import CallerAnswer
from webapp.api.callers import caller
from webapp.api.openapi import documented

if TYPE_CHECKING:
    from webapp.api.callers import Doorkeeper

bp = Blueprint("access", __name__)


def doorkeeper() -> Doorkeeper:
    """What judges the callers of this application."""
    found: Doorkeeper = current_app.extensions["doorkeeper"]
    return found


@bp.get("/access/me")
@documented({200: CallerAnswer}, need=Openness.ANY_KEY, examples=examples.ME)
def me() -> Response:
    """The caller: which key they have shown, what it may do, and until when it is good.

    Any key that is good may ask this, whatever its scopes are.

    Where no key is asked for, `key` and `name` are null and `scopes` are all there are; `mode` says
    whether keys are asked for: `keys` of all callers, `loopback` of none on this host, `open` of none at all.
    """
    return jsonify(CallerAnswer.of(caller(), doorkeeper().mode))
