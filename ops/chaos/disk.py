"""A small disk that can be filled: a tmpfs at one folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

#: The folders of a system that can have a disk of their own, and its size.
DISKS = {"data": ("", "256m"), "run": ("run", "256k")}
#: What is written at once to fill it, bytes; at last in small pieces, so that no line fits in any more.
PIECES = (1 << 16, 16)


class NotAllowed(Exception):
    """No disk can be mounted here; the message says why."""


def mount(folder: Path, name: str) -> Path:
    """Gives a system's folder a small disk; returns where it is.

    Args:
        folder: the system's.
        name: a key of `DISKS`.

    Raises:
        NotAllowed: this user, or this container, may not mount.
    """
    below, size = DISKS[name]
    place = folder / below
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    if done.returncode != 0:
        raise NotAllowed(
            f"a disk that can be filled is a tmpfs, which only root may mount ({done.stderr.strip()})"
        )
    return place


def unmount(place: Path) -> None:
    """Takes it away again, also from those that still have a file open there."""
    subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


def fill(place: Path) -> Path:
    """Takes every free byte; returns the file that holds them."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in PIECES:
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue
    return filler
