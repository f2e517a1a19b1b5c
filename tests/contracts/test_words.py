"""Words that the project has left behind stay away: plain English, and the field's own terms."""

from __future__ import annotations

import re
from pathlib import Path

import console
import pytest

ROOT = console.ROOT
#: What each pattern is replaced by. A name in quotes or of several parts, such as 'nobody' or x-nobody, is data.
WORDS = {
    r"once more": "again",
    r"(?<!['\"-])\bnobody\b(?!['\"-])": "no one, none",
    r"\bwhoever\b": "the caller, the process that ...",
    r"\btells whether\b": "True if",
    r"\breckon\w*": "compute",
    r"thick and fast": "while many arrive",
    r"\bdesk\b": "WorkSlots, slot",
    r"\bbeacon\w*": "liveness file",
    r"\bcensus\b": "listing",
    r"\bintake\b": "submission, insert",
    r"\bundertaker\b|\bburial\w*|\bburied\b": "the dead letter queue",
}
_WORDS = {re.compile(pattern, re.IGNORECASE): instead for pattern, instead in WORDS.items()}
FOLDERS = ("webapp", "tasks", "ops", "tests")
SUFFIXES = {".py", ".md", ".sql", ".yml", ".yaml"}
#: Lines that may keep a word: the file, a part of the line, and why.
ALLOWED = {
    ("webapp/jobs/errors.py", "can be queued once more"): "a sentence of the HTTP contract",
    ("webapp/jobs/loss.py", "the next death tells whether"): "a death does",
}


def pages() -> list[Path]:
    found = [page for folder in FOLDERS for page in (ROOT / folder).rglob("*") if page.suffix in SUFFIXES]
    return [ROOT / "README.md", *(page for page in found if page != Path(__file__).resolve())]


def words_in(line: str) -> list[str]:
    """The words of a line that should be others, each with what to say instead."""
    return [f"{found[0]} -> {instead}" for word, instead in _WORDS.items() if (found := word.search(line))]


def findings() -> list[tuple[str, int, str, str]]:
    """File, line's number, the line, and what is wrong with it."""
    return [
        (str(page.relative_to(ROOT)), number, line, said)
        for page in pages()
        for number, line in enumerate(page.read_text().splitlines(), start=1)
        for said in words_in(line)
    ]


def test_words_that_were_left_behind_stay_away():
    wrong = [
        f"{file}:{number}: {said}"
        for file, number, line, said in findings()
        if not any(file == where and part in line for where, part in ALLOWED)
    ]
    assert wrong == []


def test_each_exception_is_needed():
    needed = {
        (file, part)
        for file, _, line, _ in findings()
        for where, part in ALLOWED
        if file == where and part in line
    }
    assert needed == set(ALLOWED)


@pytest.mark.parametrize(
    "line", ["Tells whether it runs.", "nobody waits", "class Desk:", "try it once more", "Whoever asks"]
)
def test_a_word_is_found(line):
    assert words_in(line) != []


@pytest.mark.parametrize("line", ["user 'nobody'", 'queue="nobody-listens"', "def once_more(", "a desktop"])
def test_data_and_names_are_left_alone(line):
    assert words_in(line) == []
