"""psycopg2 and psycopg 3 with the statements of the hot path, alternated: what a change of the driver would give.

Stands alone: both drivers are installed beside it, for DJPS itself has psycopg2 only. It works on temporary tables that are
made like those of the database it is given, and changes nothing else. `ops/docs/decisions/0042-libraries-or-our-own.md` says how it is run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import psycopg2.extras

ROOT = Path(__file__).resolve().parents[2]
#: Jobs of a chunk, and chunks in one measurement.
CHUNK, CHUNKS = 500, 40
#: Single inserts in one measurement.
SINGLE = 2_000

_LIKE = "CREATE TEMPORARY TABLE {0} (LIKE public.{0} INCLUDING DEFAULTS INCLUDING INDEXES)"
_INSERT = """INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint)
             VALUES ({0}, {0}, {0}, {0}, {0}, {0}, {0}) RETURNING created_at"""
_FILL = """INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, run_at)
           SELECT id, 'noop', '{{}}', 'default', 3, 300, '\\x00', now() - interval '1 minute' FROM unnest({0}::uuid[]) AS id"""
_CLAIM = """UPDATE jobs SET status = 'processing', attempt = attempt + 1, worker_id = 'host:1', last_attempt_at = now(),
                   lease_expires_at = now() + interval '1 minute'
             WHERE id = ANY({0}::uuid[]) AND status = 'queued'
            RETURNING id, task, payload::text, queue, attempt, retry_count, max_retries, timeout, worker_id"""
_END = """WITH given AS (SELECT * FROM unnest({0}::uuid[], {0}::int[], {0}::float8[]) AS given(id, attempt, ran))
          UPDATE jobs SET status = 'completed', finished_at = now(), lease_expires_at = NULL, worker_id = NULL
            FROM given WHERE jobs.id = given.id AND jobs.status = 'processing' AND jobs.attempt = given.attempt"""

Run = Callable[..., list[Any]]


def _of_psycopg2(url: str) -> tuple[Any, Run, Callable[[list[Any]], Any]]:
    psycopg2.extras.register_uuid()
    connection = psycopg2.connect(url)

    def run(sql: str, *values: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(sql.format("%s"), values)
            rows: list[Any] = cursor.fetchall() if cursor.description else []
        connection.commit()
        return rows

    # As DJPS writes arrays today: one literal, not an element each.
    return connection, run, lambda values: "{" + ",".join(map(str, values)) + "}"


def _of_psycopg3(url: str) -> tuple[Any, Run, Callable[[list[Any]], Any]]:
    connection = psycopg.connect(url)
    connection.prepare_threshold = 0

    def run(sql: str, *values: Any) -> list[Any]:
        with connection.cursor(binary=True) as cursor:
            cursor.execute(sql.format("%s"), values, prepare=True)
            rows: list[Any] = cursor.fetchall() if cursor.description else []
        connection.commit()
        return rows

    return connection, run, lambda values: values


def _measured(work: Callable[[], int]) -> tuple[float, float]:
    """Microseconds of this process's CPU, and of the clock, for each job."""
    cpu, wall = time.process_time(), time.perf_counter()
    jobs = work()
    return (time.process_time() - cpu) / jobs * 1e6, (time.perf_counter() - wall) / jobs * 1e6


def _round(make: Callable[[str], tuple[Any, Run, Callable[[list[Any]], Any]]], url: str) -> dict[str, float]:
    connection, run, array = make(url)
    run(_LIKE.format("jobs"))

    def insert() -> int:
        for _ in range(SINGLE):
            run(_INSERT, str(uuid.uuid4()), "noop", json.dumps({"n": 1}), "default", 3, 300.0, b"\x00" * 32)
        return SINGLE

    def chunks() -> int:
        for ids in given:
            claims = run(_CLAIM, array(ids))
            run(
                _END,
                array([one[0] for one in claims]),
                array([one[4] for one in claims]),
                array([0.1] * len(claims)),
            )
        return CHUNK * CHUNKS

    given = [[uuid.uuid4() for _ in range(CHUNK)] for _ in range(CHUNKS)]
    for ids in given:
        run(_FILL, array(ids))
    found = dict(zip(("insert cpu", "insert wall"), _measured(insert), strict=True))
    found |= zip(("chunk cpu", "chunk wall"), _measured(chunks), strict=True)
    connection.close()
    return found


def main() -> None:
    """Prints the medians of both drivers, in microseconds a job, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="of a database with DJPS's schema, such as that of a running stack")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    makers = {"psycopg2": _of_psycopg2, "psycopg 3": _of_psycopg3}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in makers}
    for _ in range(asked.rounds):
        for name, make in makers.items():
            seen[name].append(_round(make, asked.url))
    print(f"{'us a job':12} {'psycopg2':>10} {'psycopg 3':>10} {'ratio':>6}")
    for what in seen["psycopg2"][0]:
        old, new = (statistics.median(one[what] for one in seen[name]) for name in makers)
        print(f"{what:12} {old:10.1f} {new:10.1f} {new / old:6.2f}")


if __name__ == "__main__":
    main()
