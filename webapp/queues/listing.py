"""Queues as those see them who run DJPS: how much waits and runs in each, and whether it is paused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from webapp.flow.model import FlowState
from webapp.flow.reach import Reach
from webapp.infra.postgres.engine import in_transaction
from webapp.queues import backlog
from webapp.queues.backlog import Depth, Depths


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue as it stands.

    Args:
        flow: whether it is paused.
        depth: what waits in it.
        running: jobs that workers hold.
    """

    flow: FlowState
    depth: Depth
    running: int


def queue_states(flows: Mapping[str, FlowState], found: Depths) -> list[QueueState]:
    """Every queue that is known, was ever changed, or has unfinished jobs, in the order of their names. Pure."""
    names = sorted({*flows, *found.queues, *found.processing})
    return [queue_state(flows.get(name, FlowState(name)), found) for name in names]


def queue_state(flow: FlowState, found: Depths) -> QueueState:
    """One queue, with nothing in it where nothing of it was found. Pure."""
    depth = found.queues.get(flow.name, Depth(0, 0, 0.0))
    return QueueState(flow, depth, found.processing.get(flow.name, 0))


def depths(engine: Engine, reach: Reach) -> Depths:
    """Unfinished jobs by queue, of those that are reached; counted in a bounded time."""

    def count(connection: Connection) -> Depths:
        backlog.bound(connection)
        return backlog.depths(connection, reach)

    return in_transaction(engine, count)
