"""The Flask extensions, unbound: `create_app` binds them. Workers never import this."""

from __future__ import annotations

from typing import Any

from flask import g, request
from flask.json.provider import DefaultJSONProvider
from flask_limiter import Limiter
from flask_sqlalchemy import SQLAlchemy
from limits.storage.redis import RedisStorage

from webapp.access.attempts import site_of
from webapp.access.model import ANYONE, Caller
from webapp.infra.jsontext import text_of
from webapp.infra.postgres.base import Base


def submitter() -> str:
    """Whose submissions are counted together: those by one key, whatever the address, and without a key those of one address or IPv6 site."""
    caller: Caller = g.get("caller", ANYONE)
    return site_of(request.remote_addr) if caller.key is None else f"key {caller.key}"


db = SQLAlchemy(model_class=Base)
#: Counts submissions in Redis; `webapp.api` configures it and names its routes.
limiter = Limiter(key_func=submitter)

#: How Flask asks for an answer's JSON outside debug mode.
_COMPACT = {"separators": (",", ":")}


class QuickJSON(DefaultJSONProvider):
    """Flask's JSON, made the quick way where that is the same text; keys stay in the order they are given in."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """The JSON text of an answer."""
        quick = text_of(obj) if kwargs == _COMPACT else None
        return super().dumps(obj, **kwargs) if quick is None else quick


#: What stands before a Redis URL so that `limits` takes this storage.
LIMITER_SCHEME = "djps+"


class HintStorage(RedisStorage):
    """The library's storage, with counters that may hold anything: they are keys in a Redis that others write to.

    A counter of another type, without an end, with one that is too late, or below zero would refuse a client for
    ever, or never.
    """

    # The library's also names valkey-py, and loads it where it is installed, to use the one that the scheme names.
    DEPENDENCIES = {"redis": None}  # noqa: RUF012 - as below
    STORAGE_SCHEME = [f"{LIMITER_SCHEME}redis", f"{LIMITER_SCHEME}rediss", f"{LIMITER_SCHEME}unix"]  # noqa: RUF012 - the library's way

    SCRIPT_INCR_EXPIRE = b"""
        local amount, expiry = tonumber(ARGV[2]), tonumber(ARGV[1])
        local count = redis.pcall('INCRBY', KEYS[1], amount)
        if type(count) == 'number' and count > amount then
            local left = redis.call('PTTL', KEYS[1])
            if left >= 0 and left <= expiry * 1000 then
                return count
            end
        end
        redis.call('SET', KEYS[1], amount, 'EX', expiry)
        return amount
    """

    def __init__(self, uri: str, **options: float | str | bool) -> None:
        super().__init__(uri.removeprefix(LIMITER_SCHEME), **options)  # type: ignore[arg-type] # the library's own options
