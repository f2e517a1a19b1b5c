"""How far a caller reaches: of which queues they may see and steer jobs. Pure.

All that reads or steers jobs for a caller takes a reach, and has no default for it: what forgets to ask does not run. `EVERYTHING` is
what the command line reaches, and who has shown a key without queues.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """Of which queues.

    Args:
        queues: their names; None: of all, also of those that do not exist yet.

    Example:
        >>> Reach(frozenset({"mail"})).has("video"), EVERYTHING.has("video")
        (False, True)
    """

    queues: frozenset[str] | None

    def has(self, queue: str | None) -> bool:
        """True if a queue is within; a job of which it is not known is within `EVERYTHING` alone."""
        return self.queues is None or queue in self.queues

    def narrowed(self, queue: str | None) -> tuple[str | None, tuple[str, ...] | None]:
        """What is to be looked for where a queue was asked for, or any (None): the one queue, and else all of these; None: any.

        No queue at all stands for nothing.

        Example:
            >>> both = Reach(frozenset({"mail", "video"}))
            >>> both.narrowed(None), both.narrowed("mail"), both.narrowed("billing"), EVERYTHING.narrowed("mail")
            ((None, ('mail', 'video')), ('mail', None), ('billing', ()), ('mail', None))
        """
        if self.queues is None or (queue is not None and queue in self.queues):
            return queue, None
        if queue is not None:
            return queue, ()
        if len(self.queues) == 1:
            return next(iter(self.queues)), None
        return None, tuple(sorted(self.queues))


#: All queues.
EVERYTHING = Reach(None)
