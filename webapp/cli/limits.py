"""`flask --app wsgi queues set`, `keys`, `set-key`, `apply` and `tasks set`: limits of queues, tasks and keys."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
from flask import current_app
from pydantic import BaseModel, ConfigDict

from webapp.api.flow_schemas import LimitsRequest, QueueLimitsRequest
from webapp.api.queue_key_schemas import KeyAnswer, KeyPage, KeyRequest, KeysQuery, key_of
from webapp.cli.console import (
    document_in,
    json_option,
    say,
    show_json,
    show_table,
    with_options,
    with_plain_errors,
)
from webapp.flow.keys import Keys
from webapp.flow.limits import KeyOrder
from webapp.flow.model import KeyRank, KeyTarget, Kind, RankedKeys, Target
from webapp.flow.reach import EVERYTHING
from webapp.flow.service import Flow

#: Largest file of limits, bytes.
MOST_BYTES = 4 * 1024**2
_KEY_COLUMNS = ("key", "paused", "paused_by", "paused_why", "concurrency", "rate", "weight")


class LimitsFile(BaseModel):
    """What a file of limits says: what it does not name stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    queues: dict[str, QueueLimitsRequest] = {}
    tasks: dict[str, LimitsRequest] = {}
    keys: dict[str, dict[str, KeyRequest]] = {}


class _Rate(click.ParamType[Any]):
    """A rate as it is typed: starts, and seconds behind a slash."""

    name = "STARTS/SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The rate's JSON; what it may be is judged as over HTTP."""
        starts, _, seconds = str(value).partition("/")
        try:
            return {"limit": int(starts), "per": float(seconds or 1)}
        except ValueError:
            self.fail(f"{value!r} is no rate: as 100/60, a hundred starts in sixty seconds", param, ctx)


_RATE = _Rate()
_WORDS = (
    click.option("--by", default=getpass.getuser, help="Who does this; the user of this shell by default."),
    click.option("--why", help="Kept on record."),
)
_LIMITS = (
    click.option("--concurrency", type=int, help="Jobs that run at once."),
    click.option("--rate", type=_RATE, help="Starts, and in how many seconds: 100/60."),
    click.option("--burst", type=int, help="Starts that may come at once; a fortieth of the rate's."),
    click.option("--none", "nothing", is_flag=True, help="Takes all limits away."),
)
_OF_KEYS = (
    click.option("--key-concurrency", type=int, help="Jobs of each key that run at once."),
    click.option("--key-rate", type=_RATE, help="Starts of each key."),
    click.option("--key-burst", type=int, help="Starts of each key that may come at once."),
    click.option(
        "--key-order",
        type=click.Choice([one.value for one in KeyOrder]),
        help="Jobs of each key run strictly one after the other.",
    ),
    click.option("--fair", is_flag=True, help="Keys take turns though nothing is limited."),
    click.option("--ageing", type=float, help="Seconds of waiting that a step of priority is worth."),
)
_BOUNDS = (
    click.option("--max-depth", type=int, help="Jobs that may be queued; more are refused."),
    click.option("--max-age", type=float, help="Seconds that the oldest due job may have waited."),
    click.option("--key-max-depth", type=int, help="Jobs of each key that may be queued."),
)


def _flow() -> Flow:
    return cast("Flow", current_app.extensions["flow"])


def _keys() -> Keys:
    return cast("Keys", current_app.extensions["queue_keys"])


