"""Who acts now, by what they have shown: the key or the address of a request, or the user of a command.

What a request says of itself (`by`) is kept beside it, and never in its place.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import click
from flask import current_app, g, has_request_context, request

from webapp.access.model import ANYONE, Caller
from webapp.audit.model import SYSTEM, Actor, ActorKind

if TYPE_CHECKING:
    from webapp.audit.refusals import Refusals

#: Where a request comes from that has no address: a socket in this host's file system.
SOCKET = "socket"


def current_actor() -> Actor:
    """Who acts in this thread now."""
    if has_request_context() and "caller" in g:
        return actor_of(g.caller, request.remote_addr, g.get("request_id"))
    if click.get_current_context(silent=True) is not None:
        user = user_of_shell()
        return Actor(ActorKind.CLI, user, user)
    return SYSTEM


def actor_of(caller: Caller, address: str | None, request_id: str | None) -> Actor:
    """Who makes a request.

    Args:
        caller: as they were judged.
        address: where they ask from.
        request_id: of the request.

    Example:
        >>> actor_of(ANYONE, "127.0.0.1", None).name
        '127.0.0.1'
    """
    if caller.key is not None:
        name = caller.name or str(caller.key)
        of_guest = caller.tenant.id if caller.reach.is_guest else None
        return Actor(ActorKind.KEY, str(caller.key), name, address, request_id, of_guest)
    known = address or SOCKET
    return Actor(ActorKind.ADDRESS, known, known, address, request_id)


def name_of_actor() -> str:
    """What people call who acts now."""
    return current_actor().name


def note_refusal(reason: str, missing: str | None) -> None:
    """Counts that this request was refused.

    Args:
        reason: why, in a word.
        missing: the scope that its key lacks.
    """
    refusals: Refusals = current_app.extensions["refusals"]
    refusals.note(actor_of(g.get("caller", ANYONE), request.remote_addr, None), reason, missing)


def user_of_shell() -> str:
    """The user of the operating system who gave this command, whatever $USER says; its number where it has no name, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
