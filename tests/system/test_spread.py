"""Requests that wait are spread over all gunicorn workers: none is refused while there is a place."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

pytestmark = pytest.mark.system

#: Requests that wait at once, a few fewer than there are places.
WAITERS = 150
PLACES = 80


def test_as_many_wait_as_there_are_places_in_all(another_fleet, database):
    fleet = another_fleet("api-only", database, MAX_WAITERS=str(PLACES), API_WORKERS="2")
    fleet.migrate()
    fleet.start("api")
    fleet.wait_until(lambda: answers_at(fleet))
    job = fleet.post("noop")

    def wait(_: int) -> tuple[int, str | None]:
        answer = requests.get(f"{fleet.url}/jobs/{job['id']}?wait=4", timeout=30)
        return answer.status_code, answer.json().get("detail")

    with ThreadPoolExecutor(WAITERS) as pool:
        answers = Counter(pool.map(wait, range(WAITERS)))
    assert answers == {(200, None): WAITERS}


def answers_at(fleet):
    try:
        return fleet.http.get(f"{fleet.url}/health", timeout=2).ok
    except requests.RequestException:
        return False
