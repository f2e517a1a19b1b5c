"""The architecture page names code that exists, and each step of a job's way is told in few files."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import console
import pytest

PAGE = console.ROOT / "ops" / "docs" / "architecture.md"
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"((?:webapp|tasks|ops|migrations|tests)/[\w./]*)(?:: ([\w.]+))?")
_DOTTED = re.compile(r"([A-Za-z_]\w*)\.([a-z_]\w*)")
_SUFFIXES = (".py", ".cfg", ".sql", ".md")
#: Most modules that one opens to follow a step.
FILES = {"Submission": 6, "Dispatch": 5, "Claim": 4, "End": 4}


def defined(nodes: list[ast.stmt], prefix: str = "") -> set[str]:
    """The functions, classes, methods and fields that a module or a class defines."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(prefix + node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {node.name, *defined(node.body, f"{node.name}.")}
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            names |= {prefix + one.id for one in targets if isinstance(one, ast.Name)}
    return names


@cache
def names_of(module: Path) -> set[str]:
    return defined(ast.parse(module.read_text()).body)


@cache
def modules() -> dict[str, list[Path]]:
    """The product's modules, by the last part of their names."""
    found = defaultdict(list)
    for package in ("webapp", "tasks"):
        for file in (console.ROOT / package).rglob("*.py"):
            found[file.parent.name if file.stem == "__init__" else file.stem].append(file)
    return found


@cache
def celery_tasks() -> set[str]:
    texts = (file.read_text() for files in modules().values() for file in files)
    return {name for text in texts for name in re.findall(r'"(tasks\.\w+)"', text)}


def is_missing(code: str) -> bool:
    """True if a span of code names a file, function or method that is not in the tree; other words are none of these."""
    if found := _PATH.fullmatch(code):
        file = console.ROOT / found[1]
        return not file.exists() or (found[2] is not None and found[2] not in names_of(file))
    if code in celery_tasks():
        return False
    if code.endswith(_SUFFIXES):
        return not (console.ROOT / code).exists()
    if found := _DOTTED.fullmatch(code):
        anywhere = (names_of(file) for files in modules().values() for file in files)
        in_module = any(found[2] in names_of(file) for file in modules().get(found[1], []))
        return not in_module and not any(code in names for names in anywhere)
    return False


def test_the_page_names_code_that_exists():
    lines = enumerate(PAGE.read_text().splitlines(), start=1)
    spans = [(number, code) for number, line in lines for code in _CODE.findall(line)]
    assert [f"{PAGE.name}:{number}: {code}" for number, code in spans if is_missing(code)] == []


@pytest.mark.parametrize(
    "code",
    ["webapp/jobs/gone.py", "webapp/jobs/service.py: Jobs.gone", "store.gone", "Outbox.gone", "gone.cfg", "tasks.gone"],
)  # fmt: skip
def test_what_is_gone_is_found(code):
    assert is_missing(code)


@pytest.mark.parametrize("step", FILES)
def test_a_step_is_told_in_few_files(step):
    told = PAGE.read_text().partition("## The way of a job")[2].partition("\n## ")[0]
    part = re.split(r"\n\*\*", told.partition(f"**{step}**")[2])[0]
    files = {
        found[1] for code in _CODE.findall(part) if (found := _PATH.match(code)) and found[1].endswith(".py")
    }
    assert 0 < len(files) <= FILES[step], sorted(files)
