"""A pytest plugin: the fixture `djps` is DJPS without workers, over a throwaway PostgreSQL and Valkey.

In a `conftest.py`: `pytest_plugins = ["tasks.testing.plugin"]`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tasks.testing.platform import Platform

#: Where the metrics of a test's process go: never into the folder of a stack that runs.
_METRICS = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Chooses a folder for metrics before anything that counts is imported."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="djps-metrics-")
        config.stash[_METRICS] = folder
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder.name


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes it again."""
    if (folder := config.stash.get(_METRICS, None)) is not None:
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        folder.cleanup()


@pytest.fixture(scope="session")
def djps_platform() -> Iterator[Platform]:
    """DJPS without workers, with servers that are gone after the run; one for all tests, made for the first that asks."""
    # Both need much that a run without this fixture does not.
    from ops.stack.throwaway import Throwaway  # noqa: PLC0415 - see above
    from tasks.testing import platform  # noqa: PLC0415 - see above

    with Throwaway(durable=False) as servers:
        made = platform.made(servers.database_url, servers.redis_url)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def djps(djps_platform: Platform) -> Platform:
    """DJPS without workers and without a job."""
    djps_platform.empty()
    return djps_platform
