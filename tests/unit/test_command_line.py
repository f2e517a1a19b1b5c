"""The words of `python3 -m ops`: grouped, described, corrected, completed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from flask_migrate.cli import db

from ops import __main__ as program
from ops.cli import completion, forward, run
from ops.cli.commands import FORWARDED, SHELLS, parser
from ops.cli.stack import show_logs
from ops.stack import early, venv
from ops.stack.stack import Stack
from webapp import VERSION
from webapp.cli import GROUPS
from webapp.cli.examples import EXAMPLES
from webapp.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def said(capsys, *words):
    """The exit code of a command line that is not carried out, and what is said of it."""
    with pytest.raises(SystemExit) as ended:
        program.parse(words)
    out, err = capsys.readouterr()
    return ended.value.code, out + err


def test_each_command_is_in_one_group_and_has_help(capsys):
    root = parser()
    grouped = [name for _, names in root.groups for name in names]
    assert sorted(grouped) == sorted(set(grouped)) == sorted(root.commands)
    code, help_text = said(capsys, "--help")
    assert code == 0
    for title, names in root.groups:
        assert f"\n{title}:\n" in help_text
        assert all(f"\n  {name} " in help_text for name in names)


@pytest.mark.parametrize("name", [one for one in parser().commands if one not in FORWARDED])
def test_every_argument_has_a_sentence(name, capsys):
    for action in parser().commands[name]._actions:
        assert action.help, (name, action.dest)
    code, help_text = said(capsys, name, "--help")
    assert code == 0
    assert parser().says[name].split()[0] in help_text


def commands_of(group):
    """The commands of a group, and of those in it."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands_of(command)
        else:
            yield command


def test_every_option_of_the_applications_commands_has_a_sentence():
    options = [
        (group.name, command.name, one)
        for group in GROUPS
        for command in commands_of(group)
        for one in command.params
        if isinstance(one, click.Option)
    ]
    assert len(options) > 40
    assert [(group, name, one.name) for group, name, one in options if not one.help] == []
    assert all(command.help for group in GROUPS for command in commands_of(group))


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_of_the_applications_commands_can_be_typed(line):
    group, name, *words = shlex.split(line.partition(" < ")[0])
    command = {one.name: one for one in GROUPS}[group].commands[name]
    if isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    assert line in command.epilog
    with command.make_context(name, words) as parsed:
        assert bool(parsed.params) == bool(command.params)


def test_help_says_defaults_and_examples(capsys):
    _, help_text = said(capsys, "capacity", "--help")
    assert "jobs a second (default: 10.0)" in help_text
    assert "\nexamples:\n  python3 -m ops capacity --rate 50" in help_text


