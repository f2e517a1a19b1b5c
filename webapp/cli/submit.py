"""`flask --app wsgi jobs submit`: a payload from the command line, a file or stdin; with `--wait` to its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from flask import current_app

from webapp.api.schemas import JobAnswer
from webapp.api.strictjson import BadBody, read_json
from webapp.cli.console import INTERRUPTED, json_option, say, show_json, with_plain_errors
from webapp.cli.follow import LONGEST_WAIT, leaving_with, show_end, until_final
from webapp.cli.jobs import job_service
from webapp.flow.reach import EVERYTHING
from webapp.infra.telemetry.printable import escaped
from webapp.jobs.errors import TaskNotJudged
from webapp.jobs.request import SubmitRequest
from webapp.jobs.unique import OnConflict, While

#: What may be said of a unique key, and the key.
_OF_UNIQUE = ("key", "while", "for", "on_conflict", "max_wait")


@click.argument("payload")
@click.option("--key", "idempotency_key", help="Idempotency key: the same request under it is one job.")
@click.option("--job-key", "key", help="Whose work it is; jobs are found by it.")
@click.option("--queue", help="Where it waits; that of its handler, where not given.")
@click.option("--priority", type=int, help="0 to 9, higher first.")
@click.option("--delay", type=float, help="Seconds before it may start.")
@click.option("--run-at", help="When it may start; ISO 8601, with an offset.")
@click.option("--expires-at", help="When it is of no use any more; ISO 8601, with an offset.")
@click.option("--max-retries", type=int, help="How often it is tried again.")
@click.option("--timeout", type=float, help="Seconds an attempt may take.")
@click.option("--tag", multiple=True, help="May be given more than once.")
@click.option("--unique", "unique_key", help="Makes no job while another with this unique key counts.")
@click.option(
    "--unique-while",
    type=click.Choice([one.value for one in While]),
    help="It counts so long; unfinished, where nothing is said.",
)
@click.option("--unique-for", type=float, help="The new job counts so many seconds, whatever becomes of it.")
@click.option(
    "--unique-on-conflict",
    type=click.Choice([one.value for one in OnConflict]),
    help="While it counts: show it, refuse, or have it be what is asked here, if it was never started.",
)
@click.option(
    "--unique-max-wait",
    type=float,
    help="With replace: due so many seconds after the first submission at the latest.",
)
@click.option(
    "--wait", is_flag=True, help="Stay until it is final, and show its result; exit codes as of `wait`."
)
@click.option(
    "--wait-timeout",
    type=click.FloatRange(0, LONGEST_WAIT),
    default=300.0,
    show_default=True,
    help="Seconds that --wait stays.",
)
@json_option
@with_plain_errors
def submit(
    payload: str, *, tag: tuple[str, ...], wait: bool, wait_timeout: float, as_json: bool, **options: Any
) -> None:
    """Stores a job.

    PAYLOAD is a JSON object such as '{"task": "sleep", "seconds": 2}', @FILE for one in a file, or - for one on stdin.
    """
    wanted = SubmitRequest.model_validate(
        {"payload": _payload_of(payload)} | _asked(options) | ({"tags": list(tag)} if tag else {})
    )
    if not job_service().can_judge(wanted.payload):
        raise TaskNotJudged(wanted.payload["task"])
    accepted = job_service().submit(wanted.submission(wanted.idempotency_key), EVERYTHING)
    job_service().flush()
    if not (as_json and wait):
        if as_json:
            show_json(JobAnswer.of(accepted.job))
        else:
            before = " (replaced)" if accepted.replaced else " (was there before)"
            say(f"{accepted.job.id}{'' if accepted.created else before}")
    if wait:
        with leaving_with(INTERRUPTED):
            job = until_final(accepted.job.id, wait_timeout)
        show_end(job, as_json=as_json)


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of the body that were given; what is said of a unique key is an object there."""
    asked = {name: value for name, value in options.items() if value is not None}
    unique = {name: asked.pop(f"unique_{name}") for name in _OF_UNIQUE if f"unique_{name}" in asked}
    return asked | {"unique": unique} if unique else asked


def _payload_of(given: str) -> Any:
    """A payload, from where it is.

    Raises:
        click.UsageError: it cannot be read, or is no JSON.
    """
    try:
        return read_json(_bytes_of(given))
    except BadBody as error:
        where = {"-": "stdin"}.get(given) or (given[1:] if given.startswith("@") else "PAYLOAD")
        raise click.UsageError(escaped(f"{where}: {error}".replace("the body must", "must", 1))) from None


def _bytes_of(payload: str) -> bytes:
    """The bytes of a payload, from where they are; one byte more than may be at most, so that too much is noticed.

    Raises:
        click.UsageError: there is no such file, or it is larger than a payload may be.
    """
    most = current_app.extensions["settings"].max_payload_bytes
    if payload == "-":
        found = sys.stdin.buffer.read(most + 1)
    elif payload.startswith("@"):
        try:
            with Path(payload[1:]).open("rb") as file:
                found = file.read(most + 1)
        except OSError as error:
            raise click.UsageError(f"payload: {payload[1:]} cannot be read: {error.strerror}") from None
    else:
        return payload.encode("utf-8", "replace")
    if len(found) > most:
        raise click.UsageError(f"payload: must have {most} bytes at most, as MAX_PAYLOAD_BYTES says")
    return found
