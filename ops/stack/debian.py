"""Programs of Debian that only tests and trials need: installed when this is root on a Debian, asked for otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

#: Where Debian puts what administrators run; not on everyone's PATH.
ADMINISTRATORS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
#: Longest one call of apt-get may take, seconds.
INSTALL_PATIENCE = 180


class ProgramMissing(Exception):
    """A program is not there and cannot be installed; the message says what to do."""


def program(name: str, package: str) -> Path:
    """Where a program is; installs its package first when it is missing, this is root, and there is apt-get.

    Args:
        name: the program, such as `ip`.
        package: the Debian package that has it.

    Raises:
        ProgramMissing: it is not there, and could not be installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *ADMINISTRATORS])
    found = shutil.which(name, path=path)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(package)
        found = shutil.which(name, path=path)
    if found is None:
        raise ProgramMissing(f"{name} is not here; as root: apt-get install {package}")
    return Path(found)


def _install(package: str) -> None:
    # At run level 1 a package starts no service when it is installed.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for words in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", package]):
        done = subprocess.run(
            ["apt-get", *words],
            env=quiet,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_PATIENCE,
        )
        if done.returncode != 0:
            raise ProgramMissing(f"apt-get install {package} failed: {done.stderr.strip()[-300:]}")
