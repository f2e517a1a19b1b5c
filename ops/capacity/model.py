"""How long jobs wait, and what is needed so that they do not: M/G/c with measured costs. Pure.

Jobs arrive at random (Poisson), run for a time of any distribution, and c children take them first come, first
served. The mean wait is Allen and Cunneen's, Erlang's C for the chance of waiting and (1 + variability ** 2) / 2 for
the spread of run times; the tail of the wait is taken as exponential, which errs on the long side for
run times that hardly vary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ops.capacity.costs import Costs

#: A share of a processor that is planned with; above it waits grow faster than work.
BUSY = 0.7
SECONDS_A_DAY = 86_400
#: No plan has more children than this.
MOST_CHILDREN = 100_000
#: Connections an API process opens beyond its threads: the pool's overflow, and the one that listens.
API_EXTRA = 3
#: Connections that a worker's parent opens, one at a time.
PARENT_CONNECTIONS = 1
#: Most connections a child opens: one that is kept, and two for a chunk's timer and a settle beside it.
CHILD_PEAK = 3


#: What the figures of a load are above and below.
BOUNDS = {
    "rate": (0, 1e6),
    "run_seconds": (0, 86_400),
    "objective_seconds": (0, 86_400),
    "objective_share": (0, 1),
    "database_cores": (0, 1024),
    "kept_days": (0, 36_500),
}
#: Most that run times may vary, standard deviation over mean.
MOST_VARIABILITY = 100.0


class LoadError(ValueError):
    """A figure of the load breaks its rule."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be carried.

    Args:
        rate: jobs a second, on average over the busiest minutes.
        run_seconds: how long a handler runs on average.
        variability: standard deviation of the run time over its mean: 0 always the same, 1 exponential.
        objective_seconds: a job must start within this...
        objective_share: ...in this share of cases.
        database_cores: processors that PostgreSQL has to itself.
        kept_days: how long finished jobs are kept, `RETENTION_DAYS`.
    """

    rate: float
    run_seconds: float
    variability: float = 1.0
    objective_seconds: float = 5.0
    objective_share: float = 0.99
    database_cores: float = 2.0
    kept_days: float = 30.0

    def __post_init__(self) -> None:
        """Checks every figure.

        Raises:
            LoadError: one breaks its rule.
        """
        for name, (low, high) in BOUNDS.items():
            given = getattr(self, name)
            if not low < given < high:
                raise LoadError(f"{name} must be above {low:g} and below {high:g} (given: {given:g})")
        if not 0 <= self.variability <= MOST_VARIABILITY:
            raise LoadError(f"variability must be 0 to {MOST_VARIABILITY:g} (given: {self.variability:g})")


@dataclass(frozen=True, slots=True)
class Waits:
    """How busy some children are, and how long jobs wait for them; seconds, infinite when there are too few.

    Args:
        utilisation: share of the children's time that is taken, 1 and above: the backlog grows.
    """

    children: int
    utilisation: float
    mean: float
    p50: float
    p99: float
    within_objective: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What carries a load, and where its end is.

    Args:
        worker_processes: workers (parents), because one parent hands out a limited number of messages.
        database_share: how busy PostgreSQL's processors are, 1: all of them.
        database_cores: processors that PostgreSQL needs, none busier than is planned with.
        application_cores: the same of API, workers and upkeep, without what handlers compute.
        memory_gib: of all processes but PostgreSQL and Redis, without what handlers keep.
        limit_rate: jobs a second at which PostgreSQL's processors are planned full.
        gib_a_day: growth of the tables before anything is pruned.
        rows_kept: finished jobs when the first day of them is dropped.
        gib_kept: what they take.
        wal_gib_a_day: what is written ahead in a day: of every archive and replica, too.
    """

    waits: Waits
    children_needed: int
    worker_processes: int
    api_processes: int
    database_share: float
    database_cores: float
    application_cores: float
    memory_gib: float
    commits_per_s: float
    wal_mib_per_s: float
    wal_gib_a_day: float
    gib_a_day: float
    rows_kept: float
    gib_kept: float
    limit_rate: float


def erlang_c(children: int, offered: float) -> float:
    """The share of jobs that find every child busy.

    Args:
        offered: children that would be busy if there were no end of them; below `children`.
    """
    if offered >= children:
        return 1.0
    # Erlang's B by its recursion, which stays within bounds where factorials do not.
    blocked = 1.0
    for count in range(1, children + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / children * (1 - blocked))


