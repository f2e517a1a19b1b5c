"""`flask --app wsgi audit`: who did what, when and why, and whether the record is as it was sealed."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.api.audit_schemas import AuditAnswer, AuditQuery
from webapp.audit.model import OF_ALL, Event
from webapp.audit.service import AuditRecord
from webapp.audit.verifying import MOST_COUNTED, Verified, verify
from webapp.cli.console import REFUSED, json_option, say, show_json, show_table, with_plain_errors
from webapp.infra.telemetry.printable import escaped

if TYPE_CHECKING:
    from webapp.settings import Settings

group = AppGroup("audit", help="The record of acts: who did what, when and why.")

_DIGEST = re.compile("[0-9a-fA-F]{64}")
_COLUMNS = ("id", "at", "event", "actor", "target", "changed", "reason")


def _digest_of(_context: click.Context, _option: click.Parameter, given: str | None) -> bytes | None:
    """A digest as it stands in the log.

    Raises:
        click.BadParameter: it is none.
    """
    if given is None:
        return None
    if not _DIGEST.fullmatch(given):
        raise click.BadParameter(
            f"must be 64 hexadecimal digits, as in the log (given: {escaped(given[:80])})"
        )
    return bytes.fromhex(given)


@group.command("list")
@click.option("--event", type=click.Choice([one.value for one in Event]), help="Only acts of this kind.")
@click.option("--actor", help="By whom, as key:7, address:10.0.0.5 or cli:ada.")
@click.option("--target", help="To what, as job:ID, key:7 or flow:queues/default.")
@click.option("--after", help="Then or later; ISO 8601, with an offset.")
@click.option("--before", help="Before that; ISO 8601, with an offset.")
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@click.option("--cursor", type=int, help="The last id of the page before.")
@json_option
@with_plain_errors
def list_events(*, as_json: bool, **options: Any) -> None:
    """Acts on record, the newest first."""
    query = AuditQuery.model_validate({name: value for name, value in options.items() if value is not None})
    record = cast("AuditRecord", current_app.extensions["audit"])
    events = record.page(replace(query.wanted, whose=OF_ALL), last=query.cursor, limit=query.limit)
    answers = [AuditAnswer.of(event) for event in events]
    if as_json:
        following = events[-1].id if len(events) == query.limit else None
        show_json({"items": answers, "next_cursor": following})
    else:
        show_table([_row_of(answer) for answer in answers], _COLUMNS, nothing="no acts")


@group.command("verify")
@click.option(
    "--digest",
    "digest",
    callback=_digest_of,
    help="A seal that must be there: sha256 of a log line `audit sealed`.",
)
@click.option(
    "--days",
    type=click.IntRange(1),
    help="How long acts are kept; older ones may be gone. AUDIT_DAYS by default.",
)
@click.option("--allow-unsigned", is_flag=True, help="Seals without HMAC may follow seals that have it.")
@json_option
@with_plain_errors
def verify_seals(*, digest: bytes | None, days: int | None, allow_unsigned: bool, as_json: bool) -> None:
    """Looks whether all acts fit their seals; exit code 1, and the first seal that does not fit, where they do not."""
    settings = cast("Settings", current_app.extensions["settings"])
    found = verify(
        current_app.extensions["sqlalchemy"].engine,
        settings.audit_keys,
        settings.audit_days if days is None else days,
        digest=digest,
        may_be_unsigned=allow_unsigned,
    )
    if as_json:
        show_json(asdict(found))
    else:
        _tell(found, has_key=bool(settings.audit_keys))
    if found.broken is not None:
        click.get_current_context().exit(REFUSED)


def _tell(found: Verified, *, has_key: bool) -> None:
    """What a verification came to, a finding on each line."""
    if found.broken is not None:
        say(f"seal {found.broken.seq:,} does not fit: {found.broken.why}")
    say(f"events that fit: {found.events:,}")
    say(f"seals that fit: {found.seals:,}")
    if found.gone:
        say(f"seals whose events are gone for their age, which fit the chain: {found.gone:,}")
    if found.signed:
        looked_at = "" if has_key else " (AUDIT_KEY is not set, so no HMAC was looked at)"
        say(f"seals that are signed: {found.signed:,}{looked_at}")
    if found.newest is not None:
        say(f"the last seal that fits: {found.newest}")
    if found.broken is None:
        least = "at least " if found.unsealed == MOST_COUNTED else ""
        say(f"events not sealed yet: {least}{found.unsealed:,}")


def _row_of(answer: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: actor and target as options name them."""
    kind = answer["target_kind"]
    target = f"{kind}:{answer['target_id']}" if kind is not None else None
    name = f" ({answer['actor_name']})" if answer["actor_kind"] == "key" else ""
    return answer | {"actor": f"{answer['actor_kind']}:{answer['actor_id']}{name}", "target": target}
