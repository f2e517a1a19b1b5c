"""Whether Redis still has what it was sent.

A key holds the run id of the server that it was written to; a flush takes the key, and a restart
changes the id (an append-only file may bring the key back, but not the last second's messages).
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from webapp.infra.broker import redis_keys
from webapp.infra.broker.client import Client


class Epoch:
    """The time since Redis last lost its memory.

    Args:
        client: asks Redis.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def is_over(self) -> bool:
        """True if Redis forgot what it was sent: it was flushed, restarted or replaced."""
        return bool(self._client.ask_aside(_is_another))

    def begin(self) -> None:
        """Notes that what Redis had lost is being sent again; failing to note it sends it another time."""
        self._client.ask(lambda client: client.set(redis_keys.key(redis_keys.EPOCH), _run_id(client)))


def _run_id(client: Any) -> str:
    return str(client.info("server").get("run_id", ""))


def _is_another(client: Any) -> bool:
    try:
        noted = client.get(redis_keys.key(redis_keys.EPOCH))
    except ResponseError as error:
        if not redis_keys.is_wrong_type(error):
            raise
        # Whatever is in the key's place is written over when the next epoch begins.
        return True
    if isinstance(noted, bytes):
        noted = noted.decode(errors="replace")
    return bool(noted != _run_id(client))
