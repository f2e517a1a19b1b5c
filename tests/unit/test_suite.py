"""`ops test` judges what git tracks, and not a user's files in the clone."""

from __future__ import annotations

import subprocess

from ops import suite


def git(folder, *words):
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_only_what_git_tracks_is_judged(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "ours.py").touch()
    (tmp_path / "gone.py").touch()
    git(tmp_path, "add", ".")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "my_handlers.py").write_text("import   os\n")
    assert suite.tracked(tmp_path) == ["ours.py"]


def test_without_git_everything_is(tmp_path):
    assert suite.tracked(tmp_path) == ["."]


def test_the_quick_run_names_files_that_are_there_and_runs_each_test_that_it_should():
    assert [name for name in suite.HALF if not (suite.ROOT / name).exists()] == []
    first, second = suite.QUICK
    assert {*first[:2], second[0]} == {"tests/unit", "tests/contracts", "tests/integration"}
    assert set(first[2:]) == {word.removeprefix("--ignore=") for word in second[1:]}
