"""Which files `ops up --reload` looks at, and when a change of them counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.cli import stack as commands
from ops.stack import preflight, reload
from ops.stack.stack import Stack, StackError
from webapp.settings import Settings


@pytest.fixture
def tree(tmp_path):
    """A module, a package, and what stands beside them."""
    for name in (
        "mine.py",
        "beside.py",
        ".hidden.py",
        "notes.txt",
        "pack/__init__.py",
        "pack/sub/deep.py",
        "other/far.py",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    return tmp_path


def names(tree, *modules):
    found = reload.look(reload.folders_of(modules, [str(tree / "nowhere"), str(tree)]))
    return sorted(str(file.relative_to(tree)) for file in found)


def test_of_a_module_its_folder_is_looked_at_and_of_a_package_all_that_is_below(tree):
    assert names(tree, "mine") == ["beside.py", "mine.py"]
    assert names(tree, "pack.sub.deep") == ["pack/__init__.py", "pack/sub/deep.py"]
    assert names(tree, "mine", "pack") == ["beside.py", "mine.py", "pack/__init__.py", "pack/sub/deep.py"]
    assert names(tree, "gone") == []


def test_a_change_counts_once_nothing_changes_any_more():
    looks = [{"a": 1}, {"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}, {"a": 3}, {"b": 1}, {"b": 1}]
    changes = reload.Changes(iter(looks).__next__)
    assert [changes.seen() for _ in looks[1:]] == [[], [], [], ["a"], [], [], ["a", "b"]]


def test_what_is_written_back_as_it_was_is_no_change():
    looks = [{"a": 1}, {"a": 2}, {"a": 1}, {"a": 1}]
    changes = reload.Changes(iter(looks).__next__)
    assert [changes.seen() for _ in looks[1:]] == [[], [], []]


def test_a_change_is_seen_by_time_or_size(tree):
    changes = reload.Changes(lambda: reload.look({tree: False}))
    os.utime(tree / "mine.py", ns=(1, 1))
    (tree / "beside.py").unlink()
    assert changes.seen() == []
    assert changes.seen() == [tree / "beside.py", tree / "mine.py"]


class Stood:
    """A stack that writes down what is restarted."""

    def __init__(self, error=None):
        self.restarted, self.error = [], error

    def environment(self):
        return {}

    def restart(self, name):
        if self.error is not None:
            raise self.error
        self.restarted.append(name)


@pytest.fixture
def loads(monkeypatch):
    def set_to(error):
        def try_handlers(environment):
            if error is not None:
                raise error

        monkeypatch.setattr(preflight, "try_handlers", try_handlers)

    return set_to


def test_after_a_change_api_and_workers_are_restarted(loads):
    loads(None)
    stack = Stood()
    said = reload.after(stack, [Path(f"/x/{letter}.py") for letter in "abcde"])
    assert stack.restarted == ["api", "worker", "maintenance"]
    assert said.startswith("a.py, b.py, c.py and 2 more changed: api, worker, maintenance restarted in ")


def test_what_cannot_be_loaded_changes_nothing(loads):
    loads(preflight.Refused("HANDLERS: no module named 'x'"))
    stack = Stood()
    said = reload.after(stack, [Path("/x/a.py")])
    assert stack.restarted == []
    assert (
        said == "a.py changed and cannot be loaded, what runs stays as it was: HANDLERS: no module named 'x'"
    )


def test_a_process_that_does_not_come_back_is_said(loads):
    loads(None)
    assert reload.after(Stood(StackError("worker does not stay up")), [Path("/x/a.py")]) == (
        "a.py changed: worker does not stay up"
    )


@pytest.mark.parametrize(
    ("handlers", "detach", "sentence"), [("mine", True, "--detach"), ("", False, "names none")]
)
def test_what_makes_no_sense_is_refused_before_anything_is_started(tmp_path, handlers, detach, sentence):
    stack = Stack(Settings(handlers=handlers, data_dir=str(tmp_path)))
    with pytest.raises(StackError, match=sentence):
        commands.up(stack, detach=detach, reloads=True)
    assert list(tmp_path.iterdir()) == []
