"""Log calls of every kind: one line of JSON each, and none that looks like another's."""

from __future__ import annotations

import io
import json
import logging

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from uuid_utils.compat import uuid7

from tasks.attempt import handler_log
from webapp.infra.telemetry import logs
from webapp.infra.telemetry.log_values import MAX_LINE

JOB = uuid7()


@pytest.fixture
def said(capsys):
    """Makes a call with a handler's logger, as it is set up in a worker; gives the lines that it wrote."""
    stream = io.StringIO()
    handler = logs.LineHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    # One of its own, for pytest's handler raises what it cannot write.
    logger = handler_log.HandlerLogger("djps.handler", logging.INFO)
    logger.addHandler(handler)

    def call(*args, **named):
        level = named.pop("at", "info")
        with logs.bound(job_id=JOB, attempt=2, worker_id="w"):
            getattr(logger, level)(*args, **named)
        assert capsys.readouterr().err == "", "nothing beside the lines"
        lines = stream.getvalue().splitlines()
        stream.truncate(0)
        stream.seek(0)
        (line,) = lines
        assert line.isascii()
        found = json.loads(line)
        assert (found["level"], found["logger"]) == (
            "ERROR" if level == "exception" else "INFO",
            "djps.handler",
        )
        assert (found["job_id"], found["attempt"], found["worker_id"]) == (str(JOB), 2, "w")
        return found

    return call


def circle():
    value = {"a": 1}
    value["self"] = value
    return value


def nested():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


class Mute:
    def __repr__(self):
        raise RuntimeError("nothing to say")

    __str__ = __repr__


class Shy(dict):
    def items(self):
        raise KeyError("not mine")


STANDARD = [
    "timestamp",
    "level",
    "logger",
    "message",
    "job_id",
    "attempt",
    "worker_id",
    "request_id",
    "trace_id",
    "span_id",
]


@pytest.mark.parametrize("name", STANDARD)
def test_a_field_of_our_own_cannot_be_forged(said, name):
    before = said("x")
    found = said("x", extra={name: "FORGED"})
    assert found.get(name) == before.get(name) or name == "timestamp"
    assert found["extra_" + name] == "FORGED"


@pytest.mark.parametrize(
    "name", ["name", "msg", "args", "levelname", "asctime", "exc_info", "process", "data", "taskName"]
)
def test_a_name_that_python_has_taken_costs_the_job_nothing(said, name):
    assert said("x", extra={name: 5})["extra_" + name] == 5


def test_several_lines_cannot_be_written_with_one_call(said):
    assert said("x", extra={"djps_each": [{"level": "FORGED"}, {"job_id": 1}]})["djps_each"]
    assert said('x\n{"level": "FORGED"}')["message"].startswith("x\n")


@pytest.mark.parametrize(
    "extra",
    [5, "text", ["a"], [("a", 1)], Mute(), {1: 2}, {(1, 2): 3}, {None: 1}, Shy(a=1), b"x"],
    ids=str.__class__,
)
def test_fields_of_any_kind_are_taken(said, extra):
    assert said("x", extra=extra)["message"] == "x"


@pytest.mark.parametrize(
    "value",
    [
        circle(),
        nested(),
        Mute(),
        {"a": Mute()},
        {(1, 2): 3},
        {1, 2},
        b"\xff",
        float("nan"),
        "\ud800",
        object,
        Shy(a=1),
        10**5_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_any_kind_makes_one_line(said, value):
    found = said("x", extra={"value": value, "to": "ada"})
    assert (found["message"], found["to"]) == ("x", "ada")
    assert "value" in found
    assert said(value)
    assert said("it is %s", value)["message"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("to %d", "ada"), "to %d (its arguments do not fit, TypeError: ('ada',))"),
        (("to", "ada", 5), "to (its arguments do not fit, TypeError: ('ada', 5))"),
        (("%s and %s", 1), "%s and %s (its arguments do not fit, TypeError: (1,))"),
        (("%(to)s", {"from": 1}), "%(to)s (its arguments do not fit, KeyError: {'from': 1})"),
        (("%", 1), "% (its arguments do not fit, ValueError: (1,))"),
        (("%s", Mute()), "%s (its arguments do not fit, RuntimeError: <tuple (RuntimeError in its repr)>)"),
    ],
)
def test_arguments_that_do_not_fit_are_shown(said, args, words):
    found = said(*args, extra={"to": "ada"})
    assert (found["message"], found["to"]) == (words, "ada")
    assert found["log_call_broken"]


@pytest.mark.parametrize("exc_info", [True, ValueError("x"), (1, 2, 3), (None, None, None), "yes"])
def test_a_traceback_of_any_kind_makes_one_line(said, exc_info):
    assert said("x", exc_info=exc_info)["message"] == "x"


def test_the_error_at_hand_is_shown_whatever_its_text_does(said):
    class Strange(Exception):
        def __str__(self):
            raise KeyError

    def fail():
        raise Strange

    try:
        fail()
    except Strange:
        assert "Strange" in said("x", at="exception")["exc_info"]


def test_a_dictionary_as_a_sentence_forges_nothing(said):
    found = said({"message": "hello", "level": "FORGED", "job_id": 1, "to": "ada"})
    assert (found["message"], found["to"], found["extra_level"]) == ("hello", "ada", "FORGED")


def test_a_line_is_never_endless(said):
    found = said("x" * 10_000_000, extra={"value": "y" * 10_000_000, **{f"f{n}": n for n in range(10_000)}})
    assert found["message"].startswith("xxx")
    assert len(json.dumps(found)) < MAX_LINE * 4


def test_a_time_limit_that_strikes_in_a_log_call_comes_out_of_it(said, monkeypatch):
    class Late:
        def __str__(self):
            raise SoftTimeLimitExceeded

    def late(*_):
        raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        said("%s", Late())
    monkeypatch.setattr(logs.LineHandler, "format", late)
    with pytest.raises(SoftTimeLimitExceeded):
        said("x")


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(capsys):
    class Full(io.StringIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    handler = logs.LineHandler(Full())
    handler.setFormatter(logs.JsonFormatter())
    handler.handle(logging.makeLogRecord({"msg": "x"}))
    assert capsys.readouterr().err == ""


def test_other_loggers_are_pythons_own():
    assert type(logging.getLogger("a.handlers.own")) is logging.Logger
    assert type(handler_log.logger) is handler_log.HandlerLogger


def test_fields_may_be_given_by_name(said):
    found = said("x", to="ada", level="FORGED", extra={"n": 1})
    assert (found["to"], found["n"], found["extra_level"]) == ("ada", 1, "FORGED")


@pytest.mark.parametrize("level", [20, "INFO", "info", "loud", None, Mute()])
def test_a_level_may_be_named(said, level):
    class Shown:
        def __str__(self):
            return "info"

    assert said(Shown() if isinstance(level, Mute) else level, "x", at="log")["message"] == "x"
