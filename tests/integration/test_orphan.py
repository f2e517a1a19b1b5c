from __future__ import annotations

import os

import pytest

from tasks import celery as root


@pytest.mark.parametrize(("parent", "code"), [(os.getpid, 7), (lambda: -1, 0)], ids=["lives", "died"])
def test_a_child_whose_parent_died_before_it_was_ready_ends(monkeypatch, parent, code):
    monkeypatch.setattr(root, "_pid", parent())
    child = os.fork()
    if child == 0:
        root._become_child()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
