"""Patches of other people's code: what is replaced, in which version that was looked at, why, and where it is told upstream.

All of them are listed here, and `put` is the only way to make one: it refuses to replace what is not there, so a library that
has moved stops the start instead of going on without its patch. `tests/unit/test_patches.py` fails when the code that was
looked at has changed, and then one looks again.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from dataclasses import dataclass
from typing import Any


class PatchMisses(RuntimeError):
    """A library no longer has what a patch replaces."""

    def __init__(self, target: str) -> None:
        super().__init__(f"{target} is not there any more: look at its patch in {__name__} again")
        self.target = target


@dataclass(frozen=True, slots=True)
class Patch:
    """One replaced attribute.

    Args:
        target: `module:attribute`, where the attribute may be one of a class.
        seen: library and version that was looked at.
        why: what is wrong without it.
        code: `code_of` what was looked at: the replaced thing, or what reads it.
        read_by: `module:attribute` of the code that reads a replaced number; empty: the target itself was looked at.
        upstream: where it is told; empty: it is our need, and no fault of the library.
    """

    target: str
    seen: str
    why: str
    code: str
    read_by: str = ""
    upstream: str = ""


PATCHES = (
    Patch(
        "kombu.transport.redis:Transport.Channel",
        "kombu 5.7.0",
        "a message or a key that is broken, late or of a wrong type ends the worker, and a channel that cannot be closed in order"
        " leaks its sockets (webapp/infra/broker/transport.py)",
        code="616927494e92",
        read_by="kombu.transport.redis:Channel",
        upstream="https://github.com/celery/kombu/issues/320",
    ),
    Patch(
        "prometheus_client.values:MmapedDict",
        "prometheus-client 0.26.0",
        "a full disk ends the process with SIGBUS when a counter is written to a page that has no room"
        " (webapp/infra/telemetry/counter_files.py)",
        code="6e06f65ed9e6",
        upstream="https://github.com/prometheus/client_python/issues/347",
    ),
    Patch(
        "celery.apps.worker:safe_say",
        "celery 5.7.0",
        "Celery announces its shutdown with a line that is no JSON, and raises where standard error cannot be written",
        code="2a997ad5affe",
    ),
    Patch(
        "celery.apps.worker:install_worker_term_hard_handler",
        "celery 5.7.0",
        "a cold shutdown kills the children and leaves their jobs until their leases run out (tasks/processes/shutdown.py)",
        code="901e0a5a2b3d",
        read_by="celery.apps.worker:_shutdown_handler",
    ),
    Patch(
        "celery.platforms:set_pdeathsig",
        "celery 5.7.0",
        "where cffi is installed each child has it parse a declaration of C, 2 MiB of its own, to be told of its parent's death"
        " (webapp/infra/prefork.py)",
        code="32eed1ffd995",
    ),
    Patch(
        "billiard.pool:GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT",
        "billiard 4.3.2",
        "a child that ends waits for 30 s until its parent has read its last answer, and a parent that shuts down may never read it",
        code="2349f7e1103d",
        read_by="billiard.pool:Worker._ensure_messages_consumed",
    ),
    Patch(
        "billiard.pool:TimeoutHandler._trywaitkill",
        "billiard 4.3.2",
        "of a child past its hard limit, what it started in other sessions lives on (tasks/processes/process_group.py)",
        code="22ba4cecd56e",
    ),
    Patch(
        "billiard.popen_fork:Popen.poll",
        "billiard 4.3.2",
        "a child is reaped before what it left behind is ended; by then its number may name another process"
        " (tasks/processes/process_group.py)",
        code="b2d15d09a91b",
    ),
    Patch(
        "multiprocessing.process:_current_process",
        "CPython 3.11",
        "Celery's children are daemons, which must not have children: jobs could not use process pools (tasks/processes/forks.py)",
        code="3c28232d775d",
        read_by="multiprocessing.process:BaseProcess.start",
    ),
    Patch(
        "os:fork",
        "CPython 3.11",
        "a signal that arrives while a process forks is lost in the copy, or raises where nothing can be raised"
        " (tasks/processes/fork_signals.py)",
        code="963edc9da07e",
        read_by="multiprocessing.popen_fork:Popen._launch",
    ),
    Patch(
        "os:forkpty",
        "CPython 3.11",
        "the same as with `os:fork`, for `pty.fork` and what is built on it (tasks/processes/fork_signals.py)",
        code="9c9f2b4646a3",
        read_by="pty:fork",
    ),
)
_BY_TARGET = {patch.target: patch for patch in PATCHES}


def put(target: str, value: Any) -> Any:
    """Replaces an attribute of another library; returns what was there.

    Args:
        target: of a patch that is listed above.
        value: what stands there from now on, in this process and its children.

    Raises:
        PatchMisses: the library has no such attribute.
        KeyError: the patch is not listed.
    """
    owner, name = _place_of(_BY_TARGET[target].target)
    before = getattr(owner, name)
    setattr(owner, name, value)
    return before


def found_at(target: str) -> Any:
    """What stands at a target.

    Raises:
        PatchMisses: nothing does.
    """
    owner, name = _place_of(target)
    return getattr(owner, name)


def code_of(thing: Any) -> str:
    """Twelve digits that change with the source of a function or a class."""
    return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:12]


def _place_of(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    place: Any = importlib.import_module(module)
    for one in owners:
        place = getattr(place, one, None)
    if not hasattr(place, name):
        raise PatchMisses(target)
    return place, name
