"""`flask --app wsgi access tenant`: make, list, suspend and resume tenants, and bound what each uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.access.quotas import MOST_OF_TENANT
from webapp.api.access_schemas import TenantAnswer, TenantQuotasRequest, TenantRequest
from webapp.cli.access import by_option, numbers_of
from webapp.cli.console import json_option, show_fields, show_json, show_table, with_plain_errors
from webapp.outbound.signature import Purpose, secrets_of

if TYPE_CHECKING:
    from webapp.access.model import TenantRecord
    from webapp.access.tenants import Tenants
    from webapp.settings import Settings

group = AppGroup("tenant", help="Whose jobs there are: each tenant sees its own alone.")

_COLUMNS = ("id", "slug", "name", "status", "created_at", "keys")


def _tenants() -> Tenants:
    return cast("Tenants", current_app.extensions["tenants"])


@group.command("create")
@click.argument("slug")
@click.option("--name", help="What people call it; its short name by default.")
@by_option
@json_option
@with_plain_errors
def create(slug: str, *, name: str | None, by: str, as_json: bool) -> None:
    """Makes a tenant; queues whose names begin with its short name and a dot are its own. `access key create --tenant` makes its keys."""
    wanted = TenantRequest.model_validate({"slug": slug, "name": slug if name is None else name})
    _show(_tenants().create(wanted.slug, wanted.name, by=by), as_json=as_json)


@group.command("list")
@json_option
@with_plain_errors
def list_tenants(*, as_json: bool) -> None:
    """All tenants, in the order in which they were made."""
    answers = [TenantAnswer.of(one) for one in _tenants().page()]
    if as_json:
        show_json({"items": answers})
    else:
        show_table(answers, _COLUMNS, nothing="no tenants")


@group.command("show")
@click.argument("slug")
@json_option
@with_plain_errors
def show(slug: str, *, as_json: bool) -> None:
    """One tenant."""
    _show(_tenants().find(slug), as_json=as_json)


@group.command("suspend")
@click.argument("slug")
@by_option
@json_option
@with_plain_errors
def suspend(slug: str, *, by: str, as_json: bool) -> None:
    """Has the keys of a tenant be refused, within two and a half seconds; its jobs that wait and run go on."""
    _show(_tenants().suspend(slug, by=by), as_json=as_json)


@group.command("resume")
@click.argument("slug")
@by_option
@json_option
@with_plain_errors
def resume(slug: str, *, by: str, as_json: bool) -> None:
    """Lets the keys of a tenant in again."""
    _show(_tenants().resume(slug, by=by), as_json=as_json)


@group.command("quotas")
@click.argument("slug")
@click.argument("quotas", nargs=-1)
@by_option
@json_option
@with_plain_errors
def set_quotas(slug: str, *, quotas: tuple[str, ...], by: str, as_json: bool) -> None:
    """Lets all keys of a tenant together use so much from here on, as submit_per_minute=600; what is not named, as much as they like."""
    wanted = TenantQuotasRequest.model_validate(numbers_of(quotas, MOST_OF_TENANT)).wanted()
    _show(_tenants().set_quotas(slug, wanted, by=by), as_json=as_json)


@group.command("secrets")
@click.argument("slug")
@json_option
@with_plain_errors
def secrets(slug: str, *, as_json: bool) -> None:
    """The secrets by which calls for a tenant are signed, for its receivers; made from CALLBACK_SECRETS and WEBHOOK_SECRETS, the newest first."""
    settings: Settings = current_app.extensions["settings"]
    tenant = _tenants().find(slug)
    guest = None if tenant.is_default else tenant.slug
    found = {
        "callbacks": secrets_of(settings.callback_keys, Purpose.CALLBACKS, guest),
        "http_jobs": secrets_of(settings.webhook_keys, Purpose.HTTP_JOBS, guest),
    }
    if as_json:
        show_json(found)
    else:
        show_fields({name: ", ".join(values) or "none is set" for name, values in found.items()})


def _show(tenant: TenantRecord, *, as_json: bool) -> None:
    answer = TenantAnswer.of(tenant)
    if as_json:
        show_json(answer)
    else:
        show_fields(answer)
