"""`flask --app wsgi access`: make the first key, and make, list, rotate, revoke and find keys.

A secret is printed by itself on standard output, once; what is said about it goes to standard error, so that a secret store can be fed.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Collection, Sequence
from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.access.model import AccessKey, Issued, NewKey, Role, Scope
from webapp.access.quotas import MOST
from webapp.access.service import Access
from webapp.api.access_schemas import (
    AccessKeyAnswer,
    AccessKeyPage,
    AccessKeyRequest,
    AccessKeysQuery,
    IssuedAnswer,
    QuotasRequest,
    RotateRequest,
)
from webapp.cli.console import (
    json_option,
    say,
    show_fields,
    show_json,
    show_table,
    with_options,
    with_plain_errors,
)
from webapp.flow.reach import EVERYTHING
from webapp.flow.tenant import DEFAULT_SLUG
from webapp.settings import Settings

group = AppGroup("access", help="Keys of the API: who may do what.")
keys = AppGroup("key", help="Make, list, rotate, revoke and find keys.")
group.add_command(keys)

DAY = 86_400.0
#: How long a key lives that is made without saying, days.
DAYS = 365.0
_COLUMNS = (
    "id",
    "tenant",
    "name",
    "state",
    "role",
    "scopes",
    "queues",
    "secrets",
    "expires_at",
    "last_used_at",
    "last_used_from",
)
#: Longest text that is read as a key, characters: what comes is pasted.
_LONGEST_PASTE = 1_000
#: Most digits of a number that is typed.
_LONGEST_NUMBER = 12

by_option = click.option(
    "--by", default=getpass.getuser, help="Who does this; the user of this shell by default."
)
_NEW = (
    click.option("--role", type=click.Choice([one.value for one in Role]), help="Whose scopes it has."),
    click.option(
        "--scope",
        "scopes",
        multiple=True,
        type=click.Choice([one.value for one in Scope]),
        help="A scope of its own; may be given more than once.",
    ),
    click.option(
        "--network",
        "networks",
        multiple=True,
        help="From where it may be used, as 10.0.0.0/8; may be given more than once.",
    ),
    click.option(
        "--queue",
        "queues",
        multiple=True,
        help="A queue whose jobs alone it may see and steer; may be given more than once.",
    ),
    click.option(
        "--quota",
        "quotas",
        multiple=True,
        help=f"How much it may use, as submit_per_minute=600; one of {', '.join(MOST)}; may be given more than once.",
    ),
    click.option("--days", type=float, default=DAYS, show_default=True, help="How long it is good."),
    click.option("--never", is_flag=True, help="It is good until it is revoked."),
)


def _access() -> Access:
    return cast("Access", current_app.extensions["access"])


@group.command("init")
@click.option("--again", is_flag=True, help="Also where there is an admin key already.")
@by_option
@json_option
@with_plain_errors
def init(*, again: bool, by: str, as_json: bool) -> None:
    """Makes the first key, with the role admin, and prints it once. It is good until it is revoked."""
    _show_issued(_access().init(by=by, again=again), as_json=as_json)


@group.command("bootstrap")
@with_plain_errors
def bootstrap() -> None:
    """Makes the keys known whose hashes BOOTSTRAP_KEY_SHA256 and METRICS_KEY_SHA256 are. Each once: one that was revoked stays so."""
    settings: Settings = current_app.extensions["settings"]
    for sha256, wanted in (
        (settings.bootstrap_key_sha256, NewKey("bootstrap", Role.ADMIN)),
        (settings.metrics_key_sha256, NewKey("metrics", scopes=(Scope.METRICS_READ,))),
    ):
        if sha256:
            key, is_new = _access().adopt(sha256, wanted, by="access bootstrap")
            say(f"key {key.id} ({key.name}) is {'known now' if is_new else key.state}")


@keys.command("create")
@click.argument("name")
@click.option("--tenant", default=DEFAULT_SLUG, show_default=True, help="Whose jobs it may reach.")
@with_options(*_NEW, by_option)
@json_option
@with_plain_errors
def create(name: str, *, tenant: str, days: float, never: bool, by: str, as_json: bool, **given: Any) -> None:
    """Makes a key and prints it, once."""
    asked = {
        "name": name,
        "role": given["role"],
        "scopes": list(given["scopes"]),
        "networks": list(given["networks"]),
        "queues": list(given["queues"]),
        "quotas": numbers_of(given["quotas"]),
        "lifetime": None if never else days * DAY,
    }
    wanted = AccessKeyRequest.model_validate(asked).wanted(tenant)
    _show_issued(_access().create(wanted, by=by), as_json=as_json)


@keys.command("list")
@click.option("--all", "ended", is_flag=True, help="Also those that are revoked or have expired.")
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--limit", type=int, default=100, show_default=True, help="How many at most.")
@click.option("--cursor", type=int, help="The last key of the page before.")
@json_option
@with_plain_errors
def list_keys(*, ended: bool, tenant: str | None, limit: int, cursor: int | None, as_json: bool) -> None:
    """Keys, the newest first; `secrets` are the last characters of what is good for each."""
    query = AccessKeysQuery.model_validate({"limit": limit, "cursor": cursor})
    found = _access().page(EVERYTHING, ended=ended, before=query.cursor, limit=query.limit, slug=tenant)
    page = AccessKeyPage.of(found, query.limit)
    if as_json:
        show_json(page)
    else:
        show_table(page["items"], _COLUMNS, nothing="no keys")


@keys.command("rotate")
@click.argument("number", type=int)
@click.option(
    "--overlap",
    type=float,
    default=DAY,
    show_default=True,
    help="How long the secret before is good, seconds.",
)
@by_option
@json_option
@with_plain_errors
def rotate(number: int, *, overlap: float, by: str, as_json: bool) -> None:
    """Gives a key another secret and prints it, once; the one before is good for a while more."""
    asked = RotateRequest.model_validate({"overlap": overlap})
    _show_issued(_access().rotate(number, EVERYTHING, overlap=asked.overlap, by=by), as_json=as_json)


@keys.command("quotas")
@click.argument("number", type=int)
@click.argument("quotas", nargs=-1)
@by_option
@json_option
@with_plain_errors
def set_quotas(number: int, *, quotas: tuple[str, ...], by: str, as_json: bool) -> None:
    """Lets a key use so much from here on, as submit_per_minute=600; what is not named, as much as all others."""
    wanted = QuotasRequest.model_validate(numbers_of(quotas)).wanted()
    _show(_access().set_quotas(number, wanted, EVERYTHING, by=by), as_json=as_json)


def numbers_of(given: Sequence[str], known: Collection[str] = MOST) -> dict[str, int]:
    """The numbers of texts such as max_waiters=3.

    Args:
        known: the names that there are.

    Raises:
        click.BadParameter: one is no such text.
    """
    found = {}
    for one in given:
        name, _, number = one.partition("=")
        if name not in known or not number.isdecimal() or len(number) > _LONGEST_NUMBER:
            raise click.BadParameter(
                f"must be a name and a number, as submit_per_minute=600, of {', '.join(known)} (given: {one[:100]!r})"
            )
        found[name] = int(number)
    return found


@keys.command("revoke")
@click.argument("number", type=int)
@by_option
@json_option
@with_plain_errors
def revoke(number: int, *, by: str, as_json: bool) -> None:
    """Makes a key good for nothing, in every process within two and a half seconds."""
    _show(_access().revoke(number, EVERYTHING, by=by), as_json=as_json)


@keys.command("find")
@json_option
@with_plain_errors
def find(*, as_json: bool) -> None:
    """Says whose key it is that is typed or pasted into standard input, where it is not shown."""
    text = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.read(_LONGEST_PASTE)
    key, is_good = _access().of_secret(text)
    if as_json:
        show_json(AccessKeyAnswer.of(key) | {"is_good": is_good and key.is_live})
        return
    _show(key, as_json=False)
    if key.is_live:
        say(
            f"this secret is {'good' if is_good else 'no longer good'} for it; `access key revoke {key.id}` ends the key"
        )


def _show_issued(issued: Issued, *, as_json: bool) -> None:
    if as_json:
        show_json(IssuedAnswer.of_issued(issued))
        return
    say(f"key {issued.key.id} ({issued.key.name}); this is shown once:", err=True)
    say(issued.secret)


def _show(key: AccessKey, *, as_json: bool) -> None:
    answer = AccessKeyAnswer.of(key)
    if as_json:
        show_json(answer)
    else:
        show_fields(answer)
