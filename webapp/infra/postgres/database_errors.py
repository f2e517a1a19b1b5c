"""What an error of PostgreSQL means: its SQLSTATE decides. And what may be said of it in a log: never its text.

PostgreSQL's messages quote what they are about: a key, a payload, a row. Class, code and the names of table and
constraint say as much to a reader of the log, and hold nothing of a client's.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from enum import StrEnum

import psycopg2
from sqlalchemy.exc import StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

#: Most errors of a chain that are shown.
_LONGEST_CHAIN = 10


class Trouble(StrEnum):
    """What is the matter with the database, or with the statement."""

    #: It does not answer, it starts or ends, or the connection broke.
    AWAY = "away"
    #: No connection of this process's pool was free in time.
    NO_CONNECTION = "no_connection"
    #: It takes no writes: a standby, or a primary that was made read-only.
    READ_ONLY = "read_only"
    #: Another session holds a lock, or won a conflict.
    BUSY = "busy"
    #: The statement ran into its time limit.
    SLOW = "slow"
    #: Connections, disk or memory are used up.
    FULL = "full"
    #: It does not let us in, or not do this.
    REFUSED = "refused"
    #: The statement or its values are wrong; the same again fails again.
    DEFECT = "defect"


#: By the whole SQLSTATE (PostgreSQL's documentation, appendix A).
_BY_CODE = {
    "25006": Trouble.READ_ONLY,  # read_only_sql_transaction
    "25P03": Trouble.AWAY,  # idle_in_transaction_session_timeout: the connection was ended
    "25P04": Trouble.AWAY,  # transaction_timeout: likewise
    "42501": Trouble.REFUSED,  # insufficient_privilege
    "55006": Trouble.BUSY,  # object_in_use
    "55P03": Trouble.BUSY,  # lock_not_available
    "57014": Trouble.SLOW,  # query_canceled
    "57P04": Trouble.REFUSED,  # database_dropped
}
#: By its class, the first two characters.
_BY_CLASS = {
    "08": Trouble.AWAY,  # connection exceptions, and most of what a pooler says
    "28": Trouble.REFUSED,  # login
    "3D": Trouble.REFUSED,  # no such database
    "40": Trouble.BUSY,  # serialization failures and deadlocks
    "53": Trouble.FULL,  # insufficient resources
    "57": Trouble.AWAY,  # shutdown, crash, start
    "58": Trouble.AWAY,  # system errors outside of PostgreSQL
}
#: Errors of libpq's own, about the connection, have no code; others without one are the driver's, about the statement.
_OF_CONNECTIONS = (psycopg2.OperationalError, psycopg2.InterfaceError)


def trouble_of_code(sqlstate: str | None, *, connection: bool = False) -> Trouble:
    """What a SQLSTATE means. Pure.

    Args:
        connection: what an error without a code means: True for one of the connection, False for one of the statement.

    Example:
        >>> trouble_of_code("25006"), trouble_of_code("23505"), trouble_of_code(None, connection=True)
        (<Trouble.READ_ONLY: 'read_only'>, <Trouble.DEFECT: 'defect'>, <Trouble.AWAY: 'away'>)
    """
    if sqlstate is None:
        return Trouble.AWAY if connection else Trouble.DEFECT
    return _BY_CODE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2], Trouble.DEFECT)


def trouble_of(error: BaseException) -> Trouble:
    """What an error of SQLAlchemy or psycopg2 means."""
    if isinstance(error, PoolTimeout):
        return Trouble.NO_CONNECTION
    if getattr(error, "connection_invalidated", False) and sqlstate_of(error) is None:
        return Trouble.AWAY
    cause = _cause_of(error)
    broken = isinstance(cause, _OF_CONNECTIONS) or type(cause) is psycopg2.DatabaseError
    return trouble_of_code(sqlstate_of(error), connection=broken)


def never_works(error: BaseException) -> bool:
    """True if trying the same statement again is no use: PostgreSQL, or its driver, does not take it with these values.

    Example:
        >>> never_works(ValueError("A string literal cannot contain NUL (0x00) characters."))
        True
    """
    if is_of_database(error) or isinstance(error, PoolTimeout):
        return trouble_of(error) is Trouble.DEFECT
    return isinstance(error, (ValueError, TypeError, OverflowError))


def sqlstate_of(error: BaseException) -> str | None:
    """The error's SQLSTATE; None where PostgreSQL gave none."""
    code: str | None = getattr(_cause_of(error), "pgcode", None)
    return code


def is_lock_of(error: BaseException, table: str) -> bool:
    """True if a lock could not be had in time, and it was that of a row of this table.

    A lock of the whole table is asked for before any row is looked at, and has no context.
    """
    cause = _cause_of(error)
    context = getattr(getattr(cause, "diag", None), "context", None)
    return sqlstate_of(error) == "55P03" and f'"{table}' in (context or "")


def met_a_moved_row(error: BaseException) -> bool:
    """True if a row that was waited for is in another partition by now; READ COMMITTED raises this for nothing else."""
    return sqlstate_of(error) == "40001"


def _cause_of(error: BaseException) -> BaseException:
    """The driver's error, where SQLAlchemy has put one of its own around it."""
    inner = getattr(error, "orig", None)
    return inner if isinstance(inner, BaseException) else error


def is_of_database(error: BaseException) -> bool:
    """True if the error's text may hold a statement, its values or a row."""
    return isinstance(error, (psycopg2.Error, StatementError))


def fields_of(error: BaseException) -> dict[str, str]:
    """What may be logged of a database error: class, code, and the names of table and constraint.

    Example:
        >>> fields_of(psycopg2.OperationalError("FATAL: no password for user x"))
        {'error_type': 'OperationalError'}
    """
    cause = _cause_of(error)
    diag = getattr(cause, "diag", None)
    known = {
        "error_type": type(cause).__name__,
        "sqlstate": getattr(cause, "pgcode", None),
        "table": getattr(diag, "table_name", None),
        "constraint": getattr(diag, "constraint_name", None),
    }
    return {name: value for name, value in known.items() if value}


def described(error: BaseException) -> str:
    """A database error, or the first one behind an error, in a few words without its text."""
    fields = fields_of(next(filter(is_of_database, _chain_of(error)), error))
    name = fields.pop("error_type")
    return f"{name} ({', '.join(f'{key} {value}' for key, value in fields.items())})" if fields else name


def holds_database_error(error: BaseException) -> bool:
    """True if the error, or one in its chain, is one of the database."""
    return any(is_of_database(one) for one in _chain_of(error))


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, with database errors described instead of quoted."""
    shown = []
    for one in reversed(list(_chain_of(error))):
        lines = ["Traceback (most recent call last):\n", *traceback.format_tb(one.__traceback__)]
        if is_of_database(one):
            lines.append(f"{type(one).__module__}.{type(one).__qualname__}: {described(one)}\n")
        else:
            lines += traceback.format_exception_only(type(one), one)
        shown.append("".join(lines))
    return "\nwhich led to:\n\n".join(shown).rstrip()


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from or during, and the members of groups; bounded."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _LONGEST_CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        before = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        waiting += [before] if before is not None else []
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []
