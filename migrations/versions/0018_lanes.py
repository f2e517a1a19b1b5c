"""Limits of queues, tasks and keys: jobs under a limit lie in lanes, and `djps_take` is the one place where they are claimed.

Only adds. A job without a lane pays for none of it: the columns are NULL, and every index leaves it out.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_WHILE_QUEUED = sa.text("status = 'queued' AND lane IS NOT NULL")
_WHILE_PROCESSING = sa.text("status = 'processing' AND lane IS NOT NULL")
#: Name, columns, predicate of the indexes of `jobs_living`.
INDEXES = (
    ("jobs_lane_heads", ["lane", "task", sa.text("priority DESC"), "run_at", "id"], _WHILE_QUEUED),
    ("jobs_lane_holders", ["lane", "worker_id"], _WHILE_PROCESSING),
    ("jobs_queue_holders", ["queue", "worker_id"], _WHILE_PROCESSING),
    ("jobs_task_holders", ["task", "worker_id"], _WHILE_PROCESSING),
)


def _rate(prefix: str = "") -> list[sa.Column]:
    return [
        sa.Column(f"{prefix}rate_limit", sa.Integer()),
        sa.Column(f"{prefix}rate_per", sa.Double()),
        sa.Column(f"{prefix}rate_burst", sa.Integer()),
    ]


def _flag(name: str) -> sa.Column:
    return sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)


def _standing() -> list[sa.Column]:
    """When the rate allows the next start, whether there are limits, and whether there may be jobs in lanes."""
    next_start = sa.Column("next_start", sa.Double(), server_default="0", nullable=False)
    return [next_start, _flag("is_limited"), _flag("has_lanes")]


def upgrade() -> None:
    """Applies this change."""
    op.add_column("jobs", sa.Column("lane", sa.BigInteger()))
    for column in (
        sa.Column("concurrency", sa.Integer()),
        *_rate(),
        sa.Column("key_concurrency", sa.Integer()),
        *_rate("key_"),
        _flag("fair"),
        *_standing(),
    ):
        op.add_column("queues", column)
    for column in (
        sa.Column("concurrency", sa.Integer()),
        *_rate(),
        *_standing(),
    ):
        op.add_column("task_limits", column)
    op.execute("""
        CREATE TABLE key_limits (
            queue text NOT NULL, key text NOT NULL, PRIMARY KEY (queue, key),
            paused_at timestamptz, paused_by text, paused_why text,
            concurrency int, weight float8 NOT NULL DEFAULT 1,
            version bigint NOT NULL DEFAULT 0, updated_at timestamptz NOT NULL DEFAULT now())""")
    op.execute("""
        CREATE TABLE lanes (
            lane bigint NOT NULL, task text NOT NULL, PRIMARY KEY (lane, task),
            queue text NOT NULL, key text NOT NULL,
            state text NOT NULL CHECK (state IN ('ready', 'timed', 'full', 'paused', 'idle')),
            turn float8 NOT NULL, ready_at timestamptz, timeout float8 NOT NULL,
            weight float8 NOT NULL DEFAULT 1, concurrency int)
        WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
              autovacuum_vacuum_cost_delay = 1)""")
    op.execute("CREATE INDEX lanes_ready ON lanes (queue, task, turn, lane) WHERE state = 'ready'")
    op.execute("CREATE INDEX lanes_timed ON lanes (queue, ready_at) WHERE state = 'timed'")
    op.execute("CREATE INDEX lanes_full ON lanes (queue, lane) WHERE state = 'full'")
    op.execute("CREATE INDEX lanes_idle ON lanes (queue, turn) WHERE state = 'idle'")
    op.execute("CREATE INDEX lanes_of_task ON lanes (task, queue)")
    op.execute("""
        CREATE TABLE lane_turns (queue text NOT NULL, task text NOT NULL, PRIMARY KEY (queue, task), turn float8 NOT NULL DEFAULT 0)""")
    op.execute("CREATE TABLE lane_rates (lane bigint PRIMARY KEY, next_start float8 NOT NULL)")
    op.execute("""
        CREATE TABLE lane_wakeups (queue text NOT NULL, lane bigint NOT NULL, task text NOT NULL, key text NOT NULL,
                                   timeout float8 NOT NULL)
        WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)""")
    op.execute("CREATE INDEX lane_wakeups_by_queue ON lane_wakeups (queue)")
    op.execute("""
        CREATE FUNCTION djps_lane(queue text, key text) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN
            ('x' || encode(substring(sha256(convert_to(queue || E'\\x1f' || coalesce(key, ''), 'UTF8')) FOR 8), 'hex'))::bit(64)::bigint""")
    with op.get_context().autocommit_block():
        for name, columns, while_ in INDEXES:
            op.create_index(
                name,
                "jobs_living",
                columns,
                postgresql_where=while_,
                postgresql_concurrently=True,
                if_not_exists=True,
            )


#: Columns that queues and tasks get.
_OF_ALL = ("concurrency", "rate_limit", "rate_per", "rate_burst", "next_start", "is_limited", "has_lanes")


def downgrade() -> None:
    """Takes this change back: jobs that wait in lanes are left to the dispatcher."""
    op.execute("UPDATE jobs_living SET dispatched_at = NULL WHERE status = 'queued' AND lane IS NOT NULL")
    for name, _, _ in INDEXES:
        op.drop_index(name, "jobs_living")
    op.execute("DROP FUNCTION djps_lane")
    for table in ("lane_wakeups", "lane_rates", "lane_turns", "lanes", "key_limits"):
        op.drop_table(table)
    for table, columns in (
        ("task_limits", _OF_ALL),
        ("queues", (*_OF_ALL, "key_concurrency", "key_rate_limit", "key_rate_per", "key_rate_burst", "fair")),
        ("jobs", ("lane",)),
    ):
        for column in columns:
            op.drop_column(table, column)
