"""Progress and record of a run: what was measured, what failed, and a line for each as it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ops.bench.figures import Round
from ops.bench.processes import MissingError


@dataclass(slots=True)
class Record:
    """What a run found so far.

    Args:
        budget: seconds after which nothing new is begun.
    """

    budget: float
    rounds: list[Round] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        """Shows one line of progress."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {line}", flush=True)

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[bool]:
        """One step of a run: what it raises is noted as its failure, and the run goes on.

        Yields:
            Whether there is time left for it.
        """
        if time.monotonic() - self.began > self.budget:
            self.failures.setdefault(name, "skipped: no time left")
            yield False
            return
        self.say(what)
        try:
            yield True
        except MissingError as missing:
            self.failures[name] = f"skipped: {missing}"
            self.say(f"{name} {self.failures[name]}")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one system, the others are measured
            self.failures[name] = f"failed: {' '.join(f'{type(error).__name__}: {error}'.split())[:500]}"
            self.say(f"{name} {self.failures[name]}")
