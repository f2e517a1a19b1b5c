"""Rows that an earlier release stored and Python or JSON cannot hold: shown with what can be read, and not in the way."""

from __future__ import annotations

import json

import pytest
from factories import completed, queued, row_of
from sqlalchemy import text

from webapp.infra.postgres.column_values import EARLIEST, LATEST


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.fixture
def change(engine):
    """Sets a column of a job to an SQL expression."""

    def run(job_id, column, expression):
        with engine.begin() as connection:
            connection.execute(
                text(f"UPDATE jobs SET {column} = {expression} WHERE id = :id"),  # noqa: S608 - of this test
                {"id": job_id},
            )

    return run


def listed(client, job_id, path="/jobs"):
    found = client.get(path)
    assert found.status_code == 200, found.text
    jobs = found.json if isinstance(found.json, list) else found.json["items"]
    # A list says nothing of the unique key that a job holds.
    return next(job | {"unique_key": None} for job in jobs if job["id"] == str(job_id))


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("now() + interval '57040 years'", LATEST),
        ("'infinity'", LATEST),
        ("'-infinity'", EARLIEST),
        ("'4000-01-01 BC'", EARLIEST),
        ("'0001-01-01 00:00:00+02'", EARLIEST),
        ("'2030-01-01T00:00:00Z'", None),
    ],
)
def test_a_time_that_python_does_not_know_is_shown_as_the_nearest(client, engine, change, expression, shown):
    other, job = queued(engine), queued(engine)
    for column in ("run_at", "expires_at", "updated_at"):
        change(job.id, column, expression)
    answer = client.get(f"/jobs/{job.id}")
    assert answer.status_code == 200
    assert answer.json == listed(client, job.id)
    assert listed(client, other.id)
    if shown is not None:
        assert row_of(engine, job.id).run_at == row_of(engine, job.id).expires_at == shown
        assert answer.json["updated_at"] == shown.isoformat().replace("+00:00", "Z")
    assert client.get(f"/jobs/{job.id}/explain").status_code == 200
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 200
    assert client.get(f"/jobs/{job.id}/events", buffered=True).status_code == 200


@pytest.mark.parametrize("depth", [101, 260, 900, 5_000])
@pytest.mark.parametrize("column", ["result", "payload"])
def test_json_that_is_too_deep_is_shown_as_a_note(client, engine, change, column, depth):
    other, job = queued(engine), completed(engine, "1")
    value = nested(depth) if column == "result" else f'{{"a": {nested(depth - 1)}}}'
    change(job.id, column, f"'{value}'::jsonb")
    answer = client.get(f"/jobs/{job.id}")
    assert answer.status_code == 200
    assert "djps_not_shown" in answer.json[column]
    assert listed(client, job.id) == answer.json
    assert listed(client, other.id)
    assert "djps_not_shown" in client.get(f"/jobs/{job.id}/events", buffered=True).text
    assert client.get(f"/jobs/{job.id}?wait=1").status_code == 200


def test_a_number_that_python_does_not_read_is_no_harm(client, engine, change):
    job = completed(engine, "1")
    change(job.id, "result", "'1e5000'::jsonb")
    answer = client.get(f"/jobs/{job.id}")
    assert answer.status_code == 200
    assert "djps_not_shown" in json.dumps(answer.json["result"])


@pytest.mark.parametrize(
    ("column", "expression"),
    [
        ("backoff", """'"x"'::jsonb"""),
        ("backoff", """'{"base": "x"}'::jsonb"""),
        ("progress", "'[1]'::jsonb"),
        ("tags", "ARRAY[NULL]::text[]"),
    ],
)
def test_a_column_that_was_changed_by_hand_leaves_the_rest_of_the_row_readable(
    client, engine, change, column, expression
):
    other, job = queued(engine), queued(engine)
    change(job.id, column, expression)
    answer = client.get(f"/jobs/{job.id}")
    assert answer.status_code == 200
    assert (answer.json["task"], answer.json[column]) == ("noop", [] if column == "tags" else None)
    assert listed(client, job.id) == answer.json
    assert listed(client, other.id)
