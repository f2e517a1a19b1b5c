"""`ops logs`: in the order of time, selected, followed through rotations, as JSON and for people."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime, timedelta

import pytest

from ops.logs.layout import as_json
from ops.logs.lines import BLOCK, files_of, last_texts, level_of
from ops.logs.selection import Selection
from ops.logs.show import found, printer, show
from ops.logs.times import BadTime, moment, stamp


def line(minute, text, level="INFO", **fields):
    more = "".join(f',"{name}":{json.dumps(value)}' for name, value in fields.items())
    return f'{{"timestamp":"2026-11-24T10:{minute:02}:00.000+00:00","level":"{level}","message":"{text}"{more}}}\n'


@pytest.fixture
def log(tmp_path):
    """A log that was rotated three times."""
    for number, name in enumerate(["worker.log.10", "worker.log.2", "worker.log.1", "worker.log"]):
        (tmp_path / name).write_text(line(2 * number, f"first of {name}") + line(2 * number + 1, "second"))
    (tmp_path / "worker.log.old").write_text("not a rotated log\n")
    return tmp_path / "worker.log"


def minutes(*logs, lines=None, **wanted):
    return [one.at.minute for one in found(logs, Selection(**wanted), lines=lines)]


def messages(*logs, lines=None, **wanted):
    return [json.loads(as_json(one))["message"] for one in found(logs, Selection(**wanted), lines=lines)]


def test_all_of_it_is_shown_the_oldest_first(log):
    assert minutes(log) == list(range(8))


@pytest.mark.parametrize("count", range(10))
def test_the_last_lines_only_across_rotated_files(log, count):
    assert minutes(log, lines=count) == list(range(8))[8 - min(8, count) :]
    assert minutes(log, lines=count, level=logging.INFO) == minutes(log, lines=count)


def test_last_lines_are_those_at_the_end_of_a_log_of_many_blocks(tmp_path):
    log = tmp_path / "api.log"
    texts = [f"{number}-" + "é" * (number % 700) for number in range(2_000)]
    log.write_text("\n".join(texts) + "\nhalf")
    assert log.stat().st_size > 5 * BLOCK
    assert last_texts(files_of(log), 3) == [texts[-2], texts[-1], "half"]
    assert last_texts(files_of(log), 5_000) == [*texts, "half"]


def test_lines_from_a_moment_on_with_what_belongs_to_them(log):
    with log.open("a") as file:
        file.write("Traceback without a time\n")
    assert messages(log, earliest=datetime(2026, 11, 24, 10, 6, tzinfo=UTC)) == [
        "first of worker.log",
        "second",
        "Traceback without a time",
    ]


def test_several_logs_are_merged_by_time_and_each_keeps_its_order(log):
    api = log.with_name("api.log")
    api.write_text(
        "printed before all\n" + line(3, "a") + "printed after a\n" + line(2, "late") + line(9, "z")
    )
    shown = [(one.process, one.at.minute) for one in found([log, api], Selection())]
    assert [minute for _, minute in shown] == sorted(minute for _, minute in shown)
    assert [
        json.loads(as_json(one))["message"] for one in found([log, api], Selection()) if one.process == "api"
    ] == [*("printed before all", "a", "printed after a", "late", "z")]


def test_lines_are_selected_by_level_job_and_pattern(log):
    log.write_text(
        line(11, "job completed", job_id="aaaa-1")
        + line(12, "job failed", "ERROR", job_id="bbbb-2")
        + line(13, "lease lost", "WARNING", job_id="aaaa-1")
    )
    assert minutes(log, level=logging.WARNING) == [12, 13]
    assert minutes(log, job="aaaa-1") == [11, 13]
    assert minutes(log, pattern=re.compile("job (completed|failed)")) == [11, 12]
    assert minutes(log, job="aaaa-1", level=logging.ERROR) == []
    assert minutes(log, job="aaaa-1", lines=1) == [13]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('{"timestamp":"x","level":"ERROR","message":" INFO "}', logging.ERROR),
        ("2026-11-26 04:53:00.833 UTC [23776]  00000 LOG:  checkpoint starting", logging.INFO),
        ("2026-11-26 04:53:00.833 UTC [1] djps 42P01 FATAL:  no such role", logging.CRITICAL),
        ("2026-11-26 04:53:00.833 UTC [1]  53100 PANIC:  no space left", logging.CRITICAL),
        ("23772:M 26 Nov 2026 04:53:00.828 # Valkey is now ready to exit", logging.WARNING),
        ("23772:M 26 Nov 2026 04:53:00.828 * Ready to accept connections", None),
        ("2026-11-26 23:38:54,547 WARN received SIGTERM", logging.WARNING),
        ("time=2026-11-26T23:38:56.7Z level=ERROR source=main.go:1", logging.ERROR),
        ("printed by a handler", None),
    ],
)
def test_how_grave_a_line_is(text, level):
    assert level_of(text) == level


def shown_while(log, steps, **how):
    """What following a log prints while steps are taken, one between two looks."""
    left = iter(steps)
    out = io.StringIO()

    def go_on():
        step = next(left, None)
        if callable(step):
            step()
        elif step is not None:
            with log.open("a") as file:
                file.write(step)
        return step is not None

    show(
        lambda: [log],
        Selection(),
        follow=True,
        lines=0,
        go_on=go_on,
        write=printer(as_objects=True, out=out),
        **how,
    )
    return [json.loads(one)["message"] for one in out.getvalue().splitlines()]


def test_following_goes_on_through_a_rotation_and_loses_no_line(log):
    def rotate():
        with log.open("a") as file:
            file.write("last of the old file\n")
        log.rename(log.with_name("worker.log.1"))
        log.write_text("after\n")

    assert shown_while(log, ["new line\n", "half a ", "line\n", rotate, ""]) == [
        *("new line", "half a line", "last of the old file", "after")
    ]


def test_following_meets_a_log_that_begins_later_and_one_that_was_cut_off(tmp_path):
    log = tmp_path / "beat.log"
    assert shown_while(log, [lambda: None, "first\nsecond\n", lambda: log.write_text("cut\n"), ""]) == [
        *("first", "second", "cut")
    ]


@pytest.mark.parametrize(
    "text", ["printed \x1b[2J", "[1, 2]", "{broken", "{}", '{"message": "\\u001b[2J"}', '{"a":1}']
)
def test_every_line_is_one_json_object_with_its_process(tmp_path, text):
    (tmp_path / "api.log").write_text(text + "\n")
    (shown,) = (as_json(one) for one in found([tmp_path / "api.log"], Selection()))
    assert json.loads(shown)["process"] == "api"
    assert "\x1b" not in shown


def for_people(log):
    out = io.StringIO()
    show(lambda: [log], Selection(), write=printer(as_objects=False, out=out))
    return out.getvalue()


def test_a_line_for_people_has_its_fields_and_nothing_that_steers_the_terminal(log):
    log.write_text(
        line(1, "it [bold]failed[/bold]", "ERROR", job_id="j-1", retry_in_seconds=2.5, key="a\x1b[2Jb")
        + line(2, "died", "ERROR", exc_info="Traceback:\n  File x\nKeyError: 'a'")
        + "printed\tby \x1b[31ma handler\n"
    )
    for file in files_of(log)[:-1]:
        file.unlink()
    first, second, *trace, printed = for_people(log).splitlines()
    assert first.endswith(
        "worker      ERROR    it [bold]failed[/bold] job_id=j-1 retry_in_seconds=2.5 key=a\\x1b[2Jb"
    )
    assert second.endswith("ERROR    died")
    assert trace == ["    Traceback:", "      File x", "    KeyError: 'a'"]
    assert printed.endswith("worker      printed    by \\x1b[31ma handler")


@pytest.mark.parametrize(
    ("text", "ago"), [("30s", 30), ("10m", 600), ("1.5h", 5_400), ("1d", 86_400), ("0s", 0)]
)
def test_a_time_ago(text, ago):
    assert abs(datetime.now(UTC) - timedelta(seconds=ago) - moment(text)) < timedelta(seconds=5)


def test_a_moment():
    assert moment("2026-11-24T10:00:00") == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert moment("2026-11-24T10:00:00+02:00") == datetime(2026, 11, 24, 8, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "10", "-5m", "10 m", "2026-13-01", "99999999999d"])
def test_a_time_that_cannot_be_read_says_how_one_is_written(text):
    with pytest.raises(BadTime, match="must be like 30s"):
        moment(text)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (line(1, "x"), "2026-11-24T10:01:00+00:00"),
        (
            "2026-11-26 04:53:00.833 UTC [23776]  00000 LOG:  checkpoint starting",
            "2026-11-26T04:53:00.833000+00:00",
        ),
        ("time=2026-11-26T23:38:56.700Z level=INFO source=main.go:1", "2026-11-26T23:38:56.700000+00:00"),
        ("Traceback (most recent call last):", None),
        ("{not json", None),
        ('{"timestamp": 5}', None),
        ('{"timestamp":"2026-06-31T10:00:00+00:00"}', None),
        ("at 2026-11-26T23:38:56 it said", None),
        ("", None),
    ],
)
def test_whose_time_is_known(text, known):
    at = stamp(text)
    assert (at and at.isoformat()) == known


def test_times_of_servers_that_name_no_zone_are_the_machines(log):
    at = stamp("23772:M 26 Nov 2026 04:53:00.828 # Valkey is now ready to exit")
    assert at.astimezone().replace(tzinfo=None) == datetime(2026, 11, 26, 4, 53, 0, 828_000)  # noqa: DTZ001 - the machine's own
