"""Counters survive a full disk, a deleted folder and a file that was cut short."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from full_disk import fill, small_disk
from prometheus_client import CollectorRegistry, Counter, generate_latest, values

from webapp.infra.telemetry import counter_files, counter_slots, metrics
from webapp.infra.telemetry.counter_files import CounterFile
from webapp.infra.telemetry.counter_slots import MAX_SLOTS, Slots


@pytest.fixture
def disk(monkeypatch):
    """Whether the disk is full: a list that is empty when it is not."""
    full = []
    real = os.posix_fallocate

    def reserve(fd, offset, size):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    monkeypatch.setattr(counter_files, "TRY_EVERY", 0)
    return full


def stored(path):
    return {key: value for key, value, *_ in CounterFile.read_all_values_from_file(path)}


def test_the_room_is_taken_before_it_is_used(tmp_path):
    path = tmp_path / "counter_0.db"
    file = CounterFile(str(path))
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 0
    for number in range(2_000):
        file.write_value(f"a rather long key to fill the file sooner {number}", number, 0.0)
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 1 << 16
    assert len(stored(path)) == 2_000
    file.close()


def test_on_a_full_disk_it_counts_in_memory_and_writes_it_down_later(tmp_path, disk):
    path = tmp_path / "counter_0.db"
    disk.append("full")
    file = CounterFile(str(path))
    file.write_value("done", 3.0, 0.0)
    assert file.read_value("done")[0] == 3
    disk.clear()
    file.write_value("done", 4.0, 0.0)
    assert not file.in_memory
    assert stored(path) == {"done": 4.0}
    file.write_value("done", 5.0, 0.0)
    assert stored(path) == {"done": 5.0}
    file.close()


def test_a_file_that_is_no_such_file_is_counted_in_memory_from_nothing(tmp_path, disk):
    path = tmp_path / "counter_0.db"
    path.write_bytes(b"\xff" * (1 << 16))
    disk.append("full")
    file = CounterFile(str(path))
    file.write_value("done", 1.0, 0.0)
    assert file.in_memory
    assert file.read_value("done")[0] == 1
    file.close()


def test_what_cannot_be_mapped_yet_is_counted_in_memory_for_longer(tmp_path, disk, monkeypatch):
    path = tmp_path / "counter_0.db"
    disk.append("full")
    file = CounterFile(str(path))
    disk.clear()
    with monkeypatch.context() as without_memory:
        without_memory.setattr(
            counter_files.mmap, "mmap", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOMEM, "none"))
        )
        file.write_value("done", 1.0, 0.0)
        assert file.in_memory
    file.write_value("done", 2.0, 0.0)
    assert not file.in_memory
    assert stored(path) == {"done": 2.0}
    file.close()


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    good, cut = tmp_path / "counter_0.db", tmp_path / "counter_1.db"
    CounterFile(str(good)).close()
    cut.write_bytes(b"\x00\x00")
    assert counter_files.readable([str(good), str(cut), str(tmp_path / "gone.db")]) == [str(good)]


def test_a_disk_that_fills_up_while_a_file_grows_loses_nothing(tmp_path, disk):
    path = tmp_path / "counter_0.db"
    file = CounterFile(str(path))
    file.write_value("first", 1.0, 0.0)
    disk.append("full")
    for number in range(3_000):
        file.write_value(f"a rather long key to fill the file sooner {number}", number, 0.0)
    assert file.in_memory
    disk.clear()
    file.write_value("first", 2.0, 0.0)
    found = stored(path)
    assert len(found) == 3_001
    assert (found["first"], found["a rather long key to fill the file sooner 2999"]) == (2, 2999)
    file.close()


def test_what_a_file_held_before_is_kept_in_memory_and_after(tmp_path, disk):
    path = tmp_path / "counter_0.db"
    first = CounterFile(str(path))
    first.write_value("done", 7.0, 0.0)
    first.close()
    disk.append("full")
    second = CounterFile(str(path))
    assert second.read_value("done")[0] == 7
    disk.clear()
    second.write_value("done", 8.0, 0.0)
    assert stored(path) == {"done": 8.0}
    second.close()


@pytest.mark.parametrize("content", [b"\xff" * 100, b"\x00\x10\x00\x00" + b"\x7f" * 200, b"abc"])
def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path, content, monkeypatch):
    monkeypatch.setattr(counter_files, "TRY_EVERY", 0)
    path = tmp_path / "counter_0.db"
    path.write_bytes(content)
    file = CounterFile(str(path))
    file.write_value("done", 1.0, 0.0)
    assert stored(path) == {"done": 1.0}
    file.close()


def test_metrics_leave_out_what_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setattr(metrics, "FOLDER", tmp_path / "made" / "anew")
    assert list(metrics.Stored().collect()) == []
    good = CounterFile(str(metrics.FOLDER / "counter_0.db"))
    good.write_value('["done_total", "done_total", {}, "help"]', 2.0, 0.0)
    (metrics.FOLDER / "counter_1.db").touch()
    (metrics.FOLDER / "counter_2.db").write_bytes(b"\x00\x10\x00\x00" + b"\x7f" * 200)
    (family,) = metrics.Stored().collect()
    assert [sample.value for sample in family.samples] == [2]
    good.close()


@contextmanager
def counting(folder):
    """A counter as this process's metrics are, in a folder of its own; what is open at the end is closed."""
    made = Slots(folder, lambda: [one.path for one in CounterFile.opened if one.path.parent == folder])
    value = values.MultiProcessValue(process_identifier=made.number)
    yield value("counter", "done_total", "done_total", (), (), "help")
    value.close_all_files()
    made._lock.close()