def _limits(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The JSON of limits that were typed."""
    rate, burst = given[f"{prefix}rate"], given[f"{prefix}burst"]
    if burst is not None and rate is None:
        raise click.UsageError(f"--{prefix.replace('_', '-')}burst needs --{prefix.replace('_', '-')}rate")
    limits = {"concurrency": given[f"{prefix}concurrency"]}
    return limits | {"rate": rate | {"burst": burst} if rate else None}


@click.command("set")
@click.argument("name")
@with_options(*_LIMITS, *_OF_KEYS, *_BOUNDS, *_WORDS)
@json_option
@with_plain_errors
def set_queue(name: str, *, as_json: bool, by: str, why: str | None, **given: Any) -> None:
    """Gives a queue limits in the place of those it has: what is not given has none."""
    _check_any(given)
    keys = _limits(given, "key_") | {"order": given["key_order"], "max_depth": given["key_max_depth"]}
    of_all = {name: given[name] for name in ("fair", "ageing", "max_depth", "max_age")}
    body = _limits(given) | of_all | {"keys": keys, "by": by, "why": why}
    _set(Target(Kind.QUEUE, name), QueueLimitsRequest.model_validate(body), as_json=as_json)


@click.command("set")
@click.argument("name")
@with_options(*_LIMITS, *_WORDS)
@json_option
@with_plain_errors
def set_task(name: str, *, as_json: bool, by: str, why: str | None, **given: Any) -> None:
    """Gives a task limits over all queues, in the place of those it has: what is not given has none."""
    _check_any(given)
    body = LimitsRequest.model_validate(_limits(given) | {"by": by, "why": why})
    _set(Target(Kind.TASK, name), body, as_json=as_json)


def _check_any(given: Mapping[str, Any]) -> None:
    wanted = any(
        value is not None and value is not False for name, value in given.items() if name != "nothing"
    )
    if wanted == given["nothing"]:
        raise click.UsageError("say which limits it shall have, or --none for no limits")


def _set(target: Target, body: LimitsRequest, *, as_json: bool) -> None:
    state = _flow().limit(target, body.given(), EVERYTHING, by=body.by, why=body.why)
    if as_json:
        show_json({"name": state.name, "limits": state.limits.document(), "version": state.version})
    else:
        say(f"{target.words}: {json.dumps(state.limits.document())}")


@click.command("keys")
@click.argument("name")
@click.option("--limit", type=int, default=100, show_default=True, help="How many at most.")
@click.option("--cursor", help="The last key of the page before.")
@click.option(
    "--order",
    type=click.Choice([one.value for one in KeyRank]),
    help="All keys of which something does so, those of which most does first.",
)
@json_option
@with_plain_errors
def list_keys(name: str, *, as_json: bool, limit: int, cursor: str | None, order: str | None) -> None:
    """Keys of a queue that have limits of their own, or are paused; with --order those of which most waits or runs."""
    query = KeysQuery.model_validate({"limit": limit, "cursor": cursor, "order": order})
    if query.order is not None:
        _show_ranked(_keys().ranked(name, query.order, EVERYTHING, limit=query.limit), as_json=as_json)
        return
    found = _keys().page(name, EVERYTHING, after=query.cursor, limit=query.limit)
    answers = [KeyAnswer.of(one) for one in found]
    if as_json:
        show_json({"items": answers})
    else:
        show_table(answers, _KEY_COLUMNS, nothing="no keys with limits of their own")


def _show_ranked(ranked: RankedKeys, *, as_json: bool) -> None:
    answer = KeyPage.of_ranked(ranked)
    if as_json:
        show_json({name: answer[name] for name in ("items", "counts_are_capped")})
        return
    show_table(answer["items"], ("key", "waiting", "running", *_KEY_COLUMNS[1:]), nothing="no keys")
    if ranked.is_capped:
        say("there are more jobs than were counted", err=True)


@click.command("set-key")
@click.argument("name")
@click.argument("key")
@click.option("--concurrency", type=int, help="Its jobs that run at once.")
@click.option("--rate", type=_RATE, help="Its starts, and in how many seconds: 100/60.")
@click.option("--burst", type=int, help="Its starts that may come at once; a fortieth of the rate's.")
@click.option("--weight", type=float, default=1.0, show_default=True, help="Its share of the turns.")
@click.option("--paused", is_flag=True, help="None of its jobs starts.")
@click.option("--none", "nothing", is_flag=True, help="Makes it like every key.")
@with_options(*_WORDS)
@json_option
@with_plain_errors
def set_key(name: str, key: str, *, as_json: bool, by: str, why: str | None, **given: Any) -> None:
    """Gives one key of a queue limits in the place of those it has, or pauses it."""
    nothing = given.pop("nothing")
    of_key = {"weight": given["weight"], "paused": given["paused"], "by": by, "why": why}
    body = KeyRequest.model_validate(_limits(given) | of_key)
    target = KeyTarget(name, key_of(key))
    if nothing:
        state = _keys().forget(target, EVERYTHING, by=body.by, why=body.why, expected=None)
    else:
        wanted = body.state(target, datetime.now(UTC))
        state = _keys().put(wanted, EVERYTHING, by=body.by, why=body.why, expected=None)
    if as_json:
        show_json(KeyAnswer.of(state))
    else:
        say(f"{target.words}: {json.dumps(state.document())}")


@click.command("apply")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Says what would be changed, and changes nothing.")
@with_options(*_WORDS)
@with_plain_errors
def apply(file: Path, *, dry_run: bool, by: str, why: str | None) -> None:
    """Gives queues, tasks and keys the limits of a file, TOML or JSON; what it does not name stays as it is."""
    changed = 0
    for change in _changes(_read(file), by=by, why=why):
        if change.old == change.new:
            say(f"{change.words}: as it is")
            continue
        changed += 1
        if not dry_run:
            change.make()
        say(f"{change.words}: {json.dumps(change.old)} -> {json.dumps(change.new)}")
    say(f"{changed} {'would be' if dry_run else 'were'} changed")


def _read(file: Path) -> LimitsFile:
    """A file of limits; all of it is judged before anything is changed."""
    return LimitsFile.model_validate(document_in(file, MOST_BYTES))


class _Change(NamedTuple):
    """What a file names: how it stands, how it shall, and what makes it so."""

    words: str
    old: dict[str, Any]
    new: dict[str, Any]
    make: Callable[[], object]


def _changes(wanted: LimitsFile, *, by: str, why: str | None) -> list[_Change]:
    """All that a file names, as it stands now; one that is unknown is named before anything is changed."""
    bodies: list[tuple[Target, LimitsRequest]] = [
        *((Target(Kind.QUEUE, name), body) for name, body in wanted.queues.items()),
        *((Target(Kind.TASK, name), body) for name, body in wanted.tasks.items()),
    ]
    changes = [_change(target, body, by=by, why=why) for target, body in bodies]
    for queue, bodies_of_keys in wanted.keys.items():
        changes += [
            _change_of_key(KeyTarget(queue, key_of(key)), body, by=by, why=why)
            for key, body in bodies_of_keys.items()
        ]
    return changes


def _change(target: Target, body: LimitsRequest, *, by: str, why: str | None) -> _Change:
    limits, old = body.given(), _flow().state(target, EVERYTHING).limits
    make = partial(_flow().limit, target, limits, EVERYTHING, by=body.by or by, why=body.why or why)
    return _Change(target.words, old.document(), limits.document(), make)


def _change_of_key(target: KeyTarget, body: KeyRequest, *, by: str, why: str | None) -> _Change:
    state, old = body.state(target, datetime.now(UTC)), _keys().figures(target, EVERYTHING).state
    make = partial(_keys().put, state, EVERYTHING, by=body.by or by, why=body.why or why, expected=None)
    return _Change(target.words, old.document(), state.document(), make)
