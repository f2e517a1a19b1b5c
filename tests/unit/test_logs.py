from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime

import pytest

from webapp.infra.telemetry import logs
from webapp.infra.telemetry.logs import JsonFormatter, bound, bound_field


def line(message, *args, level=logging.INFO, exc_info=None, **extra):
    logger = logging.getLogger("djps.test")
    record = logger.makeRecord(logger.name, level, __file__, 1, message, args, exc_info, extra=extra)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_is_one_json_object_with_the_standard_four():
    found = line("job %s", "started")
    assert list(found) == ["timestamp", "level", "logger", "message"]
    assert (found["level"], found["logger"], found["message"]) == ("INFO", "djps.test", "job started")
    assert datetime.fromisoformat(found["timestamp"]).utcoffset().total_seconds() == 0


def test_fields_of_the_call_are_added():
    found = line("job started", task="noop", jobs=3)
    assert (found["task"], found["jobs"]) == ("noop", 3)


def test_bound_fields_are_on_every_line_inside_the_block_and_none_after_it():
    with bound(job_id="1", attempt=2, request_id=None):
        with bound(attempt=3, worker_id="w"):
            inner = line("x")
        outer = line("x")
    assert (inner["job_id"], inner["attempt"], inner["worker_id"]) == ("1", 3, "w")
    assert (outer["job_id"], outer["attempt"]) == ("1", 2)
    assert "worker_id" not in outer
    assert "request_id" not in outer
    assert "job_id" not in line("x")


def test_bound_fields_are_given_back_when_the_block_raises():
    with pytest.raises(KeyError), bound(job_id="1"):
        raise KeyError
    assert bound_field("job_id") is None


def test_bound_fields_do_not_leak_into_another_thread():
    seen = []
    with bound(job_id="1"):
        assert bound_field("job_id") == "1"
        thread = threading.Thread(target=lambda: seen.append(bound_field("job_id")))
        thread.start()
        thread.join()
    assert seen == [None]


def test_a_traceback_stays_on_the_line():
    error = ValueError("first\nsecond")
    found = line("failed", exc_info=(type(error), error, None))
    assert "ValueError: first\nsecond" in found["exc_info"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://djps:sesame@h/d", "postgresql://djps:***@h/d"),
        ("to redis://:sesame@h:1/0 and redis://u:sesame@h", "to redis://:***@h:1/0 and redis://u:***@h"),
        ("https://h/a?b=c:d@e", "https://h/a?b=c:d@e"),
        ("redis://h:6379/0", "redis://h:6379/0"),
    ],
)
def test_a_password_in_a_url_is_never_written(text, shown):
    assert line(text)["message"] == shown


def test_a_password_is_hidden_in_tracebacks_and_fields_too():
    error = OSError("no answer from redis://:sesame@h")
    found = line(
        "away", exc_info=(type(error), error, None), url="postgresql://u:sesame@h/d", at=["x://:sesame@"]
    )
    assert found["url"] == "postgresql://u:***@h/d"
    assert "sesame" not in json.dumps(found)


@pytest.mark.parametrize(
    "value", ["\ud800", "\x00", "a\nb", "\u2028", {"a": object()}, b"\xff", float("nan")]
)
def test_any_value_makes_one_printable_line(value):
    found = line("x", value=value)
    assert found["message"] == "x"
    json.dumps(found).encode()


def test_one_sentence_about_many_is_a_line_for_each(caplog):
    logger = logging.getLogger("djps.test")
    with caplog.at_level(logging.INFO), bound(request_id="r"):
        logs.info_each(logger, "job completed", [{"job_id": "1"}, {"job_id": "2", "note": "x://u:sesame@h"}])
        lines = JsonFormatter().format(caplog.records[0]).split("\n")
    found = [json.loads(one) for one in lines]
    assert [one["job_id"] for one in found] == ["1", "2"]
    assert {one["message"] for one in found} == {"job completed"}
    assert {one["request_id"] for one in found} == {"r"}
    assert found[1]["note"] == "x://u:***@h"
    assert len(caplog.records) == 1


def test_one_sentence_about_many_is_not_made_where_no_one_reads_it(caplog):
    def never():
        raise AssertionError("the lines were made")
        yield

    with caplog.at_level(logging.WARNING):
        logs.info_each(logging.getLogger("djps.test"), "job completed", never())


def test_a_sentence_about_no_one_is_no_line(caplog):
    with caplog.at_level(logging.INFO):
        logs.info_each(logging.getLogger("djps.test"), "job completed", [])
    assert caplog.records == []


@pytest.mark.parametrize("value", ["Zürich", 2**70, {1: "a"}, datetime(2026, 1, 1, tzinfo=UTC), "\u2028"])
def test_lines_are_ascii_and_exact_however_they_are_made(value):
    logger = logging.getLogger("djps.test")
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 1, "x", (), None, extra={"value": value})
    text = JsonFormatter().format(record)
    assert text.isascii()
    assert json.loads(text)["value"] == json.loads(json.dumps(value, default=str).replace(" 00:", "T00:"))


def test_every_logger_ends_at_standard_error_as_json():
    found = logs.configuration("WARNING")
    assert found["root"] == {"level": "WARNING", "handlers": ["stderr"]}
    assert found["handlers"]["stderr"] == {
        "class": "webapp.infra.telemetry.logs.LineHandler",
        "formatter": "json",
    }
    assert found["disable_existing_loggers"] is False


def test_a_thread_that_dies_is_one_line(capsys):
    logs.configure("INFO")
    thread = threading.Thread(target=lambda: 1 / 0, name="one")
    thread.start()
    thread.join(5)
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (line["level"], line["message"], line["part"]) == ("CRITICAL", "thread died", "one")
    assert "ZeroDivisionError" in line["exc_info"]
