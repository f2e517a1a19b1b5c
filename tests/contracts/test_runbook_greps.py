"""What the documents look for in the logs is what the programs write there."""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path

import billiard.pool
import pytest
from celery.worker import request

from webapp.infra.telemetry.logs import JsonFormatter

ROOT = Path(__file__).resolve().parents[2]
_GREP = re.compile(r"ops logs [^|\n]*\| grep (-E )?(?:'([^']+)'|(\S+))")
#: What comes from a client, and so is nowhere in the source.
OF_CLIENTS = {"order-17"}


def patterns():
    for document in sorted([ROOT / "README.md", *(ROOT / "ops" / "docs").rglob("*.md")]):
        for found in _GREP.finditer(document.read_text()):
            pattern = found[2] or found[3]
            if pattern not in OF_CLIENTS:
                yield document.name, pattern, bool(found[1])


def alternatives(pattern, *, extended):
    """The words of a pattern between its outermost bars."""
    return re.split(r"\|(?![^(]*\))", pattern) if extended else [re.escape(pattern)]


def lines():
    """Lines as they are written: by our own code, by what runs it, and one for each answered request."""
    for folder in ("webapp", "tasks"):
        for file in (ROOT / folder).rglob("*.py"):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            for call in re.finditer(r'(?:logger\.\w+\(|info_each\(\s*logger,)\s*"([^"]+)"', file.read_text()):
                yield f'"logger":"{module}","message":"{call[1]}"'
    yield from inspect.getsource(billiard.pool).splitlines()
    yield from inspect.getsource(request).splitlines()
    for status in (200, 500, 503):
        record = logging.makeLogRecord(
            {"name": "gunicorn.access", "msg": "request answered", "status": status}
        )
        yield JsonFormatter().format(record)


@pytest.fixture(scope="module")
def written():
    return list(lines())


def test_there_are_some():
    assert len(list(patterns())) >= 5


@pytest.mark.parametrize(("document", "pattern", "extended"), list(patterns()))
def test_each_is_found(written, document, pattern, extended):
    for one in alternatives(pattern, extended=extended):
        assert any(re.search(one, line) for line in written), f"{document}: no line ever has {one!r}"


def test_a_status_is_found_only_where_it_is(written):
    (pattern,) = {pattern for _, pattern, _ in patterns() if "status" in pattern}
    found = [line for line in written if re.search(pattern, line)]
    assert len(found) == 2
