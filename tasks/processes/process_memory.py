"""How much memory a process and its children take, as the kernel adds it up.

A worker and its children share most of their pages, so the sizes that `ps` shows (RSS) would count them once for each process.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

#: Where Linux shows processes.
PROC = Path("/proc")
_SHARE = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


def of_family(pid: int, proc: Path = PROC) -> int:
    """What a process and its children take, bytes: pages that several have count in shares, so the sum is true.

    Args:
        proc: where the kernel shows processes. What it does not show, or what has ended, takes nothing.
    """
    return sum(of_one(one, proc) for one in (pid, *children_of(pid, proc)))


def of_one(pid: int, proc: Path = PROC) -> int:
    """What one process takes, bytes; 0 where the kernel does not say."""
    with suppress(OSError):
        found = _SHARE.search((proc / str(pid) / "smaps_rollup").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


def children_of(pid: int, proc: Path = PROC) -> list[int]:
    """The children of a process, whichever of its threads has made them.

    Args:
        proc: where the kernel shows processes.
    """
    found: list[int] = []
    with suppress(OSError):
        for thread in (proc / str(pid) / "task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found
