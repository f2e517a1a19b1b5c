"""The virtual environments of peers: made and filled on demand, apart from the project's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ops.bench import installation
from ops.bench.processes import MissingError
from ops.stack.venv import ROOT

HERE = Path(__file__).resolve().parent
#: Seconds a Python gets to say its version.
VERSION_PATIENCE = 20.0

REQUIREMENTS = {
    "peers": HERE / "requirements.txt",
    "oban": HERE / "requirements-oban.txt",
    "saq": HERE / "requirements-saq.txt",
}
#: Pythons that oban runs on, the one its requirements were resolved for first.
OBAN_PYTHONS = ("3.12", "3.13", "3.14")


def python(name: str, say: Callable[[str], None]) -> Path:
    """The Python of an environment, which is made and filled first when it is not there.

    Args:
        name: a key of `REQUIREMENTS`.
        say: shows progress.

    Raises:
        MissingError: there is no Python for it.
        BenchError: it cannot be made or filled.
    """
    folder = installation.HOME / f"venv-{name}"
    made = folder / "bin" / "python"
    marker = installation.Marker(folder, REQUIREMENTS[name])
    if marker.fits() and made.exists():
        return made
    base = interpreter(name)
    say(f"installing {REQUIREMENTS[name].name} into {folder.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    installation.HOME.mkdir(parents=True, exist_ok=True)
    uv = Path(sys.prefix) / "bin" / "uv"
    if uv.exists():
        steps = [
            [str(uv), "venv", "--quiet", "--python", str(base), str(folder)],
            [str(uv), "pip", "install", "--quiet", "--python", str(made), "-r", str(REQUIREMENTS[name])],
        ]
    else:
        steps = [
            [str(base), "-m", "venv", str(folder)],
            [str(made), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            + ["-r", str(REQUIREMENTS[name])],
        ]
    for step in steps:
        installation.step(step)
    marker.write()
    return made


def interpreter(name: str) -> Path:
    """The Python that an environment is made from.

    Raises:
        MissingError: there is none that is new enough.
    """
    if name != "oban":
        return Path(sys.executable)
    for version in OBAN_PYTHONS:
        candidates = [Path(found) for found in [shutil.which(f"python{version}")] if found]
        candidates += sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"))
        for candidate in candidates:
            if _is(candidate, version):
                return candidate
    raise MissingError(
        "oban needs Python 3.12 or newer, and there is none on PATH or under ~/.pyenv/versions"
    )


def _is(candidate: Path, version: str) -> bool:
    """True if a Python runs: a version manager's shim is there for versions that are switched off too."""
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [str(candidate), "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def pins(name: str) -> dict[str, str]:
    """The versions that an environment's requirements name."""
    found = {}
    for line in REQUIREMENTS[name].read_text().splitlines():
        package, separator, rest = line.partition("==")
        if separator and package[:1].isalnum():
            found[package.strip()] = rest.split()[0].rstrip(";\\")
    return found
