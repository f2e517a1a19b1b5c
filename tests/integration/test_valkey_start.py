"""A Valkey that cannot read its append-only file is started without it; one that can keeps every key."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from ops.stack import ports, valkey
from ops.stack.valkey_start import ASIDE, DIED_BEFORE, FILES, mend

PASSWORD = "of-a-test_only"
ROOT = valkey.__file__.rsplit("/ops/", 1)[0]


@contextmanager
def running(command, port, *, password=None, **environment):
    with subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": ROOT, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            valkey.wait(port, password)
            with Redis(port=port, password=password, decode_responses=True) as client:
                yield client
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def stopped(tmp_path):
    """The folder of a Valkey that had a hundred keys, its command and its port."""
    port = ports.free()
    command = valkey.command(tmp_path, port)
    with running(command, port) as client:
        for number in range(100):
            client.set(f"key-{number}", number)
    return tmp_path, command, port


def only(folder, pattern):
    (found,) = (folder / FILES).glob(pattern)
    return found


def spoil_end(folder):
    with only(folder, "*.incr.aof").open("ab") as file:
        file.write(b"rubbish\r\n")


def spoil_middle(folder):
    file = only(folder, "*.incr.aof")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"\x00rubbish\r\n" + content[len(content) // 2 :])


def spoil_base(folder):
    only(folder, "*.base.rdb").write_bytes(b"no such format")


def spoil_manifest(folder):
    only(folder, "*.manifest").write_text("rubbish\n")


def lose_base(folder):
    only(folder, "*.base.rdb").unlink()


@pytest.mark.parametrize("spoil", [spoil_end, spoil_middle, spoil_base, spoil_manifest, lose_base])
def test_what_cannot_be_read_is_set_aside_and_said(stopped, spoil):
    folder, command, port = stopped
    spoil(folder)
    wrapped = [sys.executable, "-m", "ops.stack.valkey_start", str(folder), *command]
    with running(wrapped, port, **{DIED_BEFORE: "1"}) as client:
        assert client.dbsize() == 0
        assert client.set("works", 1)
    assert (folder / ASIDE).is_dir()


def test_the_sentence_says_why_and_where(stopped):
    folder, command, _ = stopped
    spoil_end(folder)
    said = mend(folder, command)
    assert "Bad file format" in said
    assert str(folder / ASIDE) in said
    assert "PostgreSQL" in said


def test_a_healthy_file_is_left_alone(stopped):
    folder, command, port = stopped
    assert mend(folder, command) is None
    with running(command, port) as client:
        assert client.dbsize() == 100


def test_one_with_a_password_is_mended_as_well_and_asks_for_it(tmp_path):
    port = ports.free()
    valkey.configure(tmp_path / "redis.conf", PASSWORD)
    command = valkey.command(tmp_path, port, configuration=tmp_path / "redis.conf")
    with running(command, port, password=PASSWORD) as client:
        client.set("key", 1)
        with pytest.raises(AuthenticationError), Redis(port=port) as stranger:
            stranger.ping()
    assert PASSWORD not in " ".join(command)
    assert mend(tmp_path, command) is None
    spoil_end(tmp_path)
    assert "Bad file format" in mend(tmp_path, command)
    with running(command, port, password=PASSWORD) as client:
        assert client.dbsize() == 0


def test_a_file_that_was_cut_short_keeps_what_is_whole(stopped):
    folder, command, port = stopped
    file = only(folder, "*.incr.aof")
    file.write_bytes(file.read_bytes()[:-7])
    assert mend(folder, command) is None
    with running(command, port) as client:
        assert client.dbsize() == 99


def test_without_a_file_there_is_nothing_to_mend(tmp_path):
    assert mend(tmp_path, ["/bin/false"]) is None


def test_another_reason_sets_nothing_aside(stopped):
    folder, command, _ = stopped
    assert mend(folder, [*command, "--no-such-option", "1"]) is None
    assert (folder / FILES).is_dir()
