"""Two tenants beside the default one, with keys, queues of their own, and jobs that carry a mark."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

from factories import claimed, completed, dead_lettered, preparing, queued
from flask import Flask
from sqlalchemy import Engine, text

from webapp.access.model import NewKey, Role, Scope
from webapp.flow.tenant import Tenant, kept
from webapp.jobs.options import Terms

#: What stands in all that belongs to another tenant.
CANARY = "canary-6029"
#: The tenant whose key asks, and one of which it must not learn.
MINE, OTHER = "acme", "beta"
SHARED = "video"


def made(app: Flask, engine: Engine, *slugs: str) -> dict[str, Tenant]:
    """Makes tenants that are as old as every process knows of."""
    found = {}
    for slug in slugs:
        record = app.extensions["tenants"].create(slug, slug, by=None)
        found[slug] = Tenant(record.id, slug)
    with preparing(engine) as connection:
        connection.execute(text("UPDATE tenants SET created_at = created_at - interval '1 hour'"))
    app.extensions["doorkeeper"].book.forget()
    return found


def key_of(app: Flask, tenant: str = "default", *, role: Role | None = Role.ADMIN, **more: Any) -> Any:
    """Makes a key of a tenant that may do all that a role may; what is asked with it."""
    wanted = NewKey(f"{tenant}'s", role, more.pop("scopes", ()), tenant=tenant, **more)
    issued = app.extensions["access"].create(wanted, by=None)
    app.extensions["doorkeeper"].book.forget()
    headers = {"Authorization": f"Bearer {issued.secret}"}
    send = partial(app.test_client().open, headers=headers)
    send.key, send.shown = issued.key, headers
    return send


def every_scope() -> tuple[Scope, ...]:
    """All that a key may have."""
    return tuple(Scope)


def filled(engine: Engine, tenant: Tenant, queue: str, mark: str = CANARY, **more: Any) -> list[Any]:
    """A job of a tenant in each state, that carries a mark wherever it can."""
    carried = {
        "queue": queue,
        "payload": {"card": mark},
        "terms": Terms(tags=(mark,), key=kept(tenant.id, mark)),
        "tenant": tenant,
        "submitted_by": 41,
    } | more
    return [
        queued(engine, **carried),
        completed(engine, f'"{mark}"', **carried),
        dead_lettered(engine, **carried),
        claimed(engine, **carried),
    ]


def without_names(answer: Any, *names: str) -> tuple[int, str, set[str]]:
    """An answer, without what names the request, the job and these."""
    words = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", answer.text)
    for name in names:
        words = words.replace(name, "NAME")
    return answer.status_code, words, set(answer.headers.keys())


def body_of(given: object) -> dict[str, Any]:
    """A request's body."""
    return {"data": json.dumps(given), "content_type": "application/json"}
