"""Has the claim from lanes find its jobs by their ids, whatever is known of the table. Only replaces a function.

It joins the jobs that it has chosen with the table. Where the statistics say that the table is empty, as after a burst, PostgreSQL takes a
look at every row of it for cheaper than a look at each of the chosen, and a claim reads the whole backlog until the next ANALYZE.
"""

from __future__ import annotations

from typing import Any

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_JOINED = "FROM head WHERE job.id = head_id"
#: One that PostgreSQL cannot merge by, so there is no reason to read the table in the order of its ids.
_BY_IDS = "FROM head WHERE job.id = ANY(ARRAY[head_id])"


def _before(revision: str) -> Any:
    return op.get_context().opts["script"].get_revision(revision).module


def _functions() -> list[str]:
    return _before("0023").functions(_before("0021"), _before("0019"))  # type: ignore[no-any-return] # a module of alembic's


def upgrade() -> None:
    """Applies this change."""
    (take,) = [function for function in _functions() if _JOINED in function]
    op.execute(take.replace(_JOINED, _BY_IDS))


def downgrade() -> None:
    """Takes this change back."""
    for function in _functions():
        op.execute(function)
