"""What can run: functions registered by name, with their limits.

A handler is a function of the payload and a context; what it returns is the job's result.

Example:
    >>> @handler("greet", max_retries=1)
    ... def greet(payload, context):
    ...     return {"hello": payload["name"]}
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ValidationError

from webapp.flow.model import Kind
from webapp.infra.broker import redis_keys
from webapp.jobs import handler_rules
from webapp.jobs.context import JobContext
from webapp.jobs.errors import PayloadRefused, PayloadUnchecked
from webapp.jobs.functions import is_coroutine_function, origin
from webapp.settings import SettingsError, sweeps

logger = logging.getLogger(__name__)

#: Handlers that come with DJPS.
BUILT_IN = ("tasks.handlers.simulated", "tasks.handlers.demo", "tasks.handlers.http")
#: Queue of jobs whose handler names none.
DEFAULT_QUEUE = "default"
#: Queue of DJPS itself: dispatch, recovery, dead letters. No handler may use it.
MAINTENANCE_QUEUE = sweeps.MAINTENANCE_QUEUE

#: Queues that are DJPS's or the broker's own.
RESERVED_QUEUES = redis_keys.RESERVED | {MAINTENANCE_QUEUE}
_WHY_RESERVED = "that name is used by DJPS or its broker for something else"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


HandlerFunction = Callable[[dict[str, Any], JobContext], Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that runs jobs, and the limits of its jobs. None stands for the setting's default."""

    name: str
    run: HandlerFunction = field(repr=False)
    queue: str = DEFAULT_QUEUE
    max_retries: int | None = None
    timeout: float | None = None
    chunk: int | None = None
    priority: int | None = None
    backoff: dict[str, float] | list[float] | None = None
    tags: tuple[str, ...] = ()
    expires_in: float | None = None
    model: type[BaseModel] | None = None
    keep_log: bool | None = None
    #: Whether calling `run` only makes a coroutine, which an event loop has to run.
    is_coroutine: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_coroutine", is_coroutine_function(self.run))

    @property
    def sets_terms(self) -> bool:
        """Whether its jobs are stored otherwise than those of a handler that says nothing."""
        return bool(
            self.tags or self.backoff is not None or self.expires_in is not None or self.priority is not None
        )

    def check(self, payload: dict[str, Any]) -> None:
        """Holds a payload against the handler's model, as JSON; `task` is only shown to a model that has such a field.

        Raises:
            PayloadRefused: it does not fit.
            PayloadUnchecked: the model itself is broken.
        """
        if self.model is None:
            return
        shown = {name: value for name, value in payload.items() if name != "task"}
        given = payload if "task" in self.model.model_fields else shown
        try:
            self.model.model_validate_json(json.dumps(given))
        except ValidationError as error:
            secret = bool(self.model.model_config.get("hide_input_in_errors"))
            raise PayloadRefused(self.name, error, secret=secret) from error
        except Exception as error:  # noqa: BLE001 - a validator of the handler's own may raise anything
            # What it was given stays out of the log.
            logger.warning(
                "model of a handler is broken", extra={"task": self.name, "error_type": type(error).__name__}
            )
            raise PayloadUnchecked(self.name, error) from None


