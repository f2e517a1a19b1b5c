"""`ops logs`: whole, in order, from a moment on."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from ops.logs import BadTime, moment, show, stamp


def line(minute, text):
    return f'{{"timestamp":"2026-11-24T10:{minute:02}:00.000+00:00","level":"INFO","message":"{text}"}}\n'


@pytest.fixture
def log(tmp_path):
    """A log that was rotated twice."""
    for number, name in enumerate(["worker.log.10", "worker.log.2", "worker.log.1", "worker.log"]):
        (tmp_path / name).write_text(line(2 * number, f"first of {name}") + line(2 * number + 1, "second"))
    (tmp_path / "worker.log.old").write_text("not a rotated log\n")
    return tmp_path / "worker.log"


def shown(*logs, **how):
    out = io.StringIO()
    show(logs, out=out, **how)
    return out.getvalue().splitlines()


def test_all_of_it_is_shown_the_oldest_first(log):
    found = shown(log)
    assert len(found) == 8
    assert [one[25:27] for one in found] == ["10"] * 8
    assert [one[28:30] for one in found] == [f"{minute:02}" for minute in range(8)]


def test_the_last_lines_only(log):
    assert [one[28:30] for one in shown(log, tail=3)] == ["05", "06", "07"]
    assert shown(log, tail=0) == []


def test_lines_from_a_moment_on_with_what_belongs_to_them(log):
    with log.open("a") as file:
        file.write("Traceback without a time\n")
    found = shown(log, earliest=datetime(2026, 11, 24, 10, 6, tzinfo=UTC))
    assert [one[28:30] for one in found[:-1]] == ["06", "07"]
    assert found[-1] == "Traceback without a time"


def test_several_logs_have_their_names(log):
    (log.parent / "api.log").write_text("only\n")
    assert shown(log.parent / "api.log", log, tail=1)[:2] == ["==> api <==", "only"]


def test_a_last_line_without_an_end_gets_one(log):
    log.write_text("half")
    assert shown(log, tail=1) == ["half"]


def test_following_goes_on_through_a_rotation(log):
    steps = iter(["new line\n", "half a ", "line\n", "ROTATE", ""])

    def go_on():
        step = next(steps, None)
        if step == "ROTATE":
            log.rename(log.with_name("worker.log.1"))
            log.write_text("after\n")
        elif step is not None:
            with log.open("a") as file:
                file.write(step)
        return step is not None

    found = shown(log, follow=True, tail=0, go_on=go_on)
    assert found == ["new line", "half a line", "after"]


@pytest.mark.parametrize(
    ("text", "ago"), [("30s", 30), ("10m", 600), ("1.5h", 5_400), ("1d", 86_400), ("0s", 0)]
)
def test_a_time_ago(text, ago):
    assert abs(datetime.now(UTC) - timedelta(seconds=ago) - moment(text)) < timedelta(seconds=5)


def test_a_moment():
    assert moment("2026-11-24T10:00:00") == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert moment("2026-11-24T10:00:00+02:00") == datetime(2026, 11, 24, 8, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "10", "-5m", "10 m", "2026-13-01"])
def test_a_time_that_cannot_be_read_says_how_one_is_written(text):
    with pytest.raises(BadTime, match="must be like 30s"):
        moment(text)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (line(1, "x"), True),
        ("2026-11-26 04:53:00.833 UTC [23776] LOG:  checkpoint starting", True),
        ("23772:M 26 Nov 2026 04:53:00.828 # Valkey is now ready to exit", True),
        ("Traceback (most recent call last):", False),
        ("{not json", False),
        ('{"timestamp": 5}', False),
        ("", False),
    ],
)
def test_whose_time_is_known(text, known):
    assert (stamp(text) is not None) == known
