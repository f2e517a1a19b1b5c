"""Where a stack is: said by its settings, kept in its note while it runs, shown without passwords."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from ops.stack import passwords, ports, postgres, valkey
from webapp.settings import Settings
from webapp.settings.local import note_of, read_note

#: Seconds a server of someone else's may take to answer.
ANSWER_TIMEOUT = 3.0

#: A password in a URL, up to the last @ of its address, and one in its query.
_IN_ADDRESS = re.compile(r"(://[^:/?#]*):[^\s\"']*@")
_IN_QUERY = re.compile(r"([?&]password=)[^&\s\"']*")


def masked(text: str) -> str:
    """A URL, or text with one in it, without the password.

    Example:
        >>> masked("redis://:s3cret@localhost:6379/0"), masked("postgresql://h/d?user=u&password=s3cret")
        ('redis://:***@localhost:6379/0', 'postgresql://h/d?user=u&password=***')
    """
    return _IN_QUERY.sub(r"\1***", _IN_ADDRESS.sub(r"\1:***@", text))


def of(settings: Settings) -> dict[str, str]:
    """The URLs of a stack with these settings.

    Args:
        settings: what they name no server for is started by the stack itself.
    """
    given = settings.model_fields_set
    local = ports.LOOPBACK
    return {
        "database_url": settings.database_url
        if "database_url" in given
        else postgres.url(settings.postgres_port, passwords.kept(settings.data_dir, "postgres")),
        "redis_url": settings.redis_url
        if "redis_url" in given
        else valkey.url(settings.redis_port, passwords.kept(settings.data_dir, "redis")),
        "api_url": f"http://{reached(settings.api_host)}:{settings.api_port}",
        "flower_url": f"http://{reached(settings.flower_host)}:{settings.flower_port}",
        "prometheus_url": f"http://{local}:{settings.prometheus_port}",
    }


def reached(host: str) -> str:
    """Where this machine reaches what listens on `host`, as it stands in a URL."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - it is compared, not bound
        return ports.LOOPBACK
    return f"[{host}]" if ":" in host else host


def write_note(data: Path, note: Mapping[str, Any]) -> None:
    """Writes down where the stack of a data folder is, for its owner's eyes only: there is a password in it."""
    passwords.write(note_of(data), json.dumps(note))


def forget_note(data: Path) -> None:
    """The stack is down: it is nowhere."""
    note_of(data).unlink(missing_ok=True)


def now(data: Path, settings: Settings) -> dict[str, str]:
    """The URLs of the stack that runs in a data folder; of the one that `up` would start, when none does."""
    note = read_note(data)
    return {name: str(note.get(name, url)) for name, url in of(settings).items()}


def unanswered(settings: Settings) -> str | None:
    """A sentence about a server that the settings name and that does not answer; None when all of them do."""
    given = settings.model_fields_set
    for name in ("database_url", "database_listen_url"):
        url = getattr(settings, name)
        if name in given and url and (said := postgres.refusal(url)):
            return f"the database at {masked(url)} does not answer; check {name.upper()} ({masked(said)})"
    if "redis_url" in given:
        try:
            with Redis.from_url(
                settings.redis_url, socket_timeout=ANSWER_TIMEOUT, socket_connect_timeout=ANSWER_TIMEOUT
            ) as client:
                client.ping()
        except (RedisError, OSError, ValueError, TypeError) as error:
            said = masked(" ".join(str(error).split()))
            return f"Redis at {masked(settings.redis_url)} does not answer; check REDIS_URL ({said})"
    return None
