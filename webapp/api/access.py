"""`/access`: who asks and what they may; and keys, made, rotated and revoked by those who hold a key.

A key gives nothing that it does not have itself, and makes none that makes keys. Where no key is asked for, none is made here: who
reaches the port would let themselves in for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, current_app, jsonify

from webapp.access.errors import OnCommandLine
from webapp.access.model import Openness, Scope
from webapp.api import access_examples
from webapp.api.access_schemas import (
    AccessKeyAnswer,
    AccessKeyPage,
    AccessKeyRequest,
    AccessKeysQuery,
    CallerAnswer,
    IssuedAnswer,
    QuotasRequest,
    RotateRequest,
)
from webapp.api.bodies import json_body, json_body_if_any
from webapp.api.callers import caller, reach
from webapp.api.jobs import query_values
from webapp.api.openapi import documented

if TYPE_CHECKING:
    from webapp.access.model import Caller, Issued
    from webapp.access.service import Access
    from webapp.api.callers import Doorkeeper

bp = Blueprint("access", __name__)

_NO_STORE = {"Cache-Control": {"schema": {"const": "no-store"}, "description": "The secret is in no cache."}}


def doorkeeper() -> Doorkeeper:
    """What judges the callers of this application."""
    found: Doorkeeper = current_app.extensions["doorkeeper"]
    return found


def access() -> Access:
    """The front door of this application's keys."""
    return cast("Access", current_app.extensions["access"])


@bp.get("/access/me")
@documented({200: CallerAnswer}, need=Openness.ANY_KEY, examples=access_examples.ME)
def me() -> Response:
    """The caller: which key they have shown, what it may do, and until when it is good.

    Any key that is good may ask this, whatever its scopes are.

    Where no key is asked for, `key` and `name` are null and `scopes` are all there are; `mode` says
    whether keys are asked for: `keys` of all callers, `loopback` of none on this host, `open` of none at all.
    """
    return jsonify(CallerAnswer.of(caller(), doorkeeper().mode))


@bp.get("/access/keys")
@documented(
    {200: AccessKeyPage}, 422, need=Scope.ACCESS_MANAGE, query=AccessKeysQuery, examples=access_examples.PAGE
)
def index() -> Response:
    """Keys, the newest first; `secrets` are the last characters of what is good for each."""
    query = AccessKeysQuery.model_validate(query_values())
    found = access().page(reach(), ended=query.ended, before=query.cursor, limit=query.limit)
    return jsonify(AccessKeyPage.of(found, query.limit))


@bp.post("/access/keys")
@documented(
    {201: IssuedAnswer},
    *(409, 413, 415, 422),
    need=Scope.ACCESS_MANAGE,
    body=AccessKeyRequest,
    answer_headers=_NO_STORE,
    examples=access_examples.CREATE,
)
def create() -> Response:
    """Makes a key; its `secret` is in this answer and nowhere else. It has nothing that the caller's key does not have, and is of its tenant.

    `lifetime` is in seconds, a year where it is left out; null: until it is revoked. 403 says what the caller's key lacks. A key with
    `access:manage` is made on the command line alone, and so is any where no key is asked for.
    """
    giver = _giver()
    wanted = AccessKeyRequest.model_validate(json_body()).wanted(giver.tenant.slug)
    return _issued(access().create(wanted, by=_named(giver), giver=giver.key), 201)


@bp.get("/access/keys/<int:number>")
@documented({200: AccessKeyAnswer}, 404, need=Scope.ACCESS_MANAGE, examples=access_examples.ONE)
def one(number: int) -> Response:
    """One key, also when it is revoked or has expired."""
    return jsonify(AccessKeyAnswer.of(access().find(number, reach())))


@bp.post("/access/keys/<int:number>/rotate")
@documented(
    {200: IssuedAnswer},
    *(404, 409, 413, 415, 422),
    need=Scope.ACCESS_MANAGE,
    body=RotateRequest,
    body_optional=True,
    answer_headers=_NO_STORE,
    examples=access_examples.ROTATE,
)
def rotate(number: int) -> Response:
    """Gives a key another secret, shown in this answer alone; the one before is good for `overlap` seconds more, a day unless said otherwise.

    A key that has what the caller's key does not have, or `access:manage`, is rotated on the command line.
    """
    giver = _giver()
    asked = RotateRequest.model_validate(json_body_if_any())
    return _issued(
        access().rotate(number, reach(), overlap=asked.overlap, by=_named(giver), giver=giver.key), 200
    )


@bp.put("/access/keys/<int:number>/quotas")
@documented(
    {200: AccessKeyAnswer},
    *(404, 409, 413, 415, 422),
    need=Scope.ACCESS_MANAGE,
    body=QuotasRequest,
    examples=access_examples.QUOTAS,
)
def set_quotas(number: int) -> Response:
    """Lets a key use so much from here on, in place of what it might before; in every process within two and a half seconds.

    Bounded are the jobs that it submits and the requests that it reads with in any minute, the requests that wait at once, and the
    largest body. What is left out is as much as all others may. No key gives another more than it may use itself.
    """
    giver = _giver()
    wanted = QuotasRequest.model_validate(json_body()).wanted()
    found = access().set_quotas(number, wanted, reach(), by=_named(giver), giver=giver.key)
    return jsonify(AccessKeyAnswer.of(found))


@bp.post("/access/keys/<int:number>/revoke")
@documented({200: AccessKeyAnswer}, 404, need=Scope.ACCESS_MANAGE, examples=access_examples.REVOKE)
def revoke(number: int) -> Response:
    """Makes a key good for nothing, in every process within two and a half seconds; it may be any key, also the caller's."""
    giver = _giver()
    return jsonify(AccessKeyAnswer.of(access().revoke(number, reach(), by=_named(giver), giver=giver.key)))


def _giver() -> Caller:
    """The caller, who has shown a key.

    Raises:
        OnCommandLine: they have shown none.
    """
    found = caller()
    if found.key is None:
        raise OnCommandLine(
            "keys are changed over HTTP only by who shows one, and here none was shown or asked for"
        )
    return found


def _named(giver: Caller) -> str:
    return f"key {giver.key} ({giver.name})"


def _issued(issued: Issued, status: int) -> Response:
    answer = jsonify(IssuedAnswer.of_issued(issued))
    answer.status_code = status
    answer.headers["Cache-Control"] = "no-store"
    return answer
