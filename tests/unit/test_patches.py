"""Patches of other people's code: each replaces what was looked at, and fails where a library has moved."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from webapp.infra import patches
from webapp.infra.patches import PATCHES, Patch, PatchMisses

ROOT = Path(__file__).resolve().parents[2]
CODE = {
    path: path.read_text()
    for room in ("webapp", "tasks")
    for path in (ROOT / room).rglob("*.py")
    if path.name != "patches.py"
}


@pytest.fixture
def listed(monkeypatch):
    """Lists a patch of a module of this test's own."""

    def add(target):
        one = Patch(target, "none", "a test", "")
        monkeypatch.setattr(patches, "_BY_TARGET", {target: one})

    return add


#: In a process of its own, where no patch is made.
_LOOK = """
import json
from webapp.infra.patches import PATCHES, code_of, found_at
print(json.dumps({patch.target: code_of(found_at(patch.read_by or patch.target)) for patch in PATCHES}))
"""


def test_what_patches_replace_is_what_was_looked_at():
    """Where this fails, read the new code, decide whether the patch is still right, and write down what it is now."""
    found = subprocess.run([sys.executable, "-c", _LOOK], cwd=ROOT, capture_output=True, check=True).stdout
    assert json.loads(found) == {patch.target: patch.code for patch in PATCHES}


@pytest.mark.parametrize(
    "patch", [one for one in PATCHES if " 3." not in one.seen], ids=lambda one: one.target
)
def test_the_version_is_the_one_that_is_installed(patch):
    library, seen = patch.seen.split()
    assert version(library) == seen


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.target)
def test_every_patch_is_made_and_says_why(patch):
    assert any(f'put("{patch.target}"' in text for text in CODE.values())
    assert len(patch.why) > 40
    for page in re.findall(r"\(((?:webapp|tasks)/\S+\.py)\)", patch.why):
        assert (ROOT / page).exists()


def test_what_is_not_there_is_not_replaced(listed):
    for target in ("json:no_such_thing", "json:JSONEncoder.no_such_thing", "json:NoSuchClass.default"):
        listed(target)
        with pytest.raises(PatchMisses, match=re.escape(target)):
            patches.put(target, None)


def test_what_is_not_listed_is_not_replaced():
    with pytest.raises(KeyError):
        patches.put("json:dumps", None)


def test_a_patch_gives_back_what_was_there(listed):
    listed("json.decoder:NaN")
    before = patches.put("json.decoder:NaN", 17)
    try:
        assert patches.found_at("json.decoder:NaN") == 17
        assert before != before  # noqa: PLR0124 - it is not a number
    finally:
        patches.put("json.decoder:NaN", before)
