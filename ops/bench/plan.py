"""The plan of a run: how much of everything is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and durations.

    Args:
        rounds: how often every system is measured.
        budget: seconds after which nothing new is begun.
        clients: keep-alive connections of the POST measurements.
        post_seconds: how long each of them takes.
        bulk_jobs: jobs sent in bulk.
        backlog_jobs: quick jobs that wait when our worker starts.
        single_jobs: the same with one id to a message.
        window: longest time any backlog is watched, seconds.
        idle_jobs: jobs sent one by one to an idle system.
        together_seconds: how long the sustained stream takes.
        peer_share: part of a peer's usual number of jobs.
        variants: how peers are run, as far as they can be.
        sizes: rows in the table of the size scenario.
        repetitions: how often each statement is timed at each size.
    """

    rounds: int
    budget: float
    clients: tuple[int, ...]
    post_seconds: float
    bulk_jobs: int
    backlog_jobs: int
    single_jobs: int
    window: float
    idle_jobs: int
    together_seconds: float
    peer_share: float
    variants: tuple[str, ...]
    sizes: tuple[int, ...]
    repetitions: int


#: Three rounds; as long as it takes.
FULL = Plan(
    rounds=3,
    budget=6 * 3600,
    clients=(1, 16, 64),
    post_seconds=6.0,
    bulk_jobs=100_000,
    backlog_jobs=60_000,
    single_jobs=10_000,
    window=20.0,
    idle_jobs=200,
    together_seconds=10.0,
    peer_share=1.0,
    variants=("default", "tuned", "tuned_pair"),
    sizes=(1_000, 10_000, 100_000, 1_000_000),
    repetitions=60,
)

#: One round that ends within two minutes, where the packages are installed.
QUICK = Plan(
    rounds=1,
    budget=98.0,
    clients=(1, 16, 64),
    post_seconds=1.2,
    bulk_jobs=60_000,
    backlog_jobs=30_000,
    single_jobs=3_000,
    window=6.0,
    idle_jobs=40,
    together_seconds=3.0,
    peer_share=0.3,
    variants=("tuned",),
    sizes=(1_000, 10_000),
    repetitions=20,
)
