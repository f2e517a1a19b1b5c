"""Who may do what, as pure decisions."""

from __future__ import annotations

import pytest
from flask import Flask

from webapp.access.model import (
    ANYONE,
    SCOPES_OF,
    Caller,
    Openness,
    Refused,
    Role,
    Scope,
    refusal_of,
    scopes_of,
)
from webapp.api.needs import UndeclaredNeed, need_of, needs, needs_of
from webapp.api.openapi import documented, operation_of, security_of
from webapp.api.redaction import NOT_SHOWN, without_content, without_error
from webapp.flow.reach import EVERYTHING
from webapp.flow.tenant import DEFAULT

NO_ONE = Caller(frozenset(), EVERYTHING)
READER = Caller(frozenset({Scope.JOBS_READ}), EVERYTHING, key=7, name="dashboard")


@pytest.mark.parametrize(
    ("need", "caller", "refusal"),
    [
        (Openness.PUBLIC, None, None),
        (Openness.PUBLIC, NO_ONE, None),
        (Openness.ANY_KEY, None, Refused(None)),
        (Openness.ANY_KEY, NO_ONE, None),
        (Scope.JOBS_READ, None, Refused(None)),
        (Scope.JOBS_READ, NO_ONE, Refused(Scope.JOBS_READ)),
        (Scope.JOBS_READ, READER, None),
        (Scope.JOBS_CONTENT, READER, Refused(Scope.JOBS_CONTENT)),
        (Scope.JOBS_SUBMIT, READER, Refused(Scope.JOBS_SUBMIT)),
        *((scope, ANYONE, None) for scope in Scope),
    ],
)
def test_a_caller_may_do_what_their_scopes_say(need, caller, refusal):
    assert refusal_of(need, caller) == refusal


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (Role.VIEWER, {Scope.JOBS_READ, Scope.DLQ_READ}, {Scope.JOBS_CONTENT, Scope.JOBS_SUBMIT, Scope.METRICS_READ}),
        (Role.OPERATOR, {Scope.JOBS_CONTENT, Scope.JOBS_SUBMIT, Scope.QUEUES_MANAGE}, {Scope.ACCESS_MANAGE}),
        (Role.ADMIN, set(Scope), set()),
    ],
)  # fmt: skip
def test_a_role_is_a_set_of_scopes(role, may, may_not):
    assert may <= SCOPES_OF[role]
    assert not may_not & SCOPES_OF[role]


def test_each_role_may_what_the_one_below_may():
    viewer, operator, admin = (SCOPES_OF[role] for role in Role)
    assert viewer < operator < admin


@pytest.mark.parametrize(
    ("role", "scopes", "may"),
    [
        (None, [], set()),
        (None, ["jobs:submit"], {Scope.JOBS_SUBMIT}),
        ("viewer", ["jobs:submit"], SCOPES_OF[Role.VIEWER] | {Scope.JOBS_SUBMIT}),
        # A later release may have roles and scopes of which this one knows nothing.
        ("auditor", ["jobs:submit", "invoices:read"], {Scope.JOBS_SUBMIT}),
        ("", ["*", "JOBS:READ", "PUBLIC"], set()),
    ],
)
def test_a_key_has_the_scopes_of_its_role_and_its_own(role, scopes, may):
    assert scopes_of(role, scopes) == may


def test_a_caller_has_a_tenant_and_cannot_be_changed():
    assert ANYONE.tenant == READER.tenant == DEFAULT
    with pytest.raises(AttributeError):
        READER.reach = ANYONE.reach


def test_who_sees_content_is_a_scope_of_its_own():
    assert not READER.sees_content
    assert Caller(frozenset({Scope.JOBS_CONTENT}), EVERYTHING).sees_content


class TestNeeds:
    def test_a_need_is_found_under_what_a_view_is_wrapped_in(self):
        @documented({200: "text/plain"}, need=Scope.JOBS_READ)
        def view():
            """A view."""

        def outer():
            """Another one around it."""

        outer.__wrapped__ = view
        assert need_of(outer) is need_of(view) is Scope.JOBS_READ
        assert operation_of(outer).need is Scope.JOBS_READ

    def test_an_application_with_a_view_that_says_nothing_does_not_start(self):
        app = Flask(__name__, static_folder=None)
        app.add_url_rule("/told", "told", needs(Openness.PUBLIC)(lambda: ""))
        assert needs_of(app) == {"told": Openness.PUBLIC}
        app.add_url_rule("/silent", "silent", lambda: "")
        with pytest.raises(UndeclaredNeed, match="the view 'silent' does not say which scope"):
            needs_of(app)

    @pytest.mark.parametrize(
        ("need", "said"),
        [
            (Openness.PUBLIC, []),
            (Openness.ANY_KEY, [{"key": []}]),
            (Scope.DLQ_MANAGE, [{"key": ["dlq:manage"]}]),
        ],
    )
    def test_a_need_is_said_in_the_description(self, need, said):
        assert security_of(need) == said


class TestContent:
    def test_what_a_job_carries_is_left_out_and_the_rest_stays(self):
        job = {
            "id": "1", "tags": ["a"], "payload": {"card": "4111"}, "result": [1], "last_error": "E: 4111", "callback_url": "https://x/?t=4111",
            "progress": {"done": 1, "total": 2, "note": "4111", "at": "now"}, "cancel_reason": None,
        }  # fmt: skip
        seen = without_content(job)
        assert "4111" not in str(seen)
        assert (seen["redacted"], seen["id"], seen["tags"], seen["result"]) == (True, "1", ["a"], None)
        assert seen["progress"] == {"done": 1, "total": 2, "note": None, "at": "now"}
        assert set(seen) == {*job, "redacted"}
        assert job["payload"] == {"card": "4111"}

    def test_a_job_of_which_only_other_fields_are_wanted_stays_as_it_is(self):
        assert without_content({"id": "1", "status": "queued"}) == {"id": "1", "status": "queued"}

    @pytest.mark.parametrize("progress", [None, {"done": 1}])
    def test_progress_without_a_note_stays_as_it_is(self, progress):
        assert without_content({"progress": progress})["progress"] == progress

    @pytest.mark.parametrize("error", [None, ""])
    def test_an_explanation_without_an_error_stays_as_it_is(self, error):
        told = {"state": "final", "sentence": "it is done", "facts": {"last_error": error}}
        assert without_error(told) == told

    def test_the_words_of_an_error_are_left_out_of_an_explanation(self):
        told = {"state": "final", "sentence": "it is failed: E: 4111; a retry", "facts": {"last_error": "E: 4111", "n": 1}}  # fmt: skip
        seen = without_error(told)
        assert seen["sentence"] == f"it is failed: {NOT_SHOWN}; a retry"
        assert seen["facts"] == {"last_error": None, "n": 1}
        assert told["facts"]["last_error"] == "E: 4111"
