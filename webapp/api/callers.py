"""Who asks, and whether they may: each request is judged by what its view needs, before anything is done for it.

Where no key is asked for, this costs a look at a dictionary. Where one is, it is looked up in this process; the database is asked
about once a second whether keys have changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from flask import Flask, Request, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from webapp.access.attempts import FailedAttempts
from webapp.access.book import KeyBook
from webapp.access.errors import NoGoodKey, NoKey, NotFromHere, ScopeMissing
from webapp.access.model import (
    ANYONE,
    Caller,
    LiveKey,
    Mode,
    Need,
    Openness,
    Scope,
    is_local,
    mode_of,
    refusal_of,
)
from webapp.access.secret import checked, hash_of, sent_in
from webapp.access.uses import KeyUses
from webapp.api import usage
from webapp.api.needs import needs_of
from webapp.audit.refusals import Refusals
from webapp.flow.reach import Reach
from webapp.infra.postgres import database_errors, deadlines
from webapp.infra.telemetry import logs
from webapp.settings.group import LOOPBACK, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from webapp.access.service import Access
    from webapp.settings import Settings

logger = logging.getLogger(__name__)

#: How long a server that starts waits for the database to say whether there is a key, seconds.
START_BUDGET = 3.0
#: What sends a key.
_BEARER = "bearer "
#: What a proxy says of those that it speaks for.
_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED")


class Doorkeeper:
    """Judges the requests of one application.

    Args:
        mode: whether keys are asked for.
        book: the keys that there are.
        uses: is told of those that were shown.
    """

    def __init__(self, mode: Mode, book: KeyBook, uses: KeyUses) -> None:
        self.mode = mode
        self.book = book
        self.uses = uses
        self.attempts = FailedAttempts()
        #: What each view needs, by its endpoint.
        self.needs: Mapping[str, Need] = {}

    def judge(self) -> None:
        """Refuses a request whose caller may not make it.

        Raises:
            NoGoodKey: they have shown no good key where one is needed.
            NotFromHere: they must not ask from there.
            ScopeMissing: their key lacks the scope.
            TooManyAttempts: too many keys that are not good came from their address.
            KeysUnknown: the database does not say which keys there are.
            QuotaExceeded: they have read as much as they may.
            TenantSuspended: their tenant is.
        """
        # Each look through the proxy costs as much as the rest.
        given: Request = request._get_current_object()  # type: ignore[attr-defined] # noqa: SLF001 - werkzeug's own way
        need = self.needs.get(given.endpoint or "")
        if need is None or need is Openness.PUBLIC:
            # What is not there, or is for all.
            return
        g.caller = found = self._caller(given)
        refused = None if found is ANYONE else refusal_of(need, found)
        if refused is not None and refused.missing is not None:
            raise ScopeMissing(refused.missing, found.name)
        if found.quotas is not None or found.of_tenant is not None:
            usage.judge(found)
        if found.reach.is_guest:
            # It is on the lines of this request until its scope ends.
            logs.bound(tenant=found.tenant.slug).__enter__()

    def _caller(self, given: Request) -> Caller:
        if self.mode is Mode.OPEN:
            return ANYONE
        sent: str | None = given.environ.get("HTTP_AUTHORIZATION")
        if self.mode is Mode.LOOPBACK:
            _check_local(given)
            if sent is None or not sent.lower().startswith(_BEARER):
                return ANYONE
        if sent is None:
            raise NoKey
        return self._holder_of(sent_in(sent), given.remote_addr)

    def _holder_of(self, secret: str, address: str | None) -> Caller:
        # One that is known is let in before attempts are asked after: who tries keys shuts out no one at the same address.
        found = self.book.find(hash_of(secret)) or self._new(secret, address)
        now = time.time()
        found.check(now, address)
        if found.caller.key is not None:
            self.uses.note(found.caller.key, now, address)
        return found.caller

    def _new(self, secret: str, address: str | None) -> LiveKey:
        """The key of a secret that this process does not know yet, if there is one."""
        with self.attempts.attempt(address):
            found = self.book.find_new(hash_of(checked(secret)))
            if found is None:
                raise NoGoodKey("the key is unknown, or was revoked")
            return found


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Has every request judged before what is done from here on."""
    mode = mode_of(settings.api_auth, is_loopback=settings.is_on_loopback)
    doorkeeper = app.extensions["doorkeeper"] = Doorkeeper(mode, KeyBook(engine), KeyUses(engine))
    app.extensions["refusals"] = Refusals(engine)
    app.before_request(doorkeeper.judge)


def check_views(app: Flask) -> None:
    """Looks what each view needs; comes after all views.

    Raises:
        UndeclaredNeed: one does not say it.
    """
    app.extensions["doorkeeper"].needs = needs_of(app)


def is_open_to_all(settings: Settings) -> bool:
    """True if no key is asked for, and others than this host reach the API."""
    mode = mode_of(settings.api_auth, is_loopback=settings.is_on_loopback)
    return mode is Mode.OPEN and not settings.is_on_loopback


def check_start(app: Flask) -> None:
    """Looks whether a server may start: beyond loopback with a key, or where it was said that none is asked for, which is logged.

    While the database does not say whether there is a key, a server starts: it lets no one in without one.

    Raises:
        SettingsError: others than this host reach the API, keys are asked for, and there is none.
    """
    settings: Settings = app.extensions["settings"]
    if settings.is_on_loopback:
        return
    if is_open_to_all(settings):
        logger.warning("API is open to all who reach it", extra={"api_host": settings.api_host})
        return
    access: Access = app.extensions["access"]
    try:
        with deadlines.within(START_BUDGET):
            has_keys = access.has_keys()
    except SQLAlchemyError as error:
        logger.warning("whether there is a key is not known", extra=database_errors.fields_of(error))
        return
    finally:
        # Server processes are forked from this one, and share no connection.
        access.disconnect()
    if not has_keys:
        raise SettingsError(
            f"{_whom_it_reaches(settings)} and there is no API key: make one with `flask --app wsgi access init`,"
            " or set API_AUTH=open if something in front of DJPS asks who is there"
        )


def _whom_it_reaches(settings: Settings) -> str:
    if settings.api_host in LOOPBACK:
        return f"TRUSTED_PROXIES {settings.trusted_proxies} lets others than this host reach the API"
    return f"API_HOST {settings.api_host} is not loopback"


def caller() -> Caller:
    """Who asks for what this request does.

    Raises:
        AttributeError: they were not judged, as outside of a request's work.
    """
    return cast("Caller", g.caller)


def reach() -> Reach:
    """Of which tenant and which queues the caller may see and steer jobs."""
    found = caller()
    book: KeyBook = current_app.extensions["doorkeeper"].book
    if found is ANYONE:
        return book.reach_of_anyone()
    return found.reach if book.is_sure else found.reach.apart()


def require(scope: Scope) -> None:
    """Asks for a scope that only some requests to a view need.

    Raises:
        ScopeMissing: the caller does not have it.
    """
    if scope not in caller().scopes:
        raise ScopeMissing(scope, caller().name)


def _check_local(given: Request) -> None:
    """Looks whether a request comes from this host: a server may listen elsewhere than API_HOST says.

    Raises:
        NotFromHere: it does not.
    """
    is_forwarded = any(name in given.environ for name in _FORWARDED)
    if not is_local(given.remote_addr, is_forwarded=is_forwarded):
        raise NotFromHere(
            "API_HOST is loopback, and this request comes from elsewhere: set API_HOST to where the API listens and make a key with"
            " `flask --app wsgi access init`, or set API_AUTH=open if something in front of DJPS asks who is there"
        )
