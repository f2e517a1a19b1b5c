"""The Flask extensions and the Celery application, unbound: `create_app` and `tasks.celery` bind them."""

from __future__ import annotations

from collections.abc import Iterable

from celery import Celery
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from kombu.entity import Queue
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The declarative base of every table."""


db = SQLAlchemy(model_class=Base)
migrate = Migrate()
#: Counts submissions per client address in Redis; `webapp.api` configures it and names its routes.
limiter = Limiter(key_func=get_remote_address, headers_enabled=True)
#: The Celery application of every process; its data is in `celeryconfig.py`.
celery = Celery("djps")


def bind_celery(queues: Iterable[str]) -> None:
    """Configures the Celery application and names every queue there is; others are refused, not made up."""
    celery.config_from_object("celeryconfig")
    celery.conf.task_queues = [Queue(name) for name in queues]
