"""The pages about the repository say what the code says: versions, platforms, the places where something is added."""

from __future__ import annotations

import re

import console
import pytest

from ops.stack import postgres, venv
from webapp import VERSION
from webapp.jobs.handlers import BUILT_IN

ROOT = console.ROOT
DOCS = ROOT / "ops" / "docs"
#: Hosts of package registries: what is said of a package stands in its own documentation.
REGISTRIES = re.compile(r"https?://(?:[\w-]+\.)*(?:pypi\.org|npmjs\.com|rubygems\.org|hex\.pm|crates\.io)\b")


def text(name):
    return (DOCS / name).read_text()


def rows(name):
    """The first cell of each row of a page's tables, and its other cells."""
    lines = [line for line in text(name).splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for line in lines if (cells := re.split(r"\s*\|\s*", line)[1:-1])}


def test_the_newest_version_of_the_changelog_is_the_one_that_runs():
    assert re.findall(r"^## (\S+)", text("changelog.md"), re.MULTILINE)[0] == VERSION


def test_every_kind_of_change_is_one_of_keep_a_changelog():
    kinds = set(re.findall(r"^### (.+)", text("changelog.md"), re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_page_of_platforms_says_what_the_code_asks_for():
    found = rows("supported.md")
    oldest = ".".join(map(str, venv.OLDEST_PYTHON))
    assert found["Python"][0] == oldest
    assert f"3.{venv.OLDEST_PYTHON[1] - 1} and older" in found["Python"][3]
    assert found["PostgreSQL"][0].startswith(f"{postgres.VERSION},")
    compose = (ROOT / "ops" / "docker" / "compose.yaml").read_text()
    assert re.search(r"image: postgres:(\d+)", compose)[1] == str(postgres.VERSION)
    assert (
        re.search(r"image: valkey/valkey:(\d+)", compose)[1]
        == re.search(r"Valkey (\d+)", found["broker"][0])[1]
    )


def test_what_is_begun_with_is_there():
    named = [
        name for name in re.findall(r"`([\w./*-]+/[\w./*-]*)`", text("contributing.md")) if "*" not in name
    ]
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert "tasks.handlers.demo" in BUILT_IN


def test_figures_about_others_are_those_of_the_page_of_performance():
    (section,) = re.findall(r"^## Figures\n(.+?)^## ", text("comparison.md"), re.MULTILINE | re.DOTALL)
    said = re.findall(r"\d+\.\d+", section)
    assert len(said) >= 6
    measured = set(re.findall(r"\d+\.\d+", text("performance.md")))
    assert [one for one in said if one not in measured and f"{one}0" not in measured] == []


@pytest.mark.parametrize("page", console.pages(), ids=lambda page: page.name)
def test_no_page_links_to_a_package_registry(page):
    assert REGISTRIES.findall(page.path.read_text()) == []


def test_a_registry_would_be_found():
    assert REGISTRIES.search("https://pypi.org/project/celery/")
    assert not REGISTRIES.search("https://python-rq.org/docs/")
