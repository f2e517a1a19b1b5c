"""`flask --app wsgi schedules apply FILE`, so that schedules live in a repository, and `schedules delete`."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import click
from pydantic import BaseModel, ConfigDict, Field

from webapp.api.schedule_schemas import Name, ScheduleRequest
from webapp.cli.console import document_in, say, with_options, with_plain_errors
from webapp.cli.schedules import schedules
from webapp.flow.reach import EVERYTHING
from webapp.schedules.errors import UnknownSchedule

#: Largest file of schedules, bytes.
MOST_BYTES = 4 * 1024**2
#: Most schedules of a file.
MOST_SCHEDULES = 10_000
#: What is said of a schedule that is what its file says.
AS_IT_IS = "as it is"
_WORDS = (
    click.option("--by", default=getpass.getuser, help="Who does this; the user of this shell by default."),
    click.option("--why", help="Kept with the version and on record."),
)


class ScheduleFile(BaseModel):
    """A file of schedules: what `PUT /schedules/{schedule}` takes, by name."""

    model_config = ConfigDict(extra="forbid")

    schedules: Annotated[dict[Name, ScheduleRequest], Field(max_length=MOST_SCHEDULES)]


@click.command("apply")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Says what would be changed, and changes nothing.")
@click.option("--delete", "deletes", is_flag=True, help="Also deletes schedules that the file does not name.")
@with_options(*_WORDS)
@with_plain_errors
def apply(file: Path, *, dry_run: bool, deletes: bool, by: str, why: str | None) -> None:
    """Has schedules be what a file says, TOML or JSON; what is so already gets no new version."""
    wanted = read(file).schedules
    changed = 0
    for name, request in wanted.items():
        words = _would(name, request) if dry_run else _put(name, request, by=by, why=why)
        changed += words != AS_IT_IS
        say(f"schedule {name!r}: {words}")
    gone = _others(set(wanted)) if deletes else []
    for name in gone:
        if not dry_run:
            schedules().delete(name, EVERYTHING, by=by)
        say(f"schedule {name!r}: {'would be ' if dry_run else ''}deleted")
    say(f"{changed + len(gone)} {'would be' if dry_run else 'were'} changed")


def _would(name: str, request: ScheduleRequest) -> str:
    """What would become of a schedule, in words."""
    try:
        before = schedules().get(name, EVERYTHING).schedule
    except UnknownSchedule:
        return "would be made"
    is_same = before.spec.document() == request.spec().document()
    return AS_IT_IS if is_same else "would be changed"


def _put(name: str, request: ScheduleRequest, *, by: str, why: str | None) -> str:
    """Has a schedule be what a file says; what became of it, in words."""
    put = schedules().put(name, request.spec(), EVERYTHING, by=request.by or by, why=request.why or why)
    if put.is_new:
        return "made"
    return f"version {put.shown.schedule.version}" if put.is_changed else AS_IT_IS


@click.command("delete")
@click.argument("name")
@with_options(_WORDS[0])
@with_plain_errors
def delete(name: str, *, by: str) -> None:
    """Deletes a schedule with its history; jobs that it has made stay."""
    schedules().delete(name, EVERYTHING, by=by)
    say(f"schedule {name!r} is deleted")


def read(file: Path) -> ScheduleFile:
    """A file of schedules; all of it is judged before anything is changed."""
    return ScheduleFile.model_validate(document_in(file, MOST_BYTES))


def _others(named: set[str]) -> list[str]:
    """Schedules that are not among those named."""
    found: list[str] = []
    last = ""
    while page := schedules().page(EVERYTHING, state=None, after=last, limit=1_000):
        last = page[-1].schedule.name
        found += [one.schedule.name for one in page if one.schedule.name not in named]
    return found
