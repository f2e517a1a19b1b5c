"""Mutants of the functions in the database that judge limits: a piece of their text is taken for another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class _Edit(NamedTuple):
    """A piece of a function's text, and what stands there in the mutant."""

    function: str
    old: str
    new: str


#: By the name of the mutant.
EDITS: dict[str, tuple[_Edit, ...]] = {
    # The holders are counted, and then jobs are claimed, by as many at once as like to.
    "no-gate": (_Edit("djps_take", "FOR NO KEY UPDATE", ""),),
    # A rate is paid for first attempts only.
    "free-retries": (
        _Edit(
            "djps_take",
            "+ taken * q.rate_per",
            "+ (SELECT count(*) FROM jobs_living WHERE status = 'processing' AND lane IS NOT NULL AND worker_id = p_worker"
            " AND last_attempt_at = moment AND attempt = 1) * q.rate_per",
        ),
    ),
    # A lane stays where it is, whatever it had.
    "no-turns": (
        _Edit(
            "djps_take",
            "turn = lanes.turn + served.jobs / lanes.weight",
            "turn = lanes.turn",
        ),
    ),
    # What was begun and waits for its next try lets those after it pass.
    "no-order": (
        _Edit(
            "djps_first_in_order",
            "AND lane IS NOT NULL AND attempt > coalesce(attempts_before, 0)",
            "AND false",
        ),
    ),
    # That a lane is ready, which it is again with each job that comes, is taken for its key being free.
    "any-key": (
        _Edit(
            "djps_take",
            ">= coalesce(concurrency, q.key_concurrency), false) AS is_full",
            ">= NULL, false) AS is_full",
        ),
        _Edit("djps_take", "WHEN served.is_full\n", "WHEN NOT served.is_empty AND served.is_full\n"),
        _Edit("djps_take", "OR served.jobs > 0 AND", "OR NOT served.is_empty AND served.jobs > 0 AND"),
    ),
}


def install(rows: Callable[..., list[tuple[Any, ...]]], name: str) -> None:
    """Puts a mutant's functions in the place of the product's, where it is one of these.

    Args:
        rows: runs a statement.
        name: of the mutant; any other name changes nothing.

    Raises:
        RuntimeError: the text to be replaced is not there.
    """
    for edit in EDITS.get(name, ()):
        ((text,),) = rows("SELECT pg_get_functiondef(%s::regproc)", edit.function)
        if edit.old not in text:
            raise RuntimeError(f"{edit.old} was not found in {edit.function}, so it was not replaced")
        rows(text.replace(edit.old, edit.new))
