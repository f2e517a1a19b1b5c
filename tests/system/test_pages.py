"""The pages' commands, typed as they stand there: each ends well and prints what its page says.

README begins with an empty clone and ends with `down`; all other pages are typed beside one stack, the one that restores a
dump at the end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import console
import incidents
import pytest
from shell import Clone, Shell, clone

pytestmark = pytest.mark.system

#: The page that starts and stops everything by itself.
TOUR = "README.md"
RUNBOOKS = "/runbooks/"
#: Pages that leave nothing for others.
LAST = ("ops/docs/operating.md",)
PAGES = {page.name: page for page in console.pages() if page.runs}
SHARED = [name for name in sorted(PAGES, key=lambda name: (name in LAST, name)) if name != TOUR]
#: What the shared stack is started with: what the pages say that their examples were run with.
SETTINGS = {
    "HANDLERS": "my_handlers",
    "PYTHONPATH": ".",
    "QUEUES": "slow",
    "STUCK_JOB_THRESHOLD": "5",
    "STUCK_CHECK_INTERVAL": "1",
}
#: Commands that change nothing: they are typed again until they print what is said, as a reader would.
LOOKS = re.compile(
    r"(?:sleep \d+; )?(?:curl (?!.*(?:-sN | -d | -X |--data))|curl -s -G |grep |(?:\.venv/bin/)?python3? -m (?:ops (?:status|logs)|tasks\.)"
    r"|flask --app wsgi (?:workers|jobs (?:list|show)|dlq (?:groups|list)))",
    re.DOTALL,
)
#: How long such a command gets to print it, seconds.
PATIENCE = 20.0
PAUSE = 0.2
#: A search for one of several things.
SEARCH = re.compile(
    r"grep -E '(?:(?P<start>[^'(|]*)\((?P<inner>[^'()]+)\)|(?P<whole>[^'()]+))'(?P<files>[^|#\n]*)"
)
#: An answer that refuses something.
PROBLEM = re.compile(r'"type":\s*"about:blank"')


@pytest.fixture(scope="module")
def stack() -> Iterator[Clone]:
    """The stack of all pages but the tour."""
    with clone(**SETTINGS) as made:
        prepare(made)
        yield made


def prepare(made: Clone) -> None:
    """Starts everything, with the files that the pages tell their reader to make."""
    made.environment["HTTP_ALLOWED_TARGETS"] = f"127.0.0.1:{made.ports['19741']}"
    for page in PAGES.values():
        if page.name != TOUR:
            write_files(page, made)
    done = made.ops("up", "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    made.environment |= made.servers()


def write_files(page: console.Page, made: Clone) -> None:
    """Makes the files that a page tells its reader to make."""
    for name, text in page.files.items():
        (made.folder / name).write_text(text)


def follow(page: console.Page, place: Clone) -> None:
    """Types a page's commands in a shell of its own."""
    shell = Shell(place)
    ids: dict[str, str] = {}
    try:
        for block in page.blocks:
            if block.reason is not None:
                continue
            if block.setup:
                codes, output = shell.type(block.setup)
                assert set(codes) == {0}, f"{page.name}:{block.line}, setup: {output}"
            for command in block.commands:
                fault = typed(shell, command, ids) or unmatched(shell, command)
                assert fault is None, f"{page.name}:{block.line}: {command.text}\n{fault}"
    finally:
        shell.close()


def typed(shell: Shell, command: console.Command, ids: dict[str, str]) -> str | None:
    """Types one command; returns what is wrong with it."""
    text = command.text
    for said, came in ids.items():
        text = text.replace(said, came)
    end = time.monotonic() + PATIENCE
    while True:
        codes, output = shell.type(text)
        fault = fault_of(command, codes, output, ids)
        if fault is None or not LOOKS.match(text) or time.monotonic() > end:
            return fault
        time.sleep(PAUSE)


def unmatched(shell: Shell, command: console.Command) -> str | None:
    """What a look at the metrics does not find: `grep -E 'this|that'` must find both."""
    found = SEARCH.search(command.text) if "/metrics" in command.text else None
    if found is None:
        return None
    _, output = shell.type(command.text[: found.start()].rstrip("| "))
    each = [(found["start"] or "") + one for one in (found["inner"] or found["whole"]).split("|")]
    missing = [one for one in each if not re.search(one, output, re.MULTILINE)]
    return f"finds no {' or '.join(missing)} in\n{output[-3000:]}" if missing else None


def fault_of(command: console.Command, codes: list[int], output: str, ids: dict[str, str]) -> str | None:
    # What is piped into `head` may end because no one reads on.
    if any(code not in {0, 23, 141} for code in codes) or codes[-1] != 0:
        return f"exit codes {codes}, printed: {output}"
    if PROBLEM.search(output) and not PROBLEM.search(command.prints):
        return f"was refused: {output}"
    if not console.compare(command.prints, output, ids):
        return f"printed: {output}\nnot what the page says: {command.prints}"
    return None


def test_the_tour_is_as_the_readme_says(tmp_path):
    with clone() as fresh:
        write_files(PAGES[TOUR], fresh)
        follow(PAGES[TOUR], fresh)


@pytest.fixture(scope="module")
def incident(stack):
    """Something of all that a runbook is read for has happened."""
    incidents.provoke(stack)


@pytest.mark.parametrize("name", [name for name in SHARED if RUNBOOKS in name])
def test_a_runbook_finds_what_it_looks_for(name, stack, incident):
    follow(PAGES[name], stack)


@pytest.mark.parametrize("name", [name for name in SHARED if RUNBOOKS not in name])
def test_a_page_is_true(name, stack):
    stack.empty()
    follow(PAGES[name], stack)
