from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tasks import liveness
from tasks.liveness import FRESH, LivenessFile, look


def test_a_liveness_file_says_alive_and_ready(tmp_path):
    LivenessFile(tmp_path, "worker@here").write(ready=True, says="")
    assert look(tmp_path, "worker", ready=True) == (True, "worker is ready")
    assert look(tmp_path, "worker@here", ready=False) == (True, "worker@here is alive")


def test_a_process_that_cannot_work_is_alive_and_says_why_it_is_not_ready(tmp_path):
    LivenessFile(tmp_path, "worker@here").write(ready=False, says="the broker does not answer")
    assert look(tmp_path, "worker", ready=False)[0]
    assert look(tmp_path, "worker", ready=True) == (
        False,
        "worker@here is not ready: the broker does not answer",
    )


def test_an_old_file_says_dead_even_beside_a_fresh_one(tmp_path):
    LivenessFile(tmp_path, "worker@old").write(ready=True, says="")
    LivenessFile(tmp_path, "worker@new").write(ready=True, says="")
    past = time.time() - FRESH - 5
    os.utime(liveness.folder(tmp_path) / "worker@old.alive", (past, past))
    well, sentence = look(tmp_path, "worker", ready=False)
    assert not well
    assert sentence.startswith("worker@old has not been heard of for 2")
    assert look(tmp_path, "worker@new", ready=False)[0]


def test_a_file_that_was_removed_or_never_written_is_named(tmp_path):
    one = LivenessFile(tmp_path, "beat")
    one.write(ready=True, says="")
    one.remove()
    assert look(tmp_path, "beat", ready=False) == (
        False,
        f"no liveness file of 'beat' in {tmp_path}/run: it is not running",
    )


@pytest.mark.parametrize(("name", "code"), [("beat", 0), ("worker", 1)])
def test_the_probe_answers_by_its_exit_code_and_loads_nothing_heavy(tmp_path, name, code):
    LivenessFile(tmp_path, "beat").write(ready=True, says="")
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
        (folder / "beat.alive").write_bytes(content)
        well, sentence = look(tmp_path, "beat", ready=False)
        assert (well, "cannot be read" in sentence) == (False, True), content
    (folder / "beat.alive").unlink()
    (folder / "beat.alive").mkdir()
    assert "cannot be read" in look(tmp_path, "beat", ready=False)[1]


def test_it_is_written_in_place_and_never_grows(tmp_path):
    one = LivenessFile(tmp_path, "beat")
    one.write(ready=False, says="é" * 10_000)
    file = liveness.folder(tmp_path) / "beat.alive"
    before = file.stat()
    one.write(ready=True, says="")
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)
    assert look(tmp_path, "beat", ready=True) == (True, "beat is ready")
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_in_its_place_is_an_error_of_the_writer_and_never_reads_as_alive(tmp_path):
    one = LivenessFile(tmp_path, "beat")
    (liveness.folder(tmp_path) / "beat.alive").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        one.write(ready=True, says="")
    one.remove()
    assert not look(tmp_path, "beat", ready=False)[0]
