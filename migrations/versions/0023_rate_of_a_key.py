"""A rate of a single key, and the jobs that unique keys name by an index. Only adds: a key without a rate of its own goes by its queue's.

`djps_take` reads a lane's own rate beside its concurrency, and `djps_wake_lanes` gives a new lane that of its key. What has changed in the
two functions is here; all else is as in 0021 and 0019.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

CONTRACT = "drops only what an interrupted run of this migration left behind: an index that nothing can use"

#: Tables of keys and their lanes: both know the rate, as both know the concurrency.
TABLES = ("key_limits", "lanes")
RATE = {"rate_limit": sa.Integer, "rate_per": sa.Double, "rate_burst": sa.Integer}

#: What stood in the claim, and what stands there now.
_IN_CLAIM = (
    (
        """is_full, CASE WHEN is_full THEN 0 WHEN apart IS NULL THEN share
           ELSE greatest(0, least(share, floor((seconds - paid_until) / apart + burst + 1e-9)::int)) END AS share{ahead}""",
        """is_full, CASE WHEN is_full THEN 0 WHEN ready.apart IS NULL THEN share
           ELSE greatest(0, least(share, floor((seconds - paid_until) / ready.apart + ready.burst + 1e-9)::int)) END AS share,
           ready.apart, ready.burst{ahead}""",
    ),
    (
        """{is_full} AS is_full{its_ahead}
              FROM (SELECT lane, weight, turn, concurrency FROM lanes""",
        """{is_full} AS is_full,
                   coalesce(rate_per, q.key_rate_per) AS per, coalesce(rate_per / rate_limit, apart) AS apart,
                   CASE WHEN rate_limit IS NULL THEN burst ELSE coalesce(rate_burst, greatest(1, rate_limit / 40)) END AS burst{its_ahead}
              FROM (SELECT lane, weight, turn, concurrency, rate_limit, rate_per, rate_burst FROM lanes""",
    ),
    ("SELECT djps_paid_until(q.key_rate_per, coalesce((", "SELECT djps_paid_until(ready.per, coalesce(("),
    ("WHERE apart IS NOT NULL) AS rate ON true)", "WHERE ready.apart IS NOT NULL) AS rate ON true)"),
    (
        "(count(head_id) + 1 - burst) * apart AS free_at, first.paid_until{ahead}",
        "(count(head_id) + 1 - first.burst) * first.apart AS free_at, first.paid_until, first.apart{ahead}",
    ),
    (
        "first.paid_until, last_place, is_all{ahead}",
        "first.paid_until, first.apart, first.burst, last_place, is_all{ahead}",
    ),
    (
        "served.paid_until + served.jobs * apart FROM served WHERE apart IS NOT NULL",
        "served.paid_until + served.jobs * served.apart FROM served WHERE served.apart IS NOT NULL",
    ),
)
#: The same of what wakes lanes.
_IN_WAKING = (
    (
        "turn, timeout, weight, concurrency)",
        "turn, timeout, weight, concurrency, rate_limit, rate_per, rate_burst)",
    ),
    (
        "coalesce(limits.weight, 1), limits.concurrency",
        "coalesce(limits.weight, 1), limits.concurrency, limits.rate_limit, limits.rate_per, limits.rate_burst",
    ),
)


def _changed(text: str, changes: tuple[tuple[str, str], ...]) -> str:
    """A text with its changes, each of which is in one place."""
    for before, now in changes:
        if text.count(before) != 1:
            raise ValueError(f"this is in {text.count(before)} places: {before}")
        text = text.replace(before, now)
    return text


def _before(revision: str) -> Any:
    return op.get_context().opts["script"].get_revision(revision).module


def functions(take: Any, waking: Any) -> list[str]:
    """What makes both functions.

    Args:
        take: the migration 0021.
        waking: the migration 0019.
    """
    # ruff: noqa: SLF001 - the texts of the migrations before
    return [
        _replacing(_changed(waking._WAKE_LANES, _IN_WAKING)),
        take._take(_changed(take._CLAIM, _IN_CLAIM)),
    ]


def _replacing(function: str) -> str:
    return function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


def upgrade() -> None:
    """Applies this change; may be run again after it was interrupted."""
    for table in TABLES:
        for name, kind in RATE.items():
            op.add_column(table, sa.Column(name, kind()), if_not_exists=True)
    for function in functions(_before("0021"), _before("0019")):
        op.execute(function)
    with op.get_context().autocommit_block():
        op.drop_index("unique_keys_by_job", "unique_keys", if_exists=True, postgresql_concurrently=True)
        op.create_index("unique_keys_by_job", "unique_keys", ["job_id"], postgresql_concurrently=True)


def downgrade() -> None:
    """Takes this change back: keys have the rates of their queues."""
    op.drop_index("unique_keys_by_job", "unique_keys")
    op.execute(_replacing(_before("0019")._WAKE_LANES))
    op.execute(_before("0021")._take())
    for table in TABLES:
        for name in RATE:
            op.drop_column(table, name)
