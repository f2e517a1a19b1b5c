"""The names of everything that is kept in Redis, and what is done about a key that is not what it should be.

Every name goes through `key`, which puts the installation's prefix before it, so that two installations can share a
Redis. What a key holds is a hint: anybody with access may have written it. One of a wrong type is removed, for it
would be in the way for ever; what it held comes back by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from redis.exceptions import RedisError

from webapp.settings import current

logger = logging.getLogger(__name__)

#: Run id of the Redis that has our messages.
EPOCH = "djps:epoch"
#: How long one job of each task takes, seconds.
PACE = "djps:pace"
#: What every heartbeat key begins with; the worker's name follows.
WORKER = "djps:worker:"
#: The same of what a worker said last, which is kept when it is gone.
SEEN = "djps:seen:"
#: Beat's last tick.
BEAT = "djps:beat"
#: Written by the readiness probe, to see that it can be.
PROBE = "djps:probe"
#: What every counter of the submission limit begins with.
LIMITS = "LIMITS"
#: kombu's keys: messages that were taken and not acknowledged, when that was, and who looks after them.
UNACKED, UNACKED_INDEX, UNACKED_MUTEX = "unacked", "unacked_index", "unacked_mutex"
#: Names that no queue may have: a queue's list has the queue's name for its key.
RESERVED = frozenset({UNACKED, UNACKED_INDEX, UNACKED_MUTEX})

#: For each type, a command that fails on any other type and changes nothing; all are in the ACL user's list.
_PROBES: dict[str, Callable[[Any, str], Any]] = {
    "list": lambda client, name: client.llen(name),
    "hash": lambda client, name: client.hdel(name, ""),
    "set": lambda client, name: client.srem(name, ""),
    "zset": lambda client, name: client.zrem(name, ""),
}


def prefix() -> str:
    """What stands before every key of this installation (REDIS_PREFIX)."""
    return current().redis_prefix


def key(name: str) -> str:
    """The key of this name in this installation."""
    return current().redis_prefix + name


def is_wrong_type(error: BaseException) -> bool:
    """True for the answer to a command that does not fit the type of the key."""
    return isinstance(error, RedisError) and "WRONGTYPE" in str(error)


def remove_wrong(client: Any, expected: Mapping[str, str]) -> list[str]:
    """Removes keys that have another type than they should; returns their names.

    Args:
        client: one that puts no prefix before what it is given.
        expected: type by key: list, hash, set or zset.

    Raises:
        RedisError: Redis is not answering, or does not allow it.
    """
    pipe = client.pipeline(transaction=False)
    for name, type_ in expected.items():
        _PROBES[type_](pipe, name)
    answers = pipe.execute(raise_on_error=False)
    wrong = [name for name, answer in zip(expected, answers, strict=True) if is_wrong_type(answer)]
    if wrong:
        client.delete(*wrong)
        logger.error("keys of a wrong type were removed from Redis", extra={"keys": wrong})
    return wrong
