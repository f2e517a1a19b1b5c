"""The outbox costs no request anything, whatever happens to its thread."""

from __future__ import annotations

import os
import threading
from uuid import uuid4

import pytest
from factories import queued, row_of

from webapp.infra.broker.hints import Hint
from webapp.queues import outbox as module
from webapp.queues.outbox import Outbox


class Broker:
    """Sends, or raises what it is told to."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.sent: list[object] = []
        self.gate = threading.Event()
        self.gate.set()

    def send_hints(self, hints):
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.sent.extend(hint.id for hint in hints)
        return True


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def returned():
    return []


@pytest.fixture
def outbox(broker, returned):
    return Outbox(broker, returned.extend)


def hints(count):
    return [Hint(uuid4(), "noop", "default", 30.0, 5) for _ in range(count)]


def ids(of):
    return [hint.id for hint in of]


@pytest.mark.parametrize("count", [1, 5])
def test_hints_that_cannot_be_sent_are_given_back_and_the_next_are_sent(
    outbox, broker, returned, eventually, count
):
    broker.error = MemoryError() if count == 1 else ValueError("broken")
    lost, well = hints(count), hints(count)
    outbox.put(lost)
    eventually(lambda: returned == ids(lost))
    broker.error = None
    outbox.put(well)
    assert outbox.flush()
    assert broker.sent == ids(well)


@pytest.mark.parametrize("error", [SystemExit(), GeneratorExit()])
def test_a_thread_that_died_is_started_again(outbox, broker, eventually, error):
    broker.error = error
    outbox.put(hints(3))
    eventually(lambda: not outbox._thread.is_alive())
    broker.error = None
    outbox.put(well := hints(3))
    assert outbox.flush()
    assert broker.sent == ids(well)


def test_what_waits_is_sent_by_the_thread_that_comes_after(outbox, broker, eventually):
    broker.gate.clear()
    outbox.put(hints(2))
    eventually(lambda: outbox._sending)
    outbox.put(waiting := hints(2))
    broker.error = SystemExit()
    broker.gate.set()
    eventually(lambda: not outbox._thread.is_alive())
    broker.error = None
    assert outbox.flush()
    assert broker.sent == ids(waiting)


def test_no_more_wait_than_fit_and_the_rest_is_left_to_the_dispatcher(
    outbox, broker, returned, monkeypatch, eventually
):
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    broker.gate.clear()
    outbox.put(first := hints(2))
    eventually(lambda: outbox._sending)
    outbox.put(fits := hints(3))
    outbox.put(both := hints(4))
    outbox.put(none := hints(2))
    assert returned == ids(both[2:] + none)
    broker.gate.set()
    assert outbox.flush()
    assert broker.sent == ids(first + fits + both[:2])


def test_where_the_system_gives_no_thread_hints_are_given_back(outbox, broker, returned, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(
            threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("can't start"))
        )
        outbox.put(lost := hints(3))
        assert returned == ids(lost)
    outbox.put(well := hints(3))
    assert outbox.flush()
    assert broker.sent == ids(well)


def test_hints_that_cannot_be_given_back_fail_no_request(broker, caplog):
    def give_back(_):
        raise ValueError("broken")

    outbox = Outbox(broker, give_back)
    broker.error = ValueError("broken as well")
    outbox.put(hints(1))
    assert [record.message for record in caplog.records] == [
        "hints could not be made into messages",
        "hints could not be given back",
    ]


def test_a_forked_child_begins_with_nothing_and_a_thread_of_its_own(outbox, broker):
    """Its parent's lock may be held, and its parent sends what waits there."""
    broker.gate.clear()
    outbox.put(hints(2))
    outbox.put(hints(2))
    outbox._changed.acquire()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process, which writes no coverage
        broker.gate.set()
        broker.sent.clear()
        outbox.put(mine := hints(2))
        well = outbox.flush(5) and broker.sent == ids(mine)
        os.write(write, b"1" if well else b"0")
        os._exit(0)
    outbox._changed.release()
    os.waitpid(pid, 0)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)
    broker.gate.set()
    assert outbox.flush()


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError()])
def test_a_post_is_answered_201_whatever_becomes_of_its_message(client, service, engine, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(service._hints._broker, "send_hints", fail)
    monkeypatch.setattr(module, "QUIET", -1.0)
    answer = client.post("/jobs", json={"payload": {"task": "noop"}})
    assert answer.status_code == 201
    assert row_of(engine, answer.json["id"]).dispatched_at is None
    assert queued(engine).dispatched_at is None
