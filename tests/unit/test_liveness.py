from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tasks import liveness
from tasks.liveness import FRESH, Beacon, look


def test_a_lit_beacon_says_alive_and_ready(tmp_path):
    Beacon(tmp_path, "worker@here").light(ready=True, says="")
    assert look(tmp_path, "worker", ready=True) == (True, "worker is ready")
    assert look(tmp_path, "worker@here", ready=False) == (True, "worker@here is alive")


def test_a_process_that_cannot_work_is_alive_and_says_why_it_is_not_ready(tmp_path):
    Beacon(tmp_path, "worker@here").light(ready=False, says="the broker does not answer")
    assert look(tmp_path, "worker", ready=False)[0]
    assert look(tmp_path, "worker", ready=True) == (
        False,
        "worker@here is not ready: the broker does not answer",
    )


def test_an_old_beacon_is_out_even_beside_a_fresh_one(tmp_path):
    Beacon(tmp_path, "worker@old").light(ready=True, says="")
    Beacon(tmp_path, "worker@new").light(ready=True, says="")
    past = time.time() - FRESH - 5
    os.utime(liveness.folder(tmp_path) / "worker@old.beacon", (past, past))
    well, sentence = look(tmp_path, "worker", ready=False)
    assert not well
    assert sentence.startswith("worker@old has not been heard of for 2")
    assert look(tmp_path, "worker@new", ready=False)[0]


def test_a_beacon_that_was_put_out_or_never_lit_is_named(tmp_path):
    one = Beacon(tmp_path, "beat")
    one.light(ready=True, says="")
    one.put_out()
    assert look(tmp_path, "beat", ready=False) == (
        False,
        f"no beacon of 'beat' in {tmp_path}/run: it is not running",
    )


@pytest.mark.parametrize(("name", "code"), [("beat", 0), ("worker", 1)])
def test_the_probe_answers_by_its_exit_code_and_loads_nothing_heavy(tmp_path, name, code):
    Beacon(tmp_path, "beat").light(ready=True, says="")
    assert liveness.main([name, "--dir", str(tmp_path)]) == code
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tasks.liveness", name, "--ready"],
        env=os.environ | {"DJPS_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == code
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"celery", "sqlalchemy", "redis", "pydantic", "webapp.settings"}


def test_a_file_that_makes_no_sense_says_nothing(tmp_path):
    folder = liveness.folder(tmp_path)
    folder.mkdir()
    for content in (b"", b"{", b"[]", b'{"pid": 1}', b"\xff\xfe"):
        (folder / "beat.beacon").write_bytes(content)
        well, sentence = look(tmp_path, "beat", ready=False)
        assert (well, "cannot be read" in sentence) == (False, True), content
    (folder / "beat.beacon").unlink()
    (folder / "beat.beacon").mkdir()
    assert "cannot be read" in look(tmp_path, "beat", ready=False)[1]


def test_it_is_written_in_place_and_never_grows(tmp_path):
    one = Beacon(tmp_path, "beat")
    one.light(ready=False, says="é" * 10_000)
    file = liveness.folder(tmp_path) / "beat.beacon"
    before = file.stat()
    one.light(ready=True, says="")
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)
    assert look(tmp_path, "beat", ready=True) == (True, "beat is ready")
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_in_its_place_is_an_error_of_the_writer_and_never_reads_as_alive(tmp_path):
    one = Beacon(tmp_path, "beat")
    (liveness.folder(tmp_path) / "beat.beacon").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        one.light(ready=True, says="")
    one.put_out()
    assert not look(tmp_path, "beat", ready=False)[0]
