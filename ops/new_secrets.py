"""`ops new secrets`: every password and key that the compose file asks for, made at random, as lines for `.env`.

They go to standard output, for a file. The admin key is in none of them but as a hash: it goes to standard error, once.
"""

from __future__ import annotations

import sys

from ops.stack import passwords
from webapp.access.secret import hash_of, new_key


def lines(admin: str, metrics: str) -> list[str]:
    """The lines of `.env`.

    Args:
        admin: the key with which others are made; only its hash is shown.
        metrics: the key with which Prometheus reads.
    """
    return [
        "# Made by `python3 -m ops new secrets`: keep it to yourself, and out of the repository.",
        *(f"{name}_PASSWORD={passwords.new()}" for name in ("POSTGRES", "REDIS", "GRAFANA")),
        f"FLOWER_BASIC_AUTH=djps:{passwords.new()}",
        f"BOOTSTRAP_KEY_SHA256={hash_of(admin).hex()}",
        f"METRICS_KEY_SHA256={hash_of(metrics).hex()}",
        f"METRICS_KEY={metrics}",
    ]


def write() -> None:
    """Prints what is made."""
    admin = new_key()
    print("\n".join(lines(admin, new_key())))
    print(f"the admin key, which is shown this once: {admin}", file=sys.stderr)
