"""Readers of lists, while jobs run and the replica that they read is killed, frozen and back: none of them is refused."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager

import pytest
import requests
from sqlalchemy.engine import make_url
from standby import Standby

pytestmark = pytest.mark.system

PATHS = ("/jobs", "/jobs?status=completed&limit=5", '/jobs?payload={"task":"noop"}', "/dlq", "/dlq/groups")
#: Readers at the same time.
READERS = 4
#: Longest that a list may take on a busy machine, seconds: the replica's time and the primary's.
LONGEST = 8.0


class Readers:
    """Clients that ask for one list after the other, and how they were answered since they were last asked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._read, daemon=True) for _ in range(READERS)]
        self.answers: Counter[str] = Counter()
        #: What is no list.
        self.refusals: list[str] = []

    @contextmanager
    def reading(self):
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join(LONGEST * 2)

    def _read(self) -> None:
        with requests.Session() as http:
            while not self._stopped.is_set():
                for path in PATHS:
                    self.answers[self._answer(http, path)] += 1

    def _answer(self, http: requests.Session, path: str) -> str:
        try:
            answer = http.get(self._url + path, timeout=LONGEST)
        except requests.RequestException as error:
            self.refusals.append(f"{path}: {type(error).__name__}")
            return "none"
        if answer.status_code != 200:
            self.refusals.append(f"{path}: {answer.status_code} {answer.text}")
            return "none"
        return "replica" if "DJPS-Staleness" in answer.headers else "primary"


@pytest.fixture
def site(another_fleet, database):
    """A whole DJPS whose API reads lists from a standby."""
    with Standby(database) as standby:
        fleet = another_fleet("read", database)
        url = make_url(standby.url).set(database=make_url(database).database)
        fleet.environment["DATABASE_READ_URL"] = url.render_as_string(hide_password=False)
        fleet.up()
        yield fleet, standby
        fleet.stop_all()


def test_no_reader_is_refused_whatever_happens_to_the_replica(site):
    fleet, standby = site
    made = [fleet.post("noop", n=number) for number in range(20)]
    fleet.post("fail", n=1)
    with Readers(fleet.url).reading() as readers:

        def answered_by(server):
            """Submissions go on, and lists come from this server after some time."""
            readers.answers.clear()

            def seen():
                made.append(fleet.post("noop"))
                return readers.answers[server] >= 5 * READERS

            fleet.wait_until(seen)

        answered_by("replica")
        standby.kill()
        answered_by("primary")
        standby.start()
        answered_by("replica")
        standby.freeze()
        answered_by("primary")
        standby.thaw()
        answered_by("replica")
    assert readers.refusals == []
    assert fleet.metric("read_replica_usable") == 1
    for job in made:
        assert fleet.wait_for(job)["status"] == "completed"