def test_it_says_its_version(capsys):
    assert said(capsys, "--version") == (0, f"DJPS {VERSION}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("stauts",), "there is no 'stauts'; did you mean 'status'?\nSee `python3 -m ops --help`"),
        (
            ("up", "--detahc"),
            "there is no --detahc; did you mean '--detach'?\nSee `python3 -m ops up --help`",
        ),
        (("up", "--det"), "there is no --det; did you mean '--detach'?"),
        (("status", "now"), "`status` takes no 'now'"),
        (("new", "handlr", "x"), "there is no 'handlr'; did you mean 'handler'?"),
        (("completion", "powershell"), "there is no 'powershell' (there are: bash, zsh, fish)"),
        (("logs", "--level", "loud"), "(there are: debug, info, warning, error, critical)"),
        (("logs", "--lines", "-1"), "must be a whole number from 0 to 1000000 (given: '-1')"),
        (("logs", "--lines", "many"), "must be a whole number from 0 to 1000000 (given: 'many')"),
        (("logs", "--lines", "9" * 5_000), "must be a whole number from 0 to 1000000 (given: '9999"),
        (("logs", "--lines", "5", "--all"), "not allowed with argument"),
        (("logs", "--grep", "("), "must be a regular expression (given: '(': "),
        (("logs", "--grep", "x" * 2_000), "must have 1000 characters at most"),
        (("logs", "--since", "noon"), "must be like 30s, 10m"),
        (("bench", "--rounds", "0"), "must be a whole number from 1 to 100 (given: '0')"),
        (("bench", "--against", "nosuch"), "must name a commit that git knows (given: 'nosuch')"),
        (("load", "smoke", "--url", "ftp://x"), "must be the URL of an API, such as http://127.0.0.1:8000"),
        (("load", "smoke", "--url", "http://x:99999"), "(given: 'http://x:99999')"),
        (("capacity", "--run", "0"), "argument --run: must be a number above 0 and below 86400 (given: '0')"),
        (("capacity", "--share", "nan"), "must be a number above 0 and below 1 (given: 'nan')"),
        (("capacity", "--variability", "-1"), "must be a number from 0 to 100 (given: '-1')"),
        (("capacity", "--children", "0"), "must be a whole number from 1 to 100000 (given: '0')"),
        ((), "required: COMMAND"),
    ],
)
def test_what_is_typed_wrong_is_named(capsys, words, sentence):
    code, text = said(capsys, *words)
    assert code == 2
    assert sentence in text
    assert text.startswith("ops: ")
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("option", ["--check", "--quick"])
def test_an_option_that_says_what_is_run_takes_no_tests(capsys, option):
    with pytest.raises(SystemExit) as ended:
        run.run(program.parse(["test", option, "tests/unit"]))
    assert (ended.value.code, f"{option} takes no 'tests/unit'" in capsys.readouterr().err) == (2, True)


@pytest.fixture
def new_clone(tmp_path, monkeypatch):
    """A clone in which nothing was ever started; a command that would install something fails."""
    for name in ("DATABASE_URL", "REDIS_URL", "DJPS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DJPS_ENV_FILE", "")
    monkeypatch.setattr(early, "VENV", tmp_path / "no environment")
    monkeypatch.setattr(early, "ROOT", tmp_path)

    def enter(*_):
        raise venv.VenvError("it would be installed")

    monkeypatch.setattr(venv, "enter", enter)
    return monkeypatch


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status"], 1, "ops: DJPS is not up; `python3 -m ops up` starts it"),
        (["down"], 0, "DJPS was not up"),
        (["jobs", "list"], 1, "ops: DJPS is not up"),
        (["logs", "worker"], 1, "ops: DJPS is not up"),
        (["status", "--json"], 1, "ops: it would be installed"),
        (["jobs", "--help"], 1, "ops: it would be installed"),
        (["dlq"], 1, "ops: it would be installed"),
        (["test"], 1, "ops: it would be installed"),
    ],
)
def test_where_nothing_was_ever_started_nothing_is_installed_to_say_so(new_clone, capsys, words, code, said):
    assert program.main(words) == code
    out, err = capsys.readouterr()
    assert (out + err).startswith(said)


