"""A worker that is started as the documents say is found by the probe that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "ops" / "docs").rglob("*.md"))]
#: A line that starts a worker, and the name it gives it before the @.
_START = re.compile(r"python -m tasks worker(?P<rest>[^`\n]*)")
#: The name of one that is given none.
BY_DEFAULT = "worker"
_NAME = re.compile(r"(?:-n|--hostname)[ =](?P<name>[\w-]+)@")
_PROBE = re.compile(r"python -m tasks\.\w+ (?P<name>[a-z][\w-]*)")


def starts():
    for document in DOCUMENTS:
        for found in _START.finditer(document.read_text()):
            yield document.name, found["rest"]


@pytest.mark.parametrize(("document", "rest"), list(starts()))
def test_every_worker_has_a_name(document, rest):
    named = rest.strip(" .") == "" or _NAME.search(rest)
    assert named, f"{document}: `python -m tasks worker{rest}` gives the worker no name"


def test_every_probe_looks_for_a_name_that_is_given():
    given = {found["name"] for _, rest in starts() if (found := _NAME.search(rest))} | {BY_DEFAULT, "beat"}
    asked = {found["name"] for document in DOCUMENTS for found in _PROBE.finditer(document.read_text())}
    assert asked
    # `worker-new` is the new one of an upgrade, which its own line starts.
    assert asked - given <= {"worker-new"}
