"""What is kept of an error: bounded, and printable by PostgreSQL. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

#: Longest error message kept, characters.
MAX_ERROR_CHARACTERS = 2_000
#: Longest traceback kept, characters; its end is what tells.
MAX_TRACEBACK_CHARACTERS = 16_000


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error in the form in which it is kept: bounded, and printable by PostgreSQL."""

    type: str
    message: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException, traceback: str | None = None) -> ErrorReport:
        """Describes `error`, whatever its `__str__` does."""
        kind = type(error)
        name = (
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        )
        try:
            message = str(error)
        except Exception as failure:  # noqa: BLE001 - a handler's exception class may do anything in __str__
            message = f"(its text could not be read: {type(failure).__name__})"
        return cls(
            type=_storable(name)[:200],
            message=_storable(message[:MAX_ERROR_CHARACTERS]),
            traceback=_storable(traceback[-MAX_TRACEBACK_CHARACTERS:]) if traceback else None,
        )

    @property
    def fingerprint(self) -> str:
        """The same for errors that differ only in numbers and ids."""
        shape = re.sub(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "#", self.message.lower())
        return hashlib.sha256(f"{self.type}\n{shape}".encode()).hexdigest()[:16]


def _storable(value: str) -> str:
    """PostgreSQL keeps neither NUL nor lone surrogates."""
    return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
