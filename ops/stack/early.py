"""What commands say before minutes are spent on installing packages. Standard library only."""

from __future__ import annotations

import os
import socket
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from ops.stack import bounds
from ops.stack.ports import PortInUse, require_free
from ops.stack.venv import ROOT, VENV

#: The ports of `up`, their defaults, and the setting that makes each superfluous.
PORTS = {
    "API_PORT": (8000, None),
    "FLOWER_PORT": (5555, None),
    "POSTGRES_PORT": (5432, "DATABASE_URL"),
    "REDIS_PORT": (6379, "REDIS_URL"),
    "HTTPBIN_PORT": (8099, "SIMULATED_JOB_URL"),
}
#: The servers that settings may name: the schemes of their URLs, and the ports where a URL says none.
SERVERS = {"DATABASE_URL": ("postgresql", 5432), "REDIS_URL": ("redis", 6379)}
#: How these may begin.
SCHEMES = {"DATABASE_URL": ("postgresql", "postgres"), "REDIS_URL": ("redis", "rediss", "unix")}
#: Seconds a server may take to accept a connection.
CONNECT_TIMEOUT = 3.0


def refusal(environment: Mapping[str, str] = os.environ) -> str | None:
    """A sentence about what `up` cannot work with, as far as can be seen without a package; None when nothing is found.

    What cannot be read is left to the settings, which say so later.
    """
    given = {**_file(environment.get("DJPS_ENV_FILE", ".env")), **environment}
    return bounds.breach(given) or _handlers_missing(given) or _port_in_use(given) or _server_away(given)


def nothing_runs(environment: Mapping[str, str] = os.environ) -> bool:
    """True if nothing was ever started here and no server is named, so that there is nothing to look at."""
    given = {**_file(environment.get("DJPS_ENV_FILE", ".env")), **environment}
    return not (
        VENV.exists()
        or (ROOT / given.get("DJPS_DATA_DIR", ".djps")).exists()
        or any(name in given for name in SERVERS)
    )


def _port_in_use(given: Mapping[str, str]) -> str | None:
    for name, (default, superfluous) in PORTS.items():
        number = given.get(name, str(default)).strip()
        if superfluous in given or not number.isdecimal() or not 0 < int(number) < 2**16:
            continue
        try:
            require_free(int(number), name)
        except PortInUse as error:
            return str(error)
    return None


def _server_away(given: Mapping[str, str]) -> str | None:
    for name, (scheme, usual) in SERVERS.items():
        try:
            url = urllib.parse.urlsplit(given.get(name, ""))
            host, port = url.hostname, url.port or usual
        except ValueError:
            continue
        if name in given and not url.scheme.startswith(SCHEMES[name]):
            return f"{name}: must begin with {scheme}:// (given: a URL that is not shown)"
        if host is None or "," in url.netloc:
            continue
        try:
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
        except OSError as error:
            return f"nothing answers at {host}:{port}; check {name} ({error.strerror or error})"
    return None


def _handlers_missing(given: Mapping[str, str]) -> str | None:
    """A module of HANDLERS that is nowhere, or is no Python. One that is installed cannot be, where nothing is."""
    folders = [ROOT, *(Path(entry) for entry in given.get("PYTHONPATH", "").split(os.pathsep) if entry)]
    for module in filter(None, map(str.strip, given.get("HANDLERS", "").split(","))):
        path = module.replace(".", "/")
        found = [folder / name for folder in folders for name in (f"{path}.py", f"{path}/__init__.py")]
        file = next((one for one in found if one.is_file()), None)
        if file is None:
            top = module.partition(".")[0]
            if VENV.exists() or any((folder / top).is_dir() for folder in folders):
                continue
            return f"HANDLERS: there is no module {module!r} in {ROOT} or on PYTHONPATH"
        try:
            compile(file.read_bytes(), str(file), "exec")
        except (SyntaxError, ValueError) as error:
            return f"HANDLERS: {file} is no Python: {error}"
    return None


def _file(name: str) -> dict[str, str]:
    """The variables of an env file, as far as plain lines go."""
    try:
        lines = Path(name).read_text().splitlines() if name else []
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in map(str.strip, lines))
    return {
        key.strip(): value.strip().strip("'\"") for key, equals, value in pairs if equals and key[:1] != "#"
    }