def waits(load: Load, costs: Costs, children: int) -> Waits:
    """How long jobs wait for a number of children."""
    held = load.run_seconds + costs.held_ms / 1000
    offered = load.rate * held
    utilisation = offered / children
    if utilisation >= 1:
        return Waits(children, utilisation, math.inf, math.inf, math.inf, 0.0)
    queued = erlang_c(children, offered)
    spread = (1 + _variability_held(load, held) ** 2) / 2
    # The mean wait of those that wait at all.
    scale = held / (children * (1 - utilisation)) * spread
    delivery = costs.delivery_ms / 1000

    def quantile(share: float) -> float:
        late = 1 - share
        return delivery + (scale * math.log(queued / late) if queued > late else 0.0)

    beyond = max(0.0, load.objective_seconds - delivery)
    within = 1 - queued * math.exp(-beyond / scale) if load.objective_seconds > delivery else 0.0
    return Waits(children, utilisation, delivery + queued * scale, quantile(0.5), quantile(0.99), within)


def _variability_held(load: Load, held: float) -> float:
    """The variability of the time a child is held: what DJPS adds is much the same for each job."""
    return load.variability * load.run_seconds / held


def children_needed(load: Load, costs: Costs) -> int:
    """The fewest children that reach the objective.

    Raises:
        LoadError: no number of children does, for delivery alone takes as long.
    """
    if costs.delivery_ms / 1000 >= load.objective_seconds:
        raise LoadError(f"jobs cannot start within less than the delivery's {costs.delivery_ms / 1000:g} s")
    least = math.floor(load.rate * (load.run_seconds + costs.held_ms / 1000)) + 1
    if least > MOST_CHILDREN:
        raise LoadError(f"rate times run time needs {least} children; a plan has {MOST_CHILDREN} at most")
    low, high = least, least
    while waits(load, costs, high).within_objective < load.objective_share:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        if waits(load, costs, middle).within_objective < load.objective_share:
            low = middle + 1
        else:
            high = middle
    return low


def plan(load: Load, costs: Costs, children: int | None = None) -> Plan:
    """What a load needs.

    Args:
        children: how many there are; as many as are needed when None.

    Raises:
        LoadError: it cannot be carried.
    """
    needed = children_needed(load, costs)
    children = children or needed
    workers, gunicorn = _processes(load.rate, costs.parent_ms), _processes(load.rate, costs.api_ms)
    a_day = load.rate * SECONDS_A_DAY
    # A day is dropped when its last job is old enough: its first one is kept a day longer.
    rows_kept = a_day * (load.kept_days + 1)
    memory_mib = (
        gunicorn * costs.api_mib + workers * costs.parent_mib + children * costs.child_mib + costs.upkeep_mib
    )
    return Plan(
        waits=waits(load, costs, children),
        children_needed=needed,
        worker_processes=workers,
        api_processes=gunicorn,
        database_share=load.rate * costs.database_ms / 1000 / load.database_cores,
        database_cores=load.rate * costs.database_ms / 1000 / BUSY,
        application_cores=load.rate
        * (costs.api_ms + costs.parent_ms + costs.child_ms + costs.upkeep_ms)
        / 1000
        / BUSY,
        memory_gib=memory_mib / 1024,
        commits_per_s=load.rate * costs.commits,
        wal_mib_per_s=load.rate * costs.wal_kib / 1024,
        wal_gib_a_day=a_day * costs.wal_kib / 1024**2,
        gib_a_day=a_day * costs.row_kib / 1024**2,
        rows_kept=rows_kept,
        gib_kept=rows_kept * costs.row_kib / 1024**2,
        limit_rate=BUSY * load.database_cores * 1000 / costs.database_ms,
    )


def _processes(rate: float, milliseconds: float) -> int:
    """Processes of one thread that runs Python, none of them busier than is planned with."""
    return max(1, math.ceil(rate * milliseconds / 1000 / BUSY))


def connections(
    *, api_processes: int, api_threads: int, workers: int, children: int, upkeep_children: int = 2
) -> tuple[int, int]:
    """Connections to PostgreSQL that a deployment keeps open when it is busy, and the most that it opens.

    Args:
        api_processes: gunicorn workers of all hosts.
        workers: worker processes of all hosts, with the maintenance workers.
        children: children of all workers that run jobs.
        upkeep_children: children of all maintenance workers.
    """
    all_children = children + upkeep_children
    kept = api_processes * (api_threads + 1) + all_children + workers * PARENT_CONNECTIONS
    most = (
        api_processes * (api_threads + API_EXTRA) + CHILD_PEAK * all_children + workers * PARENT_CONNECTIONS
    )
    return kept, most
