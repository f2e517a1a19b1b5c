"""One process of each host writes every ten seconds by how much the host's counters grew; no job pays for it.

The counters are in files that all processes of a host share. Which process writes is decided by an fcntl lock in their folder, which the
kernel gives back with its process, however that dies; its successor goes on from the figures that are kept beside it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from prometheus_client.metrics_core import Metric
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.infra.background import Step, VitalThread
from webapp.infra.postgres import deadlines
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.infra.telemetry.counter_files import UNREADABLE
from webapp.system import samples
from webapp.system.figures import Figures, figures_of, grown

logger = logging.getLogger(__name__)

#: Seconds between two samples.
EVERY = 10.0
#: How long a sample may wait for PostgreSQL, seconds.
BUDGET = 1.0
LOCK, KEPT = "sampler.lock", "sampler.json"


def host_of(folder: Path) -> str:
    """The name of this host in samples; two installations on one host differ in the folder of their counters."""
    return f"{socket.gethostname()[:100]}:{zlib.crc32(str(folder.absolute()).encode()):08x}"


class Sampler:
    """Writes samples, where this process is the one that does.

    Args:
        engine: the database.
        folder: where the files of the counters are.
        counted: gives all counters and histograms.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path = metrics.FOLDER,
        counted: Callable[[], Iterable[Metric]] = lambda: metrics.Stored().collect(),
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._counted = counted
        self._lock: int | None = None
        self._pid = -1

    def turn(self) -> bool:
        """Writes a sample; False where another process does, nothing grew, or it cannot be: the next one has it all then."""
        try:
            return self._is_mine() and self._write()
        except (SQLAlchemyError, OSError, *UNREADABLE) as error:
            logger.warning("sample could not be written", extra={"error_type": type(error).__name__})
            return False

    def _write(self) -> bool:
        now = figures_of(self._counted())
        before = self._last()
        growth = {} if before is None else grown(before, now)
        if growth:
            with deadlines.within(BUDGET):
                in_transaction(self._engine, partial(samples.add, host=host_of(self._folder), given=growth))
        self._keep(now)
        return bool(growth)

    def start(self) -> None:
        """Takes samples in a thread of its own, for as long as the process lives."""
        step = Step("sample", self.turn)

        def go_on() -> None:
            while True:
                time.sleep(EVERY)
                step.turn(time.monotonic())

        VitalThread("sampler", go_on).start()

    def _is_mine(self) -> bool:
        """True if this process holds the lock, or can have it; an fcntl lock is not handed on to a fork."""
        if self._lock is not None and self._pid == os.getpid() and (self._folder / LOCK).exists():
            return True
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock, self._pid = lock, os.getpid()
        return True

    def _last(self) -> Figures | None:
        """The figures of the last sample, whichever process wrote it; None where there was none, so that nothing is known of a growth."""
        try:
            found = json.loads((self._folder / KEPT).read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _keep(self, now: Figures) -> None:
        draft = self._folder / f"{KEPT}.draft"
        draft.write_text(json.dumps(now))
        draft.rename(self._folder / KEPT)
