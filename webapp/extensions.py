"""The Flask extensions, unbound: `create_app` binds them. Workers never import this."""

from __future__ import annotations

from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The declarative base of every table."""


db = SQLAlchemy(model_class=Base)
#: Counts submissions per client address in Redis; `webapp.api` configures it and names its routes.
limiter = Limiter(key_func=get_remote_address)
