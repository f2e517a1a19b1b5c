"""`flask --app wsgi schedules`: list, show, pause, resume, run, backfill; `apply` and `delete` are in `schedule_files.py`."""

from __future__ import annotations

import getpass
from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.api.schedule_answers import (
    FilledAnswer,
    FiringAnswer,
    ScheduleAnswer,
    ScheduleExplanation,
    ScheduleItem,
    Times,
    VersionAnswer,
    cursor_of,
    read_cursor,
)
from webapp.api.schedule_schemas import (
    BackfillRequest,
    FiringsQuery,
    NextQuery,
    PreviewRequest,
    RunRequest,
    SchedulesQuery,
    SteerRequest,
)
from webapp.api.schedules import maintenance_workers
from webapp.cli.console import (
    json_option,
    say,
    show_fields,
    show_json,
    show_table,
    with_options,
    with_plain_errors,
)
from webapp.flow.reach import EVERYTHING
from webapp.schedules.model import Outcome, Overlap, State
from webapp.schedules.runs import Runs
from webapp.schedules.service import Schedules
from webapp.schedules.timetable import upcoming

group = AppGroup("schedules", help="Look at schedules, apply, pause, run and fill them in.")

_COLUMNS = ("name", "state", "queue", "words", "next_at", "last_at", "fired", "skipped")
_FIRINGS = ("at", "kind", "outcome", "until", "job_id", "reason")
_BY = click.option("--by", default=getpass.getuser, help="Who does this; the user of this shell by default.")


def schedules() -> Schedules:
    """The front door of this application's schedules."""
    return cast("Schedules", current_app.extensions["schedules"])


def _runs() -> Runs:
    return cast("Runs", current_app.extensions["schedule_runs"])


@group.command("list")
@click.option("--state", type=click.Choice([one.value for one in State]), help="Only those that stand so.")
@click.option("--limit", type=int, default=100, show_default=True, help="How many at most.")
@click.option("--cursor", help="The last name of the page before.")
@json_option
@with_plain_errors
def list_schedules(*, state: str | None, limit: int, cursor: str | None, as_json: bool) -> None:
    """Schedules by name: how each stands, and when it is due."""
    query = SchedulesQuery.model_validate({"state": state, "limit": limit, "cursor": cursor})
    asked = State(query.state) if query.state is not None else None
    found = schedules().page(EVERYTHING, state=asked, after=query.cursor or "", limit=query.limit)
    answers = [ScheduleItem.of(one.schedule) for one in found]
    if as_json:
        last = answers[-1]["name"] if len(answers) == query.limit else None
        show_json({"items": answers, "next_cursor": last})
    else:
        show_table(answers, _COLUMNS, nothing="no schedules")


@group.command("show")
@click.argument("name")
@json_option
@with_plain_errors
def show(name: str, *, as_json: bool) -> None:
    """One schedule, with its next times and its last firings."""
    _show(ScheduleAnswer.of_shown(schedules().get(name, EVERYTHING)), as_json=as_json)


@group.command("next")
@click.argument("name")
@click.option("--count", type=int, default=10, show_default=True, help="How many times.")
@json_option
@with_plain_errors
def next_times(name: str, *, count: int, as_json: bool) -> None:
    """The next times of a schedule."""
    query = NextQuery.model_validate({"count": count})
    _show_times(Times.of(*schedules().next_times(name, EVERYTHING, query.count)), as_json=as_json)


@group.command("preview")
@click.option("--cron", help="Five fields, or @daily and its like.")
@click.option("--zone", default="UTC", show_default=True, help="An IANA name such as Europe/Berlin.")
@click.option("--every", type=int, help="Seconds.")
@click.option("--after", help="From when on; ISO 8601, with an offset.")
@click.option("--count", type=int, default=10, show_default=True, help="How many times.")
@json_option
@with_plain_errors
def preview(*, as_json: bool, **given: Any) -> None:
    """The times that cron or every would have; nothing is kept."""
    wanted = PreviewRequest.model_validate(
        {name: value for name, value in given.items() if value is not None}
    )
    after = wanted.after or schedules().moment()
    _show_times(Times.of(wanted.timing(), upcoming(wanted.timing(), after, wanted.count)), as_json=as_json)


@group.command("explain")
@click.argument("name")
@json_option
@with_plain_errors
def explain(name: str, *, as_json: bool) -> None:
    """Why a schedule does not fire now."""
    answer = ScheduleExplanation.of(schedules().explain(name, EVERYTHING, maintenance_workers))
    if as_json:
        show_json(answer)
    else:
        say(answer["sentence"])


@group.command("pause")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All that are active, as after a dump was restored.")
@click.option("--note", help="Kept with the pause and on record.")
@with_options(_BY)
@json_option
@with_plain_errors
def pause(name: str | None, *, everything: bool, note: str | None, by: str, as_json: bool) -> None:
    """Pauses a schedule: nothing of it fires until it is resumed."""
    _steer(name, SteerRequest(by=by, note=note), pauses=True, everything=everything, as_json=as_json)


