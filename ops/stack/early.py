"""What `up` says before minutes are spent on installing packages. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ops.stack.ports import PortInUse, require_free

#: The ports of `up`, their defaults, and the setting that makes each superfluous.
PORTS = {
    "API_PORT": (8000, None),
    "FLOWER_PORT": (5555, None),
    "POSTGRES_PORT": (5432, "DATABASE_URL"),
    "REDIS_PORT": (6379, "REDIS_URL"),
    "HTTPBIN_PORT": (8099, "SIMULATED_JOB_URL"),
}


def port_in_use(environment: Mapping[str, str] = os.environ) -> str | None:
    """A sentence about a port that `up` needs and something else has; None when there is none.

    A port that cannot be read is left to the settings, which say so later.
    """
    given = {**_file(environment.get("DJPS_ENV_FILE", ".env")), **environment}
    for name, (default, superfluous) in PORTS.items():
        number = given.get(name, str(default)).strip()
        if superfluous in given or not number.isdecimal() or not 0 < int(number) < 2**16:
            continue
        try:
            require_free(int(number), name)
        except PortInUse as error:
            return str(error)
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