def test_logs_in_which_nothing_is_as_asked_for_say_so(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker.log").write_text('{"level": "INFO", "message": "hello"}\n')
    folder = Stack(Settings.model_validate({"DJPS_DATA_DIR": tmp_path}))
    assert show_logs(folder, program.parse(["logs", "--job", "01a2"])) == 0
    out, err = capsys.readouterr()
    assert (out, err.startswith("no line about job 01a2")) == ("", True)
    assert show_logs(folder, program.parse(["logs"])) == 0
    out, err = capsys.readouterr()
    assert ("hello" in out, err) == (True, "")


def test_a_database_that_is_named_is_looked_at_from_a_new_clone(new_clone, capsys):
    new_clone.setenv("DATABASE_URL", "postgresql://127.0.0.1/djps")
    assert program.main(["jobs", "list"]) == 1
    assert "it would be installed" in capsys.readouterr().err


def test_what_follows_a_forwarded_command_is_left_to_it():
    found = program.parse(["jobs", "submit", "--help", "--unknown"])
    assert (found.command, found.arguments) == ("jobs", ["submit", "--help", "--unknown"])


def test_the_running_stack_is_reached_by_what_its_note_says():
    note = {
        "database_url": "postgresql://a",
        "redis_url": "redis://b",
        "redis_prefix": "",
        "handlers": "mine",
        "x": 1,
    }
    assert forward.noted(note) == {
        "DATABASE_URL": "postgresql://a",
        "REDIS_URL": "redis://b",
        "REDIS_PREFIX": "",
        "HANDLERS": "mine",
    }
    assert forward.noted({}) == {}


def test_everything_is_completed():
    known = completion.known()
    assert {"up", "jobs", "logs", "--version"} <= set(known[""])
    assert {"worker", "--job", "--follow"} <= set(known["logs"])
    assert "all" in known["restart"]
    assert known["new"][:1] == ["handler"]
    assert {"submit", "tail", "watch"} <= set(known["jobs"])
    assert {"--wait", "--key"} <= set(known["jobs submit"])
    assert "upgrade" in known[db.name]


def completed(shell, *words):
    """What a shell offers after some words, the last of which is half typed."""
    script = completion.script(shell)
    typed = " ".join(words)
    how = {
        "bash": (
            f"{script}\nCOMP_WORDS=({typed} {'' if words[-1] else chr(39) * 2})\nCOMP_CWORD={len(words) - 1}\n"
            '_djps_ops\nprintf "%s\\n" "${COMPREPLY[@]}"'
        ),
        "zsh": (
            "compdef() { :; }\n_default() { :; }\n"
            'compadd() { shift; print -l -- "${(@M)@:#${words[CURRENT]}*}"; }\n'
            f"{script}\nwords=({typed} {'' if words[-1] else chr(39) * 2}); CURRENT={len(words)}\n_djps_ops"
        ),
        "fish": f"{script}\ncomplete -C '{typed}'",
    }
    bare = {"bash": "--norc", "zsh": "--no-rcs", "fish": "--no-config"}[shell]
    done = subprocess.run(
        [shutil.which(shell), bare, "-c", how[shell]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {line.partition("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    start = ("python3", "-m", "ops")
    assert completed(shell, *start, "sta") == {"status"}
    assert completed(shell, *start, "jobs", "w") == {"wait", "watch"}
    assert completed(shell, *start, "jobs", "submit", "--wait") == {"--wait", "--wait-timeout"}
    assert completed(shell, *start, "restart", "w") == {"worker"}
    assert completed(shell, *start, "logs", "--job", "x", "worker", "--fo") == {"--follow"}
    assert "submit" in completed(shell, *start, "jobs", "")


def test_the_script_is_printed(capsys):
    done = subprocess.run(
        [sys.executable, "-m", "ops", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == completion.script("bash") + "\n"


@pytest.fixture
def broken(tmp_path):
    """Runs a command of `ops` where a module with handlers is broken."""
    (tmp_path / "broken_handlers.py").write_text("def (\n")
    given = {"HANDLERS": "broken_handlers", "DEFAULT_HANDLER": "mine", "PYTHONPATH": f"{ROOT}:{tmp_path}"}

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "ops", *words],
            env={**os.environ, **given},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_what_only_looks_works_while_handlers_are_broken(broken):
    done = broken("workers", "list")
    assert (done.returncode, done.stdout) == (0, "no live workers\n"), done.stderr


def test_what_needs_handlers_says_what_is_wrong_with_them(broken):
    done = broken("jobs", "submit", '{"task": "noop"}')
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("djps: HANDLERS: cannot import 'broken_handlers': SyntaxError")


def test_a_reader_that_has_seen_enough_ends_it_without_a_word():
    typed = f"set -o pipefail; {sys.executable} -m ops chaos --list | true"
    done = subprocess.run(
        [shutil.which("bash"), "-c", typed], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
