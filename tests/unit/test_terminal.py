"""Tables and times, as people read them at a terminal."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta

import pytest

from webapp.infra import terminal

JOBS = [
    {
        "id": "01a21a46-4013-727a-9f73-b23d0ed2c331",
        "status": "failed",
        "last_error": "Broken: " + "long " * 30,
    },
    {"id": "01a21a45-15d8-7566-81df-24b1d06511fd", "status": "completed", "last_error": None},
]
COLUMNS = ("id", "status", "last_error")


def bare(text):
    """Text without what steers the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


class Terminal(io.StringIO):
    """An output that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal_of(monkeypatch):
    """What is printed on a terminal of a width, without its colours."""

    def shown(width, *, colours=False):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        if colours:
            monkeypatch.delenv("NO_COLOR", raising=False)
        else:
            monkeypatch.setenv("NO_COLOR", "1")
        out = Terminal()
        terminal.show_table(JOBS, COLUMNS, file=out)
        return out.getvalue().splitlines()

    return shown


def test_where_the_output_is_no_terminal_cells_have_sixty_characters_at_most():
    out = io.StringIO()
    terminal.show_table(JOBS, COLUMNS, file=out)
    head, failed, completed = out.getvalue().splitlines()
    assert head == f"{'id':36}  {'status':9}  last_error"
    assert failed.startswith(f"{JOBS[0]['id']}  failed     Broken: long")
    assert failed.endswith("…")
    assert len(failed.split("     ", 1)[1]) == terminal.WIDEST
    assert completed == f"{JOBS[1]['id']}  completed  -"


@pytest.mark.parametrize("width", [65, 66, 80, 200])
def test_ids_and_states_are_whole_however_narrow_a_terminal_is(terminal_of, width):
    shown = terminal_of(width)
    assert len(shown) == 3
    for line, job in zip(shown[1:], JOBS, strict=True):
        assert bare(line).startswith(f"{job['id']}  {job['status']}")
    assert max(len(bare(line)) for line in shown) <= width


@pytest.mark.parametrize("width", [20, 64])
def test_where_a_table_does_not_fit_each_row_is_shown_as_lines_with_nothing_cut_off(terminal_of, width):
    assert [bare(line).rstrip() for line in terminal_of(width)] == [
        f"id          {JOBS[0]['id']}",
        "status      failed",
        f"last_error  {terminal.cell('last_error', JOBS[0]['last_error'])}",
        "",
        f"id          {JOBS[1]['id']}",
        "status      completed",
        "last_error  -",
    ]


def test_states_have_colours_on_a_terminal_and_none_where_they_are_not_wanted(terminal_of):
    _, failed, completed = terminal_of(80, colours=True)
    assert "\x1b[31mfailed" in failed
    assert "\x1b[32mcompleted" in completed
    assert "\x1b[3" not in "".join(terminal_of(80))


def test_what_is_in_a_cell_steers_no_terminal():
    out = io.StringIO()
    terminal.show_table([{"id": "a\x1b[2J\nb [bold]c[/bold] :smile:"}], ("id",), file=out)
    assert out.getvalue().splitlines()[1] == "a\\x1b[2J b [bold]c[/bold] :smile:"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "now"),
        (0.9, "now"),
        (1, "1 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3_599, "59 min ago"),
        (3_600, "1 h ago"),
        (86_400 * 400, "400 d ago"),
        (-90, "in 1 min"),
        (-0.5, "now"),
    ],
)
def test_how_long_ago(seconds, said):
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert terminal.ago(now - timedelta(seconds=seconds), now) == said


def test_a_moment_is_shown_as_how_long_ago_and_a_list_as_its_items():
    at = datetime.now(UTC) - timedelta(hours=3)
    assert terminal.cell("created_at", at.isoformat()) == "3 h ago"
    assert terminal.cell("queues", ("a", "b")) == "a, b"
    assert terminal.cell("progress", None) == "-"
    assert terminal.in_line({"a": "é" * 100}).endswith("é…")
    assert terminal.in_line(None) == ""


def test_nothing_is_drawn_anew_where_there_is_no_terminal(capsys):
    with terminal.redrawn(enabled=False) as draw:
        draw(JOBS, COLUMNS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("width", "columns"), [(200, COLUMNS), (60, ("id", "status")), (40, ("id",)), (10, ("id",))]
)
def test_a_table_that_is_drawn_anew_leaves_out_the_columns_that_do_not_fit(
    monkeypatch, capsys, width, columns
):
    for name, value in {"COLUMNS": str(width), "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with terminal.redrawn(enabled=True) as draw:
        draw(JOBS, COLUMNS)
    assert bare(capsys.readouterr().out).splitlines()[0].split() == list(columns)
