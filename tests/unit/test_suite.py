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
