"""kombu's Redis transport, mended: no message ends its worker, however late or broken it is.

Seen with kombu 5.7.0 and Celery 5.7.0: a worker holds a message, Redis dies, the channel is closed and
taken apart. When the job ends, its acknowledgement asks that channel for a new connection and fails with an
AttributeError that nobody expects: "Unrecoverable error", and the worker is gone. The same happens when the
closing channel tries to put its messages back.

And what is in a queue need not be a message: kombu parses it in the worker's event loop, and anything that is
not its own kind of JSON ends the worker just so.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis, virtual

logger = logging.getLogger(__name__)

#: kombu keeps a list for each of these priorities of a queue, and empties them in this order: 0 is its most urgent.
PRIORITY_STEPS = tuple(range(10))
#: Our most urgent priority.
MOST_URGENT = 9

#: What parsing and handing on a broken message may raise.
BROKEN = (ValueError, TypeError, LookupError, AttributeError)

_read: Any = redis.Channel._brpop_read


def kombu_priority(priority: int) -> int:
    """A job's priority as kombu counts it: 0 comes first there.

    Example:
        >>> kombu_priority(9), kombu_priority(5), kombu_priority(0)
        (0, 4, 9)
    """
    return MOST_URGENT - priority


def list_at(queue: str, step: int) -> str:
    """The Redis list where messages of a priority wait, as kombu counts it."""
    return f"{queue}{redis.Channel.sep}{step}" if step else queue


def list_of(queue: str, priority: int) -> str:
    """The Redis list where jobs of a priority wait; DJPS's own messages are in that of the most urgent one."""
    return list_at(queue, kombu_priority(priority))


def lists_of(queue: str) -> tuple[str, ...]:
    """All Redis lists of a queue, the most urgent first, which is the order in which workers empty them."""
    return tuple(list_of(queue, MOST_URGENT - step) for step in PRIORITY_STEPS)


class QoS(redis.QoS):
    """Acknowledges nothing over a channel that is closed: Redis has its own copy of the message by then."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledges a message, if its channel is still there."""
        if self.channel.closed:
            virtual.QoS.ack(self, delivery_tag)
            return
        try:
            super().ack(delivery_tag)
        except Exception:
            # Celery logs it and goes on; a tag that stayed would hold its place in the prefetch window for ever,
            # and a worker with as many of them as children takes no message any more.
            virtual.QoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Rejects a message, if its channel is still there."""
        if self.channel.closed:
            virtual.QoS.ack(self, delivery_tag)
            return
        try:
            super().reject(delivery_tag, requeue=requeue)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise


def read_or_drop(channel: redis.Channel, **options: Any) -> Any:
    """Takes the next message off its queue; one that is broken is logged and dropped."""
    held = set(channel.qos._delivered)
    try:
        return _read(channel, **options)
    except BROKEN as error:
        logger.error(  # noqa: TRY400 - the traceback would be kombu's, and the message may be anything
            "broken message was dropped",
            extra={"error_type": type(error).__name__, "error": str(error)[:200]},
        )
        # One that was taken on before it broke would hold its place in the prefetch window for ever.
        for tag in set(channel.qos._delivered) - held:
            channel.basic_reject(tag, requeue=False)
        return True


def mend() -> None:
    """Makes every Redis channel of this process use these rules.

    A closing channel also no longer puts back the messages it holds: that only sends again what is still
    running, and the dispatcher brings back what was really lost.
    """
    redis.Channel.QoS = QoS
    redis.Channel.do_restore = False
    redis.Channel._brpop_read = read_or_drop  # type: ignore[method-assign,assignment] # that is the mend
