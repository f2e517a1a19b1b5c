"""The ```console blocks of the pages: what is typed there, what is said to come, and why some are not run.

A line that begins with `$ ` is typed, with the lines that its quotes, backslashes or `<<WORD` ask for; the lines up to the
next one are what it prints, `...` for what is left out. Two comments before a block speak to the tests alone:

    <!-- not run: why not -->
    <!-- setup: commands whose effects the block needs, in the same shell -->

A `python` block that begins with `# NAME.py` is a file beside which the page's commands are typed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Folders without pages of ours.
FOREIGN = {
    ".git",
    ".venv",
    ".djps",
    ".hypothesis",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    "node_modules",
}
#: What other names a block of commands might be given; each would keep it from being run.
SHELLS = {"sh", "bash", "shell", "shell-session", "terminal", "zsh"}
_PROMPT = "$ "
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE
)
_MARKS = re.compile(r"((?:<!--(?:(?!-->).)*-->\s*)+)\Z", re.DOTALL)
_MARK = re.compile(r"<!--\s*(?P<kind>not run|setup):\s*(?P<text>.*?)\s*-->", re.DOTALL)
_HERE = re.compile(r"<<-?\s*['\"]?(\w+)")
_FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed, and the lines that it is said to print."""

    text: str
    prints: str


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands.

    Args:
        line: where it begins in its page.
        setup: commands that come before it and that no reader sees.
        reason: why it is not run; None: it is.
    """

    line: int
    commands: tuple[Command, ...]
    setup: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page, its blocks, and the files that it tells its reader to make."""

    path: Path
    blocks: tuple[Block, ...]
    files: dict[str, str]
    faults: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def runs(self) -> bool:
        return any(block.reason is None for block in self.blocks)


def pages() -> list[Page]:
    """Every page of the repository, by name."""
    found = []
    for folder, inner, files in os.walk(ROOT):
        inner[:] = sorted(name for name in inner if name not in FOREIGN)
        found += [Path(folder) / name for name in files if name.endswith(".md")]
    return [read(path, path.read_text()) for path in sorted(found)]


def read(path: Path, text: str) -> Page:
    """The blocks and files of one page, and what keeps a block from being understood."""
    blocks: list[Block] = []
    files: dict[str, str] = {}
    faults: list[str] = []
    for fence in _FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 1
        lines = [one.removeprefix(fence["indent"]) for one in fence["text"].splitlines()]
        match fence["language"]:
            case "console":
                blocks.append(_block(line, lines, text[: fence.start()]))
                faults += [f"line {line}: {fault}" for fault in _faults(lines, blocks[-1])]
            case "python" | "toml" if named := _FILE.match(fence["text"]):
                files[named[1]] = "\n".join(lines) + "\n"
            case language if language in SHELLS or any(one.startswith(_PROMPT) for one in lines):
                faults.append(f"line {line}: commands stand in a block named `console`")
            case _:
                pass
    return Page(path, tuple(blocks), files, tuple(faults))


def _block(line: int, lines: list[str], before: str) -> Block:
    marks = _MARKS.search(before)
    said = {found["kind"]: found["text"] for found in _MARK.finditer(marks[1])} if marks else {}
    return Block(line, tuple(_commands(lines)), said.get("setup", ""), said.get("not run"))


def _faults(lines: list[str], block: Block) -> Iterator[str]:
    if not lines or not lines[0].startswith(_PROMPT):
        yield "a block of commands begins with `$ `"
    if block.reason == "":
        yield "`not run` gives a reason"


def _commands(lines: list[str]) -> Iterator[Command]:
    typed: list[str] = []
    printed: list[str] = []
    for line in lines:
        if typed and not _is_whole("\n".join(typed)):
            typed.append(line)
        elif line.startswith(_PROMPT):
            if typed:
                yield Command("\n".join(typed), "\n".join(printed))
            typed, printed = [line.removeprefix(_PROMPT)], []
        else:
            printed.append(line)
    if typed:
        yield Command("\n".join(typed), "\n".join(printed))


def _is_whole(typed: str) -> bool:
    """True if a shell would run this, and not wait for more lines."""
    if typed.endswith("\\"):
        return False
    if here := _HERE.search(typed):
        return here[1] in typed.splitlines()[1:]
    try:
        shlex.split(typed, comments=True)
    except ValueError:
        return False
    return True


#: What differs from run to run, and what stands for it; the first that fits is taken.
_VOLATILE = (
    ("id", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", None),
    ("rest", r"\.\.\.|…", r".*?"),
    ("answer", r"HTTP/1\.1 \d{3}", None),
    ("time", r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+\d\d:\d\d)", r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+]\d\d:\d\d)"),
    ("day", r"\d{4}-\d\d-\d\d", r"\d{4}-\d\d-\d\d"),
    ("worker", r"\bvm:\d+:[0-9a-f]{8}", r"[\w.-]+:\d+:[0-9a-f]{8}"),
    ("machine", r"\bvm\b", r"[\w.-]+"),
    ("digest", r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,64}\b", r"[0-9a-f]{8,64}"),
    ("small", r'(?<=":)\d{1,3}(?![\d.])', None),
    ("number", r"\d[\d,]*(?:\.\d+)?", r"\d[\d,]*(?:\.\d+)?"),
)
_TOKEN = re.compile("|".join(f"(?P<{name}>{fits})" for name, fits, _ in _VOLATILE))
_STANDS_FOR = {name: stands for name, _, stands in _VOLATILE}
_ID = _VOLATILE[0][1]


def expected(prints: str, ids: dict[str, str]) -> re.Pattern[str]:
    """What fits what a page says a command prints, white space taken out of it.

    Times, digests, names of machines and most numbers may differ; an id of the page stands for the one that came in its place
    when it was printed first, and small numbers of JSON and answers' codes are as the page has them.

    Args:
        ids: the page's ids so far, and those that they stand for.
    """
    said = []
    named: set[str] = set()
    end = 0
    for token in _TOKEN.finditer(prints):
        said.append(_literal(prints[end : token.start()]))
        end = token.end()
        kind, text = token.lastgroup or "", token[0]
        stands = _STANDS_FOR[kind]
        if kind == "id" and text not in ids:
            group = "id_" + text.replace("-", "_")
            said.append(f"(?P={group})" if text in named else f"(?P<{group}>{_ID})")
            named.add(text)
        elif kind == "id":
            said.append(re.escape(ids[text]))
        else:
            said.append(_literal(text) if stands is None else stands)
    return re.compile("".join([*said, _literal(prints[end:])]), re.DOTALL)


def _literal(text: str) -> str:
    return re.escape("".join(text.split()))


def compare(prints: str, output: str, ids: dict[str, str]) -> bool:
    """True if a command printed what its page says; learns the ids that came first here."""
    found = expected(prints, ids).search("".join(output.split()))
    if found is None:
        return False
    ids |= {name.removeprefix("id_").replace("_", "-"): value for name, value in found.groupdict().items()}
    return True
