"""A supervisor that an `up` left behind before all was ready is ended; one whose `up` came to its end is not."""

from __future__ import annotations

import pytest

from ops.stack import ports
from ops.stack.stack import Stack, StackError
from ops.stack.venv import ROOT
from webapp.settings import Settings


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A stack of which only the supervisor runs."""
    monkeypatch.setenv("DJPS_DATA_DIR", str(tmp_path))
    for name in ("API_PORT", "FLOWER_PORT", "PROMETHEUS_PORT", "HTTPBIN_PORT"):
        monkeypatch.setenv(name, str(ports.free()))
    made = Stack(Settings.load())
    started = made.supervisor.start(made._everything, made.environment(), ROOT)
    yield made
    made.down()
    started.wait(20)


@pytest.mark.parametrize("note", ["none", "not ready"])
def test_what_an_up_left_halfway_is_ended(stack, note, capsys):
    if note == "not ready":
        stack._write_note(ready=False)
    stack._refuse_what_cannot_work()
    assert "was killed before all was ready" in capsys.readouterr().out
    assert not stack.supervisor.answers()


def test_a_stack_that_is_up_stays_up(stack):
    stack._write_note(ready=True)
    with pytest.raises(StackError, match="is up already"):
        stack._refuse_what_cannot_work()
    assert stack.supervisor.answers()