class HandlerRegistry:
    """The handlers of this process, by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._declared: set[str] = set()

    def declare(self, queues: Iterable[str]) -> None:
        """Names queues that jobs may ask for although no handler names them.

        Raises:
            ValueError: a name breaks the rule, or is DJPS's own.
        """
        for name in queues:
            if not NAME.fullmatch(name):
                raise ValueError(f"QUEUES must match {NAME.pattern}; given: {name!r}")
            if name in RESERVED_QUEUES:
                raise ValueError(f"QUEUES must not name {name!r}: {_WHY_RESERVED}")
            self._declared.add(name)

    def add(self, new: Handler) -> None:
        """Registers a handler.

        Raises:
            ValueError: the name or queue breaks its rule, a limit is out of bounds, or the name is taken.
        """
        for what, value in (("name", new.name), ("queue", new.queue)):
            if not NAME.fullmatch(value):
                raise ValueError(f"a handler's {what} must match {NAME.pattern}; given: {value!r}")
        if new.queue in RESERVED_QUEUES:
            raise ValueError(
                f"handler {new.name!r} must use another queue than {new.queue!r}: {_WHY_RESERVED}"
            )
        handler_rules.check(new)
        known = self._handlers.get(new.name)
        if known is not None and _qualname(known.run) != _qualname(new.run):
            raise ValueError(f"handler {new.name!r} is registered twice: {known.run!r} and {new.run!r}")
        self._handlers[new.name] = new

    def get(self, name: object) -> Handler | None:
        """The handler of this name, or None; any JSON value may be asked for."""
        return self._handlers.get(name) if isinstance(name, str) else None

    def chunk_of(self, name: str) -> int | None:
        """Jobs in a message of this handler, where it says so itself."""
        found = self._handlers.get(name)
        return found.chunk if found is not None else None

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._handlers))

    def queues(self) -> tuple[str, ...]:
        """Every queue a job can be in, sorted."""
        return tuple(
            sorted({DEFAULT_QUEUE, *self._declared, *(known.queue for known in self._handlers.values())})
        )

    def known(self, kind: Kind) -> tuple[str, ...]:
        """The names of all queues, or of all tasks."""
        return self.queues() if kind is Kind.QUEUE else self.names()

    def mapping(self) -> Mapping[str, Handler]:
        """All handlers by name."""
        return dict(self._handlers)


#: The registry that `@handler` fills.
registry = HandlerRegistry()


def _qualname(function: HandlerFunction) -> str:
    return getattr(origin(function), "__qualname__", repr(function))


def handler(
    name: str,
    *,
    queue: str = DEFAULT_QUEUE,
    max_retries: int | None = None,
    timeout: float | None = None,
    chunk: int | None = None,
    priority: int | None = None,
    backoff: dict[str, float] | list[float] | None = None,
    tags: Iterable[str] = (),
    expires_in: float | None = None,
    model: type[BaseModel] | None = None,
    keep_log: bool | None = None,
) -> Callable[[HandlerFunction], HandlerFunction]:
    """Registers the decorated function as the handler of jobs named `name`.

    Args:
        name: what `payload["task"]` says.
        queue: where its jobs wait; workers listen to all queues that handlers name.
        max_retries: retries after the first attempt; MAX_JOB_RETRIES when None.
        timeout: seconds an attempt may take; JOB_TIMEOUT when None.
        chunk: jobs in a message; as many as are quick work (see `webapp.infra.broker.pace`) when None.
        priority: 0 to 9, higher first; 5 when None.
        backoff: `{"base", "max", "jitter"}` or a list of seconds; as the settings say when None.
        tags: what its jobs are tagged with, beside the tags of a submission.
        expires_in: seconds after it is due when a job that has not started is given up; never when None.
        model: what a payload must fit, or its submission is refused; the handler gets the payload as it was sent.
        keep_log: what it writes with `context.logger` is kept with the job: the last 200 lines; as KEEP_JOB_LOGS says when None.

    What a submission says comes before all of these.

    Example:
        >>> from pydantic import BaseModel, HttpUrl
        >>> class Page(BaseModel):
        ...     url: HttpUrl
        >>> @handler("fetch-page", priority=7, backoff=[1, 10, 60], tags=["crawl"], model=Page)
        ... def fetch_page(payload, context):
        ...     return {"fetched": payload["url"]}

    Raises:
        ValueError: see `HandlerRegistry.add`.
    """

    def register(function: HandlerFunction) -> HandlerFunction:
        registry.add(
            Handler(
                name,
                function,
                queue,
                max_retries,
                timeout,
                chunk,
                priority=priority,
                backoff=backoff,
                tags=(tags,) if isinstance(tags, str) else tuple(tags),
                expires_in=expires_in,
                model=model,
                keep_log=keep_log,
            )
        )
        return function

    return register


def load(modules: tuple[str, ...], default: str, queues: tuple[str, ...] = ()) -> None:
    """Imports the built-in handlers and those of `modules`, so that they register themselves.

    Args:
        modules: dotted names, the HANDLERS setting.
        default: the DEFAULT_HANDLER setting; empty for none.
        queues: the QUEUES setting: queues that no handler names.

    Raises:
        SettingsError: a module cannot be imported, the default names no handler, or a queue's name breaks the rule; the
            message names the setting.
    """
    try:
        registry.declare(queues)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    for name in (*BUILT_IN, *modules):
        try:
            import_module(name)
        except Exception as error:
            raise SettingsError(f"HANDLERS: cannot import {name!r}: {_what_went_wrong(error)}") from error
    if default and registry.get(default) is None:
        known = ", ".join(registry.names())
        raise SettingsError(f"DEFAULT_HANDLER must name a registered handler ({known}); given: {default!r}")


def _what_went_wrong(error: Exception) -> str:
    """An error and the line it comes from, in a few words."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return " ".join(said.split()) + where
