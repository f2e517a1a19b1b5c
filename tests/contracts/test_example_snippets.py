"""What the pages show of the examples stands in the examples, and every example says how to run it and is on the list."""

from __future__ import annotations

import re
from pathlib import Path

import console
import pytest

DOCS = console.ROOT / "ops/docs"
EXAMPLES = console.ROOT / "ops/examples"
LIST = EXAMPLES / "README.md"
_SNIPPET = re.compile(
    r"^From \[(?P<name>[^\]]+)\]\((?P<path>[^)]+)\):\n\n```(?P<language>\w+)\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
#: How a fence names each suffix.
LANGUAGES = {".py": "python", ".mjs": "js", ".php": "php", ".rb": "ruby", ".go": "go"}
PAGES = ("submitting.md", "following.md", "http-jobs.md")
#: What the Django shop is run by; its other files belong to it.
SHOP = EXAMPLES / "django_shop"
FILES = [
    *sorted(
        file
        for folder in ("callers", "handlers", "receivers")
        for file in (EXAMPLES / folder).iterdir()
        if file.is_file()
    ),
    SHOP / "manage.py",
]
#: Longest that a file may be, lines.
LONGEST = 140


def snippets(page):
    """Each snippet of a page, as (file, language, text)."""
    text = (DOCS / page).read_text()
    return [
        ((DOCS / found["path"]).resolve(), found["language"], found["text"])
        for found in _SNIPPET.finditer(text)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_a_snippet_stands_in_its_file_as_it_is_shown(page):
    for file, language, text in snippets(page):
        assert LANGUAGES[file.suffix] == language
        assert text in file.read_text(), f"{page} shows what {file.name} does not say:\n{text}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_every_language(page):
    assert {language for _, language, _ in snippets(page)} == set(LANGUAGES.values())


@pytest.mark.parametrize("page", PAGES)
def test_no_snippet_of_another_language_escapes(page):
    fences = re.findall(r"^```(js|php|ruby|go)\n", (DOCS / page).read_text(), re.MULTILINE)
    assert len(fences) == sum(language != "python" for _, language, _ in snippets(page))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_an_example_is_short_is_listed_and_says_how_to_run_it(file):
    text = file.read_text()
    head = "\n".join(text.splitlines()[:20])
    assert len(text.splitlines()) <= LONGEST
    assert re.search(r"^\W*How to run it\b", head, re.MULTILINE)
    commands = (str(file.relative_to(console.ROOT)), f"HANDLERS={file.stem} ", f"{file.stem}:app ")
    assert any(command in head for command in commands)
    assert f"({file.relative_to(EXAMPLES)})" in LIST.read_text()


def test_the_list_names_nothing_else():
    linked = {Path(EXAMPLES / one) for one in re.findall(r"\]\(([\w./-]+)\)", LIST.read_text())}
    assert linked == set(FILES)
