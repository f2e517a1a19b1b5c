"""Is a process of the stack ready, and if it never will be: what did it say last?"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import requests
from redis import Redis
from redis.exceptions import RedisError

from ops.stack import addresses, passwords, postgres, valkey
from ops.stack.ports import LOOPBACK
from ops.stack.supervisor import LIVE
from tasks import liveness
from webapp.settings import Settings

#: Seconds one look may take.
LOOK_TIMEOUT = 2.0
#: Deaths after which a process is taken for one that does not start: the first may come of a passing cause.
TOO_MANY_DEATHS = 2
#: States of a process that was not started, or is to end.
NOT_STARTED = ("STOPPED", "STOPPING")
#: How much of a log's end is read for its last words, bytes.
TAIL = 64 * 1024
#: Longest that last words are shown, characters.
LONGEST_WORDS = 300
#: What a line that tells of an error has in it.
_ERROR = re.compile(r"FATAL|PANIC|CRITICAL|ERROR|Error\b|error:|djps: |No space left|Bad file format")


def unready(name: str, settings: Settings, data: Path) -> str | None:
    """Why a process is not ready, in a few words; None when it is.

    Args:
        name: as `processes` names it.
        settings: with the ports of this stack.
    """
    try:
        _LOOKS.get(name, lambda *_: None)(settings, data, name)
    except (requests.RequestException, RedisError, psycopg2.Error, OSError, _NotYet) as error:
        return " ".join(str(error).split())[:LONGEST_WORDS] or type(error).__name__
    return None


class _NotYet(Exception):
    """It is not ready; the message says what is missing."""


def _answers(path: str, url: str) -> Callable[..., None]:
    def look(settings: Settings, *_: object) -> None:
        try:
            answer = requests.get(addresses.of(settings)[url] + path, timeout=LOOK_TIMEOUT)
        except requests.RequestException as error:
            raise _NotYet(f"no answer ({type(error).__name__})") from None
        if answer.status_code != requests.codes.ok:
            raise _NotYet(f"{path} answers {answer.status_code}: {answer.text.strip()[:LONGEST_WORDS]}")

    return look


def _postgres(settings: Settings, data: Path, _name: str) -> None:
    postgres.connect(settings.postgres_port, passwords.kept(data, "postgres")).close()


def _redis(settings: Settings, data: Path, _name: str) -> None:
    address = valkey.url(settings.redis_port, passwords.kept(data, "redis"))
    with Redis.from_url(address, socket_timeout=LOOK_TIMEOUT) as client:
        client.ping()


def _httpbin(settings: Settings, *_: object) -> None:
    socket.create_connection((LOOPBACK, settings.httpbin_port), LOOK_TIMEOUT).close()


def _says_so(_settings: Settings, data: Path, name: str) -> None:
    well, sentence = liveness.look(data, name, ready=True)
    if not well:
        raise _NotYet(sentence)


_LOOKS: dict[str, Callable[..., None]] = {
    "postgres": _postgres,
    "redis": _redis,
    "httpbin": _httpbin,
    "api": _answers("/health", "api_url"),
    "flower": _answers("/healthcheck", "flower_url"),
    "prometheus": _answers("/-/ready", "prometheus_url"),
    "worker": _says_so,
    "maintenance": _says_so,
    "beat": _says_so,
}


def forget(data: Path, name: str) -> None:
    """Forgets what a process that has ended said of itself while it ran."""
    for file in liveness.folder(data).glob(f"*{liveness.SUFFIX}"):
        if name in (file.stem, file.stem.partition("@")[0]):
            file.unlink(missing_ok=True)


def forget_all(data: Path) -> None:
    """Forgets what any process said of itself; for a stack that is down."""
    for file in liveness.folder(data).glob(f"*{liveness.SUFFIX}"):
        file.unlink(missing_ok=True)


def listens(pid: int, port: int) -> bool:
    """True if a process listens on a port, or that cannot be seen: another's server may answer there."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return True
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


class Deaths:
    """Counts how often processes die while someone waits for them."""

    def __init__(self) -> None:
        self._starts: dict[str, set[int]] = {}

    def look(self, states: Mapping[str, Mapping[str, Any]], names: list[str]) -> str | None:
        """The name of a process that dies again and again; None when there is none.

        Args:
            states: as `Supervisor.states` gives them.
            names: of the processes that are waited for.
        """
        for name in names:
            state = states.get(name)
            if state is None or state["state"] in NOT_STARTED:
                continue
            # By its starts and not by its pids: some die before anyone has seen them.
            starts = self._starts.setdefault(name, set())
            starts.add(state["started"])
            alive = state["state"] in LIVE
            if len(starts) - alive >= TOO_MANY_DEATHS or state["state"] == "FATAL":
                return name
        return None


def size_of(log: Path) -> int:
    """Where a log ends now, to read later what was added."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def last_words(log: Path, since: int = 0) -> str:
    """The last error in a log, in one line; what it says last where there is none.

    Args:
        since: bytes of the log that are too old to count.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(since if since <= end else 0, end - TAIL))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it has written nothing"
    telling = [line for line in lines if _ERROR.search(line)] or lines
    return _sentence(telling[-1]) if telling else "it has written nothing"


def last_line_about(log: Path, what: str) -> str:
    """The last line of a log with certain words in it; empty when there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in reversed(lines) if what in line), "")


def _sentence(line: str) -> str:
    try:
        said = json.loads(line)
        trace = str(said.get("exc_info") or "").strip().splitlines()
        line = str(said["message"]) + (f" ({trace[-1].strip()})" if trace else "")
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return " ".join(line.split())[:LONGEST_WORDS]
