"""Submits a job once only, waits for its end and prints its result. Needs Python 3.11 and nothing else.

How to run it, beside `python3 -m ops up`:

    DJPS_URL=http://127.0.0.1:8000 python3 ops/examples/callers/submit.py '{"task": "noop"}' order-17

The second word is the idempotency key. Make it of your own record, such as the order's number, so that it is the same when your
program starts again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

API = os.environ.get("DJPS_URL", "http://127.0.0.1:8000")
#: Seconds that a call may take, and seconds that the API is asked to wait for the job's end.
TIMEOUT, WAIT = float(os.environ.get("DJPS_TIMEOUT", "10")), 20
#: Seconds between tries, and how long a job may take in all.
PAUSES, PATIENCE = (0.5, 1, 2), 600
#: Answers after which the same request may succeed.
PASSING = {409, 429, 500, 502, 503, 504}
#: No answer, half of one, or one that is not JSON: the request may have been carried out.
LOST = (OSError, HTTPException, ValueError)


class GaveUp(Exception):
    """The job was refused or did not complete; the message says why."""


def call(method: str, path: str, body: bytes | None, key: str, timeout: float) -> tuple[int, float, Any]:
    """Makes one call; returns status, the seconds of `Retry-After`, and the JSON that came."""
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    request = Request(API + path, body, headers, method=method)  # noqa: S310  # The address is the operator's.
    try:
        with urlopen(request, timeout=timeout) as answer:  # noqa: S310
            return answer.status, 0, json.load(answer)
    except HTTPError as refused:
        return refused.code, float(refused.headers["Retry-After"] or 0), json.load(refused)


def ask(method: str, path: str, body: bytes | None = None, key: str = "", timeout: float = TIMEOUT) -> Any:
    """Makes a call until it is answered; it must be one that may be sent again: with a key, or a GET."""
    for pause in (*PAUSES, None):
        after = 0.0
        try:
            status, after, answer = call(method, path, body, key, timeout)
        except LOST as lost:
            said = f"no answer: {lost!r}"
        else:
            if status < HTTPStatus.MULTIPLE_CHOICES:
                return answer
            said = f"{status} {answer['title']}: {answer['detail']}"
            if status not in PASSING:
                break
        if pause is not None:
            time.sleep(max(pause, min(after, 60)))
    raise GaveUp(said)


def submit(payload: dict[str, Any], key: str) -> dict[str, Any]:
    """Submits a job. The same body under the same key makes one job, however often it is sent."""
    return ask("POST", "/jobs", json.dumps({"payload": payload}).encode(), key)


def wait(job: dict[str, Any]) -> Any:
    """Waits until a job is final; returns its result."""
    end = time.monotonic() + PATIENCE
    while job["status"] in {"queued", "processing"} and time.monotonic() < end:
        job = ask("GET", f"/jobs/{job['id']}?wait={WAIT}", timeout=WAIT + TIMEOUT)
    if job["status"] != "completed":
        raise GaveUp(f"job {job['id']} is {job['status']}: {job['last_error']}")
    return job["result"]


if __name__ == "__main__":
    try:
        print(json.dumps(wait(submit(json.loads(sys.argv[1]), sys.argv[2]))))
    except GaveUp as error:
        sys.exit(str(error))
