"""What is kept of an error: bounded, and printable by PostgreSQL. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from webapp.jobs import error_text

#: Longest error message kept, characters.
MAX_ERROR_CHARACTERS = 2_000
#: Longest traceback kept, characters; its end is what tells.
MAX_TRACEBACK_CHARACTERS = 16_000


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error in the form in which it is kept: bounded, and printable by PostgreSQL.

    Args:
        type: the error's class, with its module.
        message: what it says, what caused it, and what the members of a group say.
    """

    type: str
    message: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException, traceback: str | None = None) -> ErrorReport:
        """Describes `error`, whatever its `__str__` does."""
        return cls(
            type=storable(error_text.name_of(error))[:200],
            message=storable(error_text.told(error, MAX_ERROR_CHARACTERS)),
            traceback=storable(traceback[-MAX_TRACEBACK_CHARACTERS:]) if traceback else None,
        )

    @classmethod
    def undescribed(cls, error: BaseException, broken: BaseException) -> ErrorReport:
        """What is left to say of an error that raises another one when it is looked at."""
        name = storable(type.__getattribute__(type(error), "__name__"))[:200]
        return cls(name, f"(it could not be described: {type(broken).__name__})")

    @property
    def summary(self) -> str:
        """The class and the message, as a job shows its last error: `KeyError: 'to'`."""
        return error_text.titled(self.type, self.message)

    @property
    def fingerprint(self) -> str:
        """The same for errors that differ only in numbers and ids."""
        shape = re.sub(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "#", self.message.lower())
        return hashlib.sha256(f"{self.type}\n{shape}".encode()).hexdigest()[:16]


def storable(value: str) -> str:
    """PostgreSQL keeps neither NUL nor lone surrogates."""
    return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
