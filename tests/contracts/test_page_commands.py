"""Every page: its commands can be found by the test that runs them, and those that are not run are at least well formed."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import console
import pytest

from ops.__main__ import parser
from webapp.cli import GROUPS

PAGES = console.pages()
ROOT = console.ROOT
#: Commands within a line of text.
INLINE = re.compile(r"`((?:python3 -m ops|flask --app wsgi) [^`]+)`")
#: Files of the repository that a command names.
NAMED = re.compile(r"(?<![\w/.-])(?:ops|tests|webapp|tasks|migrations)/[\w./-]*\w")

#: What `flask --app wsgi` has of ours, and `python3 -m ops`, too.
APPLICATION = {group.name: group for group in GROUPS}
#: What a sentence's placeholders may be.
STANDS_FOR = {
    "N": "1",
    "S": "1",
    "P": "0.5",
    "TIME": "90s",
    "COMMIT": "HEAD",
    "URL": "http://127.0.0.1:8000",
}


def every_command():
    """Each command of a block or a sentence, as (where, command)."""
    for page in PAGES:
        for block in page.blocks:
            yield from ((f"{page.name}:{block.line}", one.text) for one in block.commands)
        yield from ((page.name, text) for text in INLINE.findall(page.path.read_text()))


COMMANDS = list(every_command())


def test_the_pages_are_found():
    names = {page.name for page in PAGES}
    assert {"README.md", "ops/docs/operating.md", "ops/docs/runbooks/ApiDown.md"} <= names
    assert sum(len(page.blocks) for page in PAGES) > 50
    assert len(COMMANDS) > 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_read(page):
    assert page.faults == ()


def test_most_blocks_are_run():
    every = [block for page in PAGES for block in page.blocks]
    assert sum(block.reason is None for block in every) / len(every) > 0.75


@pytest.mark.parametrize(("where", "typed"), COMMANDS)
def test_a_command_is_well_formed(where, typed):
    done = subprocess.run(
        [shutil.which("bash"), "-n"], input=typed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (where, done.stderr)
    missing = [name for name in NAMED.findall(typed) if not (ROOT / name).exists() and "NNNN" not in name]
    assert missing == [], where


def words_of(typed, program):
    """The arguments of a program in a line of shell; comments, pipes and what follows are left out."""
    _, found, rest = typed.replace("\\\n", " ").partition(program)
    bare = re.split(r"\s(?:#|\||&&|;|>|\.\.\.)", rest + " ")[0]
    words = [word.strip("'\"[])").partition("\\|")[0] for word in bare.split()]
    return [STANDS_FOR.get(word, word) for word in words] if found else None


@pytest.mark.parametrize(("where", "typed"), [one for one in COMMANDS if "python3 -m ops" in one[1]])
def test_ops_knows_its_arguments(where, typed, capsys):
    words = words_of(typed, "python3 -m ops")
    if "test" in words[:1]:
        return
    if words[0] in APPLICATION:
        with pytest.raises(SystemExit) as ended:
            APPLICATION[words[0]].main([*words[1:], "--help"])
        assert ended.value.code == 0, (where, capsys.readouterr().err)
        return
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*words, "--help"])
    assert ended.value.code == 0, (where, capsys.readouterr().err)


@pytest.mark.parametrize(("where", "typed"), [one for one in COMMANDS if "flask --app wsgi" in one[1]])
def test_flask_knows_its_arguments(where, typed, capsys):
    group, *words = words_of(typed, "flask --app wsgi") or [""]
    if (ours := APPLICATION.get(group)) is not None:
        with pytest.raises(SystemExit) as ended:
            ours.main([*words, "--help"])
        assert ended.value.code == 0, (where, capsys.readouterr().err)


def test_what_is_typed_and_what_is_printed():
    page = console.read(
        Path("page.md"),
        textwrap.dedent(
            """\
            1. In a list:

               <!-- setup: ID=$(cat
               id) -->
               ```console
               $ curl -s \\
                    -d '{"a":
                         1}'                         # it's more
               {"b": 2,
                "c": 3}
               $ cat <<EOF
               $ not a command
               EOF
               $ true
               ```

            <!-- not run: needs a cluster -->

            ```console
            $ kubectl get pods
            ```

            ```python
            # mine.py
            x = 1
            ```
            """
        ),
    )
    first, second = page.blocks
    assert [one.text for one in first.commands] == [
        "curl -s \\\n     -d '{\"a\":\n          1}'                         # it's more",
        "cat <<EOF\n$ not a command\nEOF",
        "true",
    ]
    assert [one.prints for one in first.commands] == ['{"b": 2,\n "c": 3}', "", ""]
    assert (first.setup, first.reason) == ("ID=$(cat\n   id)", None)
    assert second.reason == "needs a cluster"
    assert page.files == {"mine.py": "# mine.py\nx = 1\n"}
    assert page.faults == ()


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nls\n```\n",
        "```\n$ ls\n```\n",
        "```console\nls\n```\n",
        "<!-- not run: -->\n```console\n$ ls\n```\n",
    ],
)
def test_a_block_that_would_escape_is_a_fault(text):
    assert console.read(Path("page.md"), text).faults


def test_a_comment_goes_for_the_block_that_follows_it():
    text = "<!-- not run: a trial -->\nSome words.\n\n```console\n$ ls\n```\n"
    assert console.read(Path("page.md"), text).blocks[0].reason is None


ONE, TWO = "01a20af4-1c53-716c-9a00-04d2b42b60c5", "02a20af4-1c53-716c-9a00-04d2b42b60c5"


@pytest.mark.parametrize(
    ("said", "printed", "fits"),
    [
        ("a  b\nc", "xx ab c yy", True),
        ("a ... c", "a b b c", True),
        ("a ... c", "a b b d", False),
        ("took 1.5 s", "took 17,000.25 s", True),
        ('{"status":422}', '{"status":409}', False),
        ('{"seconds":2.5}', '{"seconds":3.25}', True),
        ("HTTP/1.1 201 CREATED", "HTTP/1.1 200 OK", False),
        ("at 2026-11-24T05:03:36.986841Z", "at 2027-01-04T15:03:36Z", True),
        ("vm:179:5c56b8e6", "host.example:2:0a0a0a0a", True),
        (f'"id":"{ONE}" for "{ONE}"', f'"id":"{TWO}" for "{TWO}"', True),
        (f'"id":"{ONE}" for "{ONE}"', f'"id":"{TWO}" for "{ONE}"', False),
    ],
)
def test_what_a_page_says_is_compared_loosely(said, printed, fits):
    assert console.compare(said, printed, {}) is fits


def test_an_id_of_a_page_stands_for_the_one_that_came():
    ids: dict[str, str] = {}
    assert console.compare(f"id {ONE}", f"id {TWO}", ids)
    assert ids == {ONE: TWO}
    assert console.compare(f"again {ONE}", f"again {TWO}", ids)
    assert not console.compare(f"again {ONE}", f"again {ONE}", ids)
