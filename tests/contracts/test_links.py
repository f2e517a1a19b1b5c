"""Links between the pages lead somewhere, and every page can be reached from the index."""

from __future__ import annotations

import re
from pathlib import Path

import console
import pytest

ROOT = console.ROOT
DOCS = ROOT / "ops" / "docs"
PAGES = [page.path for page in console.pages()]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """The targets of a page's links within the repository."""
    found = _LINK.findall(_CODE.sub("code", prose(page)))
    return [one for one in found if not re.match(r"[a-z]+:", one)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    texts = (heading.replace("`", "") for heading in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def leads_nowhere(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    return not file.exists() or bool(anchor and anchor not in anchors(file))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert [one for one in links(page) if leads_nowhere(page, one)] == []


def test_every_page_can_be_reached_from_the_index():
    reached = {DOCS / "README.md"}
    waiting = list(reached)
    while waiting:
        page = waiting.pop()
        for link in links(page):
            file = (page.parent / link.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.exists() and file not in reached:
                reached.add(file)
                waiting.append(file)
    pages = {page for page in PAGES if page.is_relative_to(DOCS)}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - reached) == []


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("[a](b.md)", ["b.md"]),
        ("# Some `code`, and words\n[a](#some-code-and-words)", []),
        ("[a](#nowhere)", ["#nowhere"]),
        ("[a](https://example.com/)", []),
        ("`[a](b.md)`\n```\n[a](c.md)\n```\n", []),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, text, dead):
    page = tmp_path / "page.md"
    page.write_text(text)
    assert [one for one in links(page) if leads_nowhere(page, one)] == dead
