"""The Flask extensions, unbound: `create_app` binds them. Workers never import this."""

from __future__ import annotations

from typing import Any

from flask.json.provider import DefaultJSONProvider
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase

from webapp.plainjson import text_of


class Base(DeclarativeBase):
    """The declarative base of every table."""


db = SQLAlchemy(model_class=Base)
#: Counts submissions per client address in Redis; `webapp.api` configures it and names its routes.
limiter = Limiter(key_func=get_remote_address)

#: How Flask asks for an answer's JSON outside debug mode.
_COMPACT = {"separators": (",", ":")}


class QuickJSON(DefaultJSONProvider):
    """Flask's JSON, made the quick way where that is the same text; keys stay in the order they are given in."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """The JSON text of an answer."""
        quick = text_of(obj) if kwargs == _COMPACT else None
        return super().dumps(obj, **kwargs) if quick is None else quick
