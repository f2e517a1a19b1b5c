"""How long a client may take, and how much of it is kept meanwhile."""

from __future__ import annotations

#: Longest from a request's first byte to the end of its head, seconds; a new connection may say nothing for as long.
HEAD_SECONDS = 5.0
#: Longest from a request's first byte to its last, and longest an answer may wait to be read, seconds; and what a larger one
#: gets on top, bytes a second. The largest batch has 26 s.
BODY_SECONDS = ANSWER_SECONDS = 10.0
BYTES_PER_SECOND = 1024**2
#: Longest without a byte of a body for which room is kept, seconds.
STALL_SECONDS = 5.0
#: Longest a body waits for room before it is refused, seconds.
ROOM_SECONDS = 10.0
#: When a client that was refused for want of room may try again, seconds.
RETRY_AFTER = 5
#: How long a client has to see the end of its last answer, and what it may send meanwhile, seconds and bytes: a connection
#: that is closed over unread bytes is reset, and the answer may be lost with it.
LINGER_SECONDS, LINGER_BYTES = 2.0, 32 * 1024**2

#: Largest head of a request, bytes.
MAX_HEAD = 64 * 1024
#: Largest body that needs no room, bytes: the number of connections bounds these.
FREE_BODY = 16 * 1024
#: Room of a process for the bodies of single jobs, and as much again for batches, bytes. The largest batch needs all of it.
ROOM = 16 * 1024**2
#: Most that may frame a body in chunks: so many bytes, and one for so many bytes of the body. Each chunk costs time.
FRAMING_BYTES, BODY_BYTES_PER_FRAMING_BYTE = 64 * 1024, 8
#: Most that clients have not read of their answers, in all of a process, bytes. Beyond it the one that is longest at it goes.
MAX_UNREAD = 32 * 1024**2
#: What the kernel takes of an answer before its client reads, bytes; it would take megabytes, and keep them for minutes.
SEND_BUFFER = 128 * 1024
#: How far a stream may be ahead of its client before it waits, bytes.
MAX_AHEAD = 2 * 1024**2


def body_seconds(size: int) -> float:
    """How long a request with a body of this size may take to arrive, seconds.

    Example:
        >>> body_seconds(0), body_seconds(16 * 1024**2)
        (10.0, 26.0)
    """
    return BODY_SECONDS + size / BYTES_PER_SECOND


def answer_seconds(size: int) -> float:
    """How long a client has to read so much, seconds."""
    return ANSWER_SECONDS + size / BYTES_PER_SECOND