@pytest.mark.parametrize("what", ["*", "*.db", "*.lock"])
def test_a_folder_that_is_deleted_is_made_again_and_counted_in(tmp_path, monkeypatch, what):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(counter_slots, "LOOK_EVERY", 0)
    with counting(tmp_path) as counter:
        counter.inc(1)
        for file in tmp_path.glob(what):
            file.unlink()
        counter.inc(1)
        counter.inc(1)
        found = [stored(file) for file in tmp_path.glob("*.db")]
    assert any(one >= 1.0 for file in found for one in file.values())
    assert len(list(tmp_path.glob("*.lock"))) >= 1


def test_without_a_lock_a_process_has_a_number_of_its_own(tmp_path):
    (tmp_path / "file").touch()
    assert Slots(tmp_path / "file" / "folder").number() == MAX_SLOTS + os.getpid()


CODE = """
import os, sys
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
if sys.argv[2] == "ours":
    from webapp.infra.telemetry.metrics import jobs_created
else:
    from prometheus_client import Counter
    jobs_created = Counter("jobs_created_total", "Jobs.")
for _ in range(3):
    jobs_created.inc()
print("counted")
"""


@pytest.mark.parametrize("whose", ["ours", "the library's"])
def test_a_process_that_counts_on_a_full_disk_lives(tmp_path, whose):
    """Without the mend the kernel ends it: this is why there is one."""
    with small_disk(tmp_path / "disk", "256k") as disk:
        (disk / "metrics").mkdir()
        for number in range(64):
            # The library finds its file made already, as sparse as it makes it.
            (disk / "metrics" / f"slot-{number}.lock").touch()
        fill(disk)
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(disk / "metrics"), whose],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    if whose == "ours":
        assert (done.returncode, done.stdout) == (0, "counted\n"), done.stderr
    else:
        assert done.returncode != 0


def test_looking_for_the_folder_costs_next_to_nothing(tmp_path):
    made = Slots(tmp_path)
    made.number()
    began = time.perf_counter()
    for _ in range(10_000):
        made.number()
    assert time.perf_counter() - began < 0.2
    made._lock.close()


def test_the_real_metrics_use_these_files():
    registry = CollectorRegistry()
    Counter("a_test_of_files_total", "Help.", registry=registry).inc()
    assert any(one.path.parent == metrics.FOLDER for one in CounterFile.opened)
    assert b"a_test_of_files_total" in generate_latest(metrics.stored())
