"""What the statements about lanes read of a backlog that lies beside the lanes, or in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from webapp.flow import key_store, lanes
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.engine import BY_INDEX

#: Jobs that wait beside the lanes, lanes that are known, and jobs in each.
BESIDE, LANES, IN_EACH = 60_000, 40, 25
#: Most rows of the jobs that live that a statement may look at: what it files or takes out at once, and a little of each lane.
MOST = 200 + LANES * IN_EACH
_FILL = text("""
    INSERT INTO jobs (id, task, payload, queue, key, lane, max_retries, timeout, fingerprint, status, dispatched_at)
    SELECT uuidv7(), 'noop', '{}', 'default', key, djps_lane('default', key), 3, 60, '', 'queued', at
      FROM (SELECT CASE WHEN n > :in_lanes THEN NULL ELSE 'k' || n % :lanes END AS key,
                   CASE WHEN n <= :in_lanes THEN CAST('infinity' AS timestamptz) END AS at
              FROM generate_series(1, :many) AS n) AS numbered""")
_BESIDE = text("UPDATE jobs_living SET lane = NULL WHERE key IS NULL")
_ANALYZE = "ANALYZE jobs; ANALYZE lanes; ANALYZE lane_wakeups; ANALYZE queues; ANALYZE task_limits"
VALUES = {
    "queue": "default", "tasks": ["noop"], "queues": ["default"], "limited_tasks": [], "limit": 100, "within": 1.0,
    "longest_submission": 0.0, "lanes": [1], "by_running": False, "most": 100,
}  # fmt: skip
STATEMENTS = {
    name: getattr(lanes, name)
    for name in (
        *("_LOOK", "_FILE_WAITING", "_FILE_SENT", "_FILE_RUNNING", "_CALL", "_LEAVE_RUNNING", "_LEAVE"),
        *("_CALL_AFTER", "_NOTE_ALL_LEFT", "_NOTE_TASKS_LEFT", "_NEXT_START"),
    )
} | {"ranked keys": key_store._RANKED.by(EVERYTHING)}


def looked_at(node: dict[str, Any]) -> float:
    """Rows of the jobs that live at which a plan has looked."""
    found = 0.0
    if node.get("Relation Name") == "jobs_living" and node["Node Type"] != "ModifyTable":
        removed = sum(node.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Index Recheck"))
        found = (node["Actual Rows"] + removed) * node["Actual Loops"]
    return found + sum(looked_at(below) for below in node.get("Plans", ()))


@pytest.mark.parametrize("known", ["full", "empty"])
def test_statements_about_lanes_read_no_backlog(engine, known):
    with engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for one in BY_INDEX:
            connection.exec_driver_sql(f"SET LOCAL {one} = off")
        connection.exec_driver_sql(
            "INSERT INTO queues (name) VALUES ('default'); INSERT INTO task_limits (task) VALUES ('noop')"
        )
        connection.exec_driver_sql(_ANALYZE)
        connection.execute(_FILL, {"many": BESIDE, "in_lanes": LANES * IN_EACH, "lanes": LANES})
        connection.execute(_BESIDE)
        connection.exec_driver_sql("DELETE FROM lane_wakeups WHERE key = ''")
        connection.exec_driver_sql("SELECT djps_wake_lanes('default', '', NULL, clock_timestamp())")
        if known == "full":
            connection.exec_driver_sql(_ANALYZE)
        found = {}
        for name, statement in STATEMENTS.items():
            with connection.begin_nested() as savepoint:
                explained = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}")
                plan: Any = connection.execute(explained, VALUES).scalar_one()
                savepoint.rollback()
            found[name] = looked_at((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        transaction.rollback()
    assert {name: rows for name, rows in found.items() if rows > MOST} == {}
