"""What asking who is there costs a request: next to nothing. Run without counting lines, which takes several times as long."""

from __future__ import annotations

import time

import pytest

from webapp.access.model import NewKey, Scope

#: Most that may be spent on a request with a key that is known, and on one that needs none, seconds.
WITH_A_KEY, WITHOUT = 20e-6, 10e-6
#: The machine does other things as well, so the best of many short batches counts.
BATCHES, BATCH = 500, 40


def best(work):
    """Seconds of one turn, in the best of many batches."""

    def batch():
        began = time.thread_time()
        for _ in range(BATCH):
            work()
        return (time.thread_time() - began) / BATCH

    return min(batch() for _ in range(BATCHES))


@pytest.mark.parametrize(("api_auth", "most"), [("keys", WITH_A_KEY), ("auto", WITHOUT), ("open", WITHOUT)])
def test_a_request_is_judged_at_once(another_app, api_auth, most):
    app = another_app(api_auth=api_auth)
    wanted = NewKey("a test's", None, (Scope.JOBS_SUBMIT,), lifetime=3_600)
    issued = app.extensions["access"].create(wanted, by=None)
    headers = {"Authorization": f"Bearer {issued.secret}"} if api_auth == "keys" else {}
    with app.test_request_context("/jobs", method="POST", headers=headers):
        judge = app.extensions["doorkeeper"].judge
        judge()
        assert best(judge) <= most
