"""`ops test` judges what git tracks, and not a user's files in the clone."""

from __future__ import annotations

import subprocess
from collections import Counter

import pytest

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


@pytest.mark.parametrize(
    ("groups", "folders"),
    [
        (suite.GROUPS, ("unit", "contracts", "integration", "system")),
        (suite.QUICK, ("unit", "contracts", "integration")),
    ],
)
def test_the_groups_together_run_each_file_once(groups, folders):
    def run_by(group):
        left_out = {word.removeprefix("--ignore=") for word in group.tests if word.startswith("--")}
        for word in group.tests:
            if not word.startswith("--"):
                place = suite.ROOT / word
                files = [place] if place.suffix else sorted(place.rglob("test_*.py"))
                names = {str(file.relative_to(suite.ROOT)) for file in files}
                yield from names - left_out

    run = Counter(name for group in groups for name in run_by(group))
    there = {
        str(file.relative_to(suite.ROOT))
        for folder in folders
        for file in (suite.ROOT / "tests" / folder).rglob("test_*.py")
    }
    assert run == dict.fromkeys(there, 1)
