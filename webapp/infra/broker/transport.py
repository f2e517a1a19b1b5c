"""kombu's Redis transport, mended: no message and no key ends its worker, however late or broken it is.

Seen with kombu 5.7.0 and Celery 5.7.0: a worker holds a message, Redis dies, the channel is closed and
taken apart. When the job ends, its acknowledgement asks that channel for a new connection and fails with an
AttributeError that no caller expects: "Unrecoverable error", and the worker is gone. The same happens when the
closing channel tries to put its messages back.

What is in a queue need not be a message: kombu parses it in the worker's event loop, and anything that is
not its own kind of JSON ends the worker just so. A key of a wrong type in the place of one of kombu's ends every
connection as soon as it is made. And where Redis refuses to write (a read-only replica), a channel that cannot be
opened or closed in order keeps its sockets: each try to reconnect leaked several.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from queue import Empty
from typing import Any, TypeVar

from kombu.transport import redis, virtual
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from webapp.infra import patches
from webapp.infra.broker import redis_keys

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: kombu keeps a list for each of these priorities of a queue, and empties them in this order: 0 is its most urgent.
PRIORITY_STEPS = tuple(range(10))
#: Our most urgent priority.
MOST_URGENT = 9
#: Seconds between two log lines about messages that cannot be put back.
SAY_EVERY = 60.0

#: What parsing and handing on a broken message may raise.
BROKEN = (ValueError, TypeError, LookupError, AttributeError)


def kombu_priority(priority: int) -> int:
    """A job's priority as kombu counts it: 0 comes first there.

    Example:
        >>> kombu_priority(9), kombu_priority(5), kombu_priority(0)
        (0, 4, 9)
    """
    return MOST_URGENT - priority


def _step_name(queue: str, step: int) -> str:
    return f"{queue}{redis.Channel.sep}{step}" if step else queue


def list_at(queue: str, step: int) -> str:
    """The key of the list where messages of a priority wait, as kombu counts it."""
    return redis_keys.key(_step_name(queue, step))


def list_of(queue: str, priority: int) -> str:
    """The key of the list where jobs of a priority wait; what beat asks for is in that of the most urgent one."""
    return list_at(queue, kombu_priority(priority))


def lists_of(queue: str) -> tuple[str, ...]:
    """The keys of all lists of a queue, the most urgent first, which is the order in which workers empty them."""
    return tuple(list_of(queue, MOST_URGENT - step) for step in PRIORITY_STEPS)


class QoS(redis.QoS):
    """Acknowledges nothing over a channel that is closed: Redis has its own copy of the message by then."""

    #: When it was last logged that messages could not be put back; every connection has a QoS of its own.
    said_at = float("-inf")

    def append(self, message: Any, delivery_tag: str) -> None:
        """Takes a message on."""
        take = super().append
        self.channel.once_more(lambda: take(message, delivery_tag))

    def ack(self, delivery_tag: str) -> None:
        """Acknowledges a message, if its channel is still there."""
        self._end(delivery_tag, super().ack)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Rejects a message, if its channel is still there."""
        reject = super().reject
        self._end(delivery_tag, lambda tag: reject(tag, requeue=requeue))

    def _end(self, delivery_tag: str, end: Callable[[str], None]) -> None:
        if self.channel.closed:
            virtual.QoS.ack(self, delivery_tag)
            return
        try:
            self.channel.once_more(lambda: end(delivery_tag))
        except Exception:
            # Celery logs it and goes on; a tag that stayed would hold its place in the prefetch window for ever,
            # and a worker with as many of them as children takes no message any more.
            virtual.QoS.ack(self, delivery_tag)
            raise

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Puts back messages that were taken long ago. The dispatcher does that as well, so it may fail.

        kombu calls it while it connects, and a connection that is made and not handed over is never closed.
        """
        restore = super().restore_visible
        try:
            self.channel.free_mutex()
            self.channel.once_more(lambda: restore(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a server away shows when the next message is asked for
            if time.monotonic() - QoS.said_at > SAY_EVERY:
                QoS.said_at = time.monotonic()
                logger.warning(
                    "unacknowledged messages were not put back", extra={"error_type": type(error).__name__}
                )

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's
        """Puts back one message; one that cannot be read is dropped."""
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except BROKEN as error:
            _say_broken(error)
            self._remove_from_indices(tag).execute()


class Channel(redis.Channel):
    """kombu's channel, which keeps going whatever is in its keys.

    A closing channel also no longer puts back the messages it holds: that only sends again what is still
    running, and the dispatcher brings back what was really lost.
    """

    QoS = QoS
    do_restore = False

    def once_more(
        self, work: Callable[[], T], queues: Iterable[str] = (), exchanges: Iterable[str] = ()
    ) -> T:
        """Does something with kombu's keys; again when keys of a wrong type were in the way, which are removed.

        Args:
            queues: those it is about, beside the ones that messages are taken from.
            exchanges: those it is about, beside the ones that are known.

        Raises:
            ResponseError: Redis refuses it for another reason, or still does.
        """
        try:
            return work()
        except ResponseError as error:
            if not redis_keys.is_wrong_type(error):
                raise
            # Another process may have removed them already.
            self._remove_wrong(queues, exchanges)
            return work()

    def _remove_wrong(self, queues: Iterable[str] = (), exchanges: Iterable[str] = ()) -> list[str]:
        """Removes every key of a wrong type that this channel uses; returns their names."""
        expected = {self.unacked_key: "hash", self.unacked_index_key: "zset"}
        expected[self.keyprefix_binding_deadlines] = "zset"
        for exchange in {*self.state.exchanges, *exchanges}:
            expected |= {
                self.keyprefix_queue % exchange: "set",
                self.keyprefix_binding_permanent % exchange: "set",
            }
        for queue in {*self.active_queues, *queues}:
            expected |= dict.fromkeys((_step_name(queue, step) for step in PRIORITY_STEPS), "list")
        named = {self.global_keyprefix + name: type_ for name, type_ in expected.items()}
        return redis_keys.remove_wrong(Redis(connection_pool=self.pool), named)

    def free_mutex(self) -> None:
        """Removes the key that says who puts messages back when it would stay longer than kombu ever keeps it."""
        client = Redis(connection_pool=self.pool)
        name = self.global_keyprefix + self.unacked_mutex_key
        left = int(client.pttl(name))
        if left == -1 or left > self.unacked_mutex_expire * 1_000:
            client.delete(name)

    def _brpop_read(self, **options: Any) -> Any:
        """Takes the next message off its queue; one that is broken is logged and dropped."""
        held = set(self.qos._delivered)
        try:
            return super()._brpop_read(**options)
        except BROKEN as error:
            _say_broken(error)
            # One that was taken on before it broke would hold its place in the prefetch window for ever.
            for tag in set(self.qos._delivered) - held:
                self.basic_reject(tag, requeue=False)
            return True
        except ResponseError as error:
            if not redis_keys.is_wrong_type(error):
                raise
            self._remove_wrong()
            raise Empty from error

    def _receive_one(self, c: Any) -> Any:
        """Takes the next broadcast; one that is broken is logged and dropped."""
        try:
            return super()._receive_one(c)
        except BROKEN as error:
            _say_broken(error)
            raise Empty from error

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        bind = super()._queue_bind
        self.once_more(lambda: bind(exchange, routing_key, pattern, queue), [queue], [exchange])

    def get_table(self, exchange: str) -> list[tuple[str, ...]]:
        """The queues that are bound to an exchange; what is no binding is left out."""
        members = self.once_more(
            lambda: self._create_client().smembers(self.keyprefix_queue % exchange), exchanges=[exchange]
        )
        found = (tuple(member.decode(errors="replace").split(self.sep)) for member in members)
        return [binding for binding in found if len(binding) == _BINDING_PARTS]

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        put = super()._put
        self.once_more(lambda: put(queue, message, **kwargs), [queue])

    def _size(self, queue: str) -> int:
        size = super()._size
        return int(self.once_more(lambda: size(queue), [queue]))

    def close(self) -> None:
        """Closes the channel and, whatever Redis says to that, its sockets."""
        try:
            super().close()
        except (RedisError, OSError) as error:
            logger.warning("channel could not be closed in order", extra={"error_type": type(error).__name__})
            # What kombu left out after the step that failed.
            if self.connection is not None:
                self.connection.cycle.discard(self)
            self._disconnect_pools()
            self._close_clients()
            virtual.Channel.close(self)


#: Routing key, pattern and queue.
_BINDING_PARTS = 3


def _say_broken(error: Exception) -> None:
    logger.error(
        "broken message was dropped", extra={"error_type": type(error).__name__, "error": str(error)[:200]}
    )


def mend() -> None:
    """Makes every Redis connection of this process use these rules."""
    patches.put("kombu.transport.redis:Transport.Channel", Channel)
