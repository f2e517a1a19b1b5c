"""kombu's Redis transport, mended: a message that outlives its connection must not end its worker.

Seen with kombu 5.7.0 and Celery 5.7.0: a worker holds a message, Redis dies, the channel is closed and
taken apart. When the job ends, its acknowledgement asks that channel for a new connection and fails with an
AttributeError that nobody expects: "Unrecoverable error", and the worker is gone. The same happens when the
closing channel tries to put its messages back.
"""

from __future__ import annotations

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Acknowledges nothing over a channel that is closed: Redis has its own copy of the message by then."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledges a message, if its channel is still there."""
        if self.channel.closed:
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Rejects a message, if its channel is still there."""
        if self.channel.closed:
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().reject(delivery_tag, requeue=requeue)


def mend() -> None:
    """Makes every Redis channel of this process use these rules.

    A closing channel also no longer puts back the messages it holds: that only sends again what is still
    running, and the dispatcher brings back what was really lost.
    """
    redis.Channel.QoS = QoS
    redis.Channel.do_restore = False