@group.command("resume")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All that are paused.")
@click.option("--note", help="Kept on record.")
@with_options(_BY)
@json_option
@with_plain_errors
def resume(name: str | None, *, everything: bool, note: str | None, by: str, as_json: bool) -> None:
    """Lets a schedule go on from now."""
    _steer(name, SteerRequest(by=by, note=note), pauses=False, everything=everything, as_json=as_json)


def _steer(name: str | None, wanted: SteerRequest, *, pauses: bool, everything: bool, as_json: bool) -> None:
    if (name is None) != everything:
        raise click.UsageError("give a name, or --all")
    steer = schedules().pause if pauses else schedules().resume
    if name is not None:
        shown = steer(name, EVERYTHING, by=wanted.by, note=wanted.note)
        if as_json:
            show_json(ScheduleAnswer.of_shown(shown))
        else:
            say(f"schedule {name!r} is {shown.schedule.state.value}")
        return
    count, last = 0, ""
    state = State.ACTIVE if pauses else State.PAUSED
    while found := schedules().page(EVERYTHING, state=state, after=last, limit=1_000):
        for one in found:
            last = one.schedule.name
            steer(last, EVERYTHING, by=wanted.by, note=wanted.note)
            count += 1
    say(f"{count} were {'paused' if pauses else 'resumed'}")


@group.command("run")
@click.argument("name")
@click.option(
    "--overlap",
    type=click.Choice([one.value for one in Overlap]),
    help="In the place of the schedule's own, for this run.",
)
@click.option("--why", help="Kept on record.")
@with_options(_BY)
@json_option
@with_plain_errors
def run(name: str, *, overlap: str | None, why: str | None, by: str, as_json: bool) -> None:
    """Has a schedule fire now, paused or not; its times stay as they are."""
    wanted = RunRequest.model_validate({"overlap": overlap, "by": by, "why": why})
    asked = Overlap(wanted.overlap) if wanted.overlap is not None else None
    row = _runs().run(name, EVERYTHING, overlap=asked, by=wanted.by, why=wanted.why)
    answer = FiringAnswer.of(row)
    if as_json:
        show_json(answer)
    else:
        say(f"{answer['outcome']}: {answer['job_id'] or answer['reason']}")


@group.command("backfill")
@click.argument("name")
@click.option("--from", "first", required=True, help="The first time; ISO 8601, with an offset.")
@click.option("--to", "last", required=True, help="The last time; it must have passed.")
@click.option("--again", is_flag=True, help="Also times that have fired.")
@click.option("--rate", type=float, help="So many jobs become due in a second.")
@click.option("--dry-run", is_flag=True, help="Says what would be done, and does nothing.")
@click.option("--why", help="Kept on record.")
@with_options(_BY)
@json_option
@with_plain_errors
def backfill(name: str, *, first: str, last: str, as_json: bool, **given: Any) -> None:
    """Fires times that have passed, each once, however often it is asked."""
    wanted = BackfillRequest.model_validate({"from": first, "to": last, **given})
    filled = _runs().backfill(name, wanted.wanted(wanted.by), EVERYTHING)
    answer = FilledAnswer.of(filled)
    if as_json:
        show_json(answer)
        return
    verb = "would fire" if wanted.dry_run else "fired"
    say(
        f"{filled.fired} of {filled.matched} {verb}, {filled.existing} had fired, {filled.refused} were refused"
    )
    if filled.next_from is not None:
        say(f"there is more: go on with --from {answer['next_from']}")


@group.command("firings")
@click.argument("name")
@click.option(
    "--outcome", type=click.Choice([one.value for one in Outcome]), help="Only those of this outcome."
)
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@click.option("--before", help="The next_cursor of the page before.")
@json_option
@with_plain_errors
def firings(name: str, *, outcome: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """What became of the times of a schedule, the newest first."""
    query = FiringsQuery.model_validate({"outcome": outcome, "limit": limit, "before": before})
    try:
        cursor = read_cursor(query.before)
    except (ValueError, OverflowError):
        raise click.UsageError("--before must be the next_cursor of a page") from None
    asked = Outcome(query.outcome) if query.outcome is not None else None
    rows = schedules().firings(name, EVERYTHING, outcome=asked, before=cursor, limit=query.limit)
    answers = [FiringAnswer.of(row) for row in rows]
    if as_json:
        last = cursor_of(rows[-1]) if len(rows) == query.limit else None
        show_json({"items": answers, "next_cursor": last})
    else:
        show_table(answers, _FIRINGS, nothing="no firings")


@group.command("versions")
@click.argument("name")
@json_option
@with_plain_errors
def versions(name: str, *, as_json: bool) -> None:
    """What a schedule was: each version that is kept, the newest first."""
    answers = [VersionAnswer.of(one) for one in schedules().versions(name, EVERYTHING)]
    if as_json:
        show_json({"items": answers})
    else:
        show_table(answers, ("version", "changed_at", "changed_by", "why", "spec"), nothing="no versions")


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        show_fields(answer)


def _show_times(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        show_table(answer["times"], ("at", "local"), nothing="no time comes")
