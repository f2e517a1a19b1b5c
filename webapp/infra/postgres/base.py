"""The base of all tables, by which migrations and their tests know each of them."""

from __future__ import annotations

from sqlalchemy import DateTime
from sqlalchemy.orm import DeclarativeBase

#: A moment, with its offset.
TIME = DateTime(timezone=True)


class Base(DeclarativeBase):
    """The declarative base of every table."""
