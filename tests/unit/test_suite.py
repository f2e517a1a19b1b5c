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


def test_a_group_that_fails_is_told_and_the_next_one_runs(tmp_path, capfd):
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    raise AssertionError\n")
    (tmp_path / "test_right.py").write_text("def test_right():\n    pass\n")
    groups = [suite.Group((str(tmp_path / f"test_{name}.py"),)) for name in ("wrong", "right")]
    assert suite._in_lanes(groups, 1) == [1, 0]
    said = capfd.readouterr().out
    assert "1 failed" in said
    assert said.rstrip().splitlines()[-1].strip("= ").startswith("1 passed")


def test_a_check_that_fails_is_named_with_what_it_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong.py").write_text("import os\n")
    checks = (
        ("lint", ("ruff", "check", "--quiet", str(tmp_path)), False),
        ("format", ("ruff", "format", "--check", "--quiet", str(tmp_path)), False),
    )
    monkeypatch.setattr(suite, "CHECKS", checks)
    assert suite._failed_checks() == ["lint"]
    said = capsys.readouterr().out
    assert said.startswith("lint: failed\n")
    assert "wrong.py" in said
    assert said.endswith("format: ok\n")
