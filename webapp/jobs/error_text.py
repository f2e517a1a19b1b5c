"""An error told in full: its own text, what caused it, and the members of a group. Bounded, whatever the error does. Pure.

An error comes from a handler, so its class may do anything when it is asked for its text.
"""

from __future__ import annotations

import traceback
from textwrap import indent

#: Most causes of one error that are told, and most members of a group.
MAX_CAUSES = 5
MAX_MEMBERS = 5
#: Deepest group in a group that is told.
MAX_LEVELS = 3
#: Longest text of a cause or a member, characters.
MAX_PART = 300
#: Longest list of a group's members, characters.
MAX_GROUP = 1_000
#: Most frames of one traceback; the innermost tell most.
MAX_FRAMES = 100
#: Most errors of one traceback, causes and members together.
MAX_TOLD = 20
#: Longest traceback of one error among several, characters.
MAX_SECTION = 4_000

CAUSED_BY, WHILE_HANDLING = "caused by", "while handling"
_JOINTS = {
    CAUSED_BY: "\nThe above exception was the direct cause of the following exception:\n\n",
    WHILE_HANDLING: "\nDuring handling of the above exception, another exception occurred:\n\n",
}


def name_of(error: BaseException) -> str:
    """An error's class with its module; that of a built-in one alone."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def short(name: str) -> str:
    """A class's name without its module.

    Example:
        >>> short("webapp.jobs.errors.Discard")
        'Discard'
    """
    return name.rpartition(".")[2] or name


def titled(name: str, text: str) -> str:
    """A class and what its error says, as Python prints them.

    Example:
        >>> titled("builtins.KeyError", "'to'"), titled("KeyError", "")
        ("KeyError: 'to'", 'KeyError')
    """
    return f"{short(name)}: {text}" if text else short(name)


def text_of(error: BaseException, limit: int) -> str:
    """What an error says of itself, whatever its `__str__` does."""
    try:
        return str(error)[:limit]
    except BaseException as failure:  # noqa: BLE001 - a handler's exception class may raise anything in __str__
        return f"(its text could not be read: {type(failure).__name__})"


def causes_of(error: BaseException) -> list[tuple[str, BaseException]]:
    """What led to an error, from the nearest cause on, each with how: as Python follows `__cause__` and `__context__`."""
    found: list[tuple[str, BaseException]] = []
    seen = {id(error)}
    at = error
    while len(found) < MAX_CAUSES:
        if at.__cause__ is not None:
            how, at = CAUSED_BY, at.__cause__
        elif at.__context__ is not None and not at.__suppress_context__:
            how, at = WHILE_HANDLING, at.__context__
        else:
            break
        if id(at) in seen:
            break
        seen.add(id(at))
        found.append((how, at))
    return found


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The errors in a group; none where it is no group."""
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def told(error: BaseException, limit: int) -> str:
    """What an error says, with the members of a group and with its causes: `no mail; caused by OSError: refused`.

    Args:
        limit: longest text, characters; the error's own words give way to its causes.
    """
    rest = _others(error, MAX_LEVELS)[: limit - min(limit, MAX_PART)]
    return text_of(error, limit - len(rest)) + rest


def _others(error: BaseException, levels: int) -> str:
    """What follows an error's own words: its members in brackets, and its causes."""
    causes = causes_of(error)
    members = members_of(error)
    if not levels:
        return "; ..." if causes or members else ""
    more = f", and {len(members) - MAX_MEMBERS} more" if len(members) > MAX_MEMBERS else ""
    shown = ", ".join(_part(one, levels - 1) for one in members[:MAX_MEMBERS])
    group = f": [{shown[:MAX_GROUP]}{more}]" if members else ""
    # The causes of a cause are in the list already; its members are not.
    return group + "".join(
        f"; {how} {_part(cause, levels - 1 if members_of(cause) else None)}" for how, cause in causes
    )


def _part(error: BaseException, levels: int | None) -> str:
    return titled(name_of(error), text_of(error, MAX_PART)) + (
        "" if levels is None else _others(error, levels)
    )


def trace_of(error: BaseException) -> str:
    """An error's traceback as Python prints it: its causes before it, the members of a group after it."""
    alone = not causes_of(error) and not members_of(error)
    return _sections(error, MAX_LEVELS, {}, None if alone else MAX_SECTION)


def _sections(error: BaseException, levels: int, seen: dict[int, None], room: int | None) -> str:
    """The tracebacks of an error and of those around it, each of them once.

    Args:
        levels: how many groups may be in each other.
        seen: those that were told, by identity; they are bounded in all.
        room: longest traceback of one of them, characters.
    """
    text = ""
    for how, one in reversed([("", error), *causes_of(error)]):
        if id(one) in seen or len(seen) >= MAX_TOLD:
            continue
        seen[id(one)] = None
        text += _section(one)[-(room or 0) :]
        members = members_of(one)[:MAX_MEMBERS] if levels else ()
        for number, member in enumerate(members, 1):
            inner = _sections(member, levels - 1, seen, room)
            text += indent(f"---- {number} of {len(members_of(one))} ----\n{inner}", "  | ")
        text += _JOINTS.get(how, "")
    return text


def _section(error: BaseException) -> str:
    try:
        frames = "".join(traceback.format_tb(error.__traceback__, -MAX_FRAMES))
    except Exception as failure:  # noqa: BLE001 - the lines are read from files that may be anything
        frames = f"  (its frames could not be read: {type(failure).__name__})\n"
    name = name_of(error)
    text = text_of(error, MAX_PART)
    return f"Traceback (most recent call last):\n{frames}{name}{': ' if text else ''}{text}\n"
