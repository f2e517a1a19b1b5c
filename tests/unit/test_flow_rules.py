from __future__ import annotations

import threading

import pytest
from sqlalchemy.exc import OperationalError

from webapp.flow import book as book_module
from webapp.flow.book import LONGEST_AGE, LONGEST_AGE_CLOSED, FlowBook
from webapp.flow.errors import StaleVersion, UnknownTarget
from webapp.flow.model import OPEN, FlowRules, FlowState, Kind, Pause, Target
from webapp.flow.service import fits
from webapp.queues.backlog import Depth, Depths
from webapp.queues.listing import queue_states

MAIL = FlowRules(closed_queues=frozenset({"mail"}))
SEND = FlowRules(closed_tasks=frozenset({"send"}))
BACK = FlowRules(returning=frozenset({"send"}))


@pytest.mark.parametrize(
    ("rules", "queue", "task", "closed"),
    [
        (OPEN, "mail", "send", False),
        (MAIL, "mail", "send", True),
        (MAIL, "other", "mail", False),
        (SEND, "other", "send", True),
        (SEND, "send", "other", False),
        (BACK, "mail", "send", False),
    ],
)
def test_a_job_is_held_by_its_queue_and_by_its_task(rules, queue, task, closed):
    assert rules.closes(queue, task) is closed
    assert rules.close_any([("a", "b"), (queue, task)]) is closed
    assert rules.is_open is (rules in (OPEN, BACK))


@pytest.mark.parametrize(
    ("given", "version", "fitting"),
    [
        (None, 7, True),
        ('"7"', 7, True),
        ('"6"', 7, False),
        ('"5", "7"', 7, True),
        ("*", 0, True),
        ("7", 7, False),
        ('W/"7"', 7, False),
        ("", 0, False),
    ],
)
def test_if_match_names_versions(given, version, fitting):
    assert fits(given, version) is fitting


def test_a_target_is_named_in_records_and_in_sentences():
    assert (str(Target(Kind.TASK, "send")), Target(Kind.TASK, "send").words) == ("tasks/send", "task 'send'")
    assert str(UnknownTarget(Target(Kind.QUEUE, "mial"), ["mail", "default"])) == (
        "there is no queue 'mial'; there are default, mail; to make it, name it in QUEUES, or as the queue of a handler,"
        " and start API and workers anew"
    )
    assert '"3"; given: "2"' in str(StaleVersion(Target(Kind.QUEUE, "mail"), '"2"', 3))


def test_queues_are_listed_that_are_known_or_have_jobs():
    paused = FlowState("mail", Pause(None, None, None), 1)
    found = Depths({"old": Depth(3, 2, 1.5)}, {"mail": 4}, estimated=False)
    states = queue_states({"mail": paused, "default": FlowState("default")}, found)
    assert [(one.flow.name, one.flow.pause is not None, one.depth.queued, one.running) for one in states] == [
        ("default", False, 0, 0),
        ("mail", True, 0, 4),
        ("old", False, 3, 0),
    ]


class Shelf:
    """What a book reads, instead of a database."""

    def __init__(self, monkeypatch):
        self.now, self.reads, self.rules, self.slow, self.error = 100.0, 0, OPEN, 0.0, None
        monkeypatch.setattr(book_module, "in_one_trip", self.read)
        self.book = FlowBook(None, lambda: self.now)

    def read(self, _engine, _work):
        self.reads += 1
        self.now += self.slow
        if self.error:
            raise self.error
        return self.rules


@pytest.fixture
def shelf(monkeypatch):
    return Shelf(monkeypatch)


@pytest.mark.parametrize(
    ("rules", "age"), [(OPEN, LONGEST_AGE), (MAIL, LONGEST_AGE_CLOSED), (BACK, LONGEST_AGE_CLOSED)]
)
def test_rules_are_read_again_when_they_are_too_old_and_not_before(shelf, rules, age):
    shelf.rules = rules
    assert shelf.book.rules() == rules
    shelf.now += age - 0.01
    assert shelf.book.rules() == rules
    assert shelf.reads == 1
    shelf.now += 0.01
    shelf.rules = SEND
    assert shelf.book.rules() == SEND
    assert shelf.reads == 2


def test_the_age_counts_from_before_the_question(shelf):
    shelf.slow = LONGEST_AGE + 1
    shelf.book.rules()
    shelf.book.rules()
    assert shelf.reads == 2


def test_rules_that_cannot_be_read_are_not_taken_for_granted(shelf):
    shelf.book.rules()
    shelf.now += LONGEST_AGE
    shelf.error = OperationalError("x", {}, Exception("away"))
    for _ in range(2):
        with pytest.raises(OperationalError):
            shelf.book.rules()
    shelf.error, shelf.rules = None, MAIL
    assert shelf.book.rules() == MAIL


def test_rules_that_were_forgotten_are_read(shelf):
    shelf.book.rules()
    shelf.book.forget()
    shelf.rules = MAIL
    assert shelf.book.rules() == MAIL


def test_threads_that_ask_together_share_a_reading(shelf, monkeypatch):
    begin, go_on = threading.Event(), threading.Event()
    plain = shelf.read

    def read(engine, work):
        begin.set()
        assert go_on.wait(10)
        return plain(engine, work)

    monkeypatch.setattr(book_module, "in_one_trip", read)
    threads = [threading.Thread(target=shelf.book.rules) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begin.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert shelf.reads == 1


def test_a_start_goes_by_rules_that_leave_time_within_a_second():
    assert LONGEST_AGE_CLOSED < LONGEST_AGE <= 0.8
