"""The map of the modules is what the tree has."""

from __future__ import annotations

from ops import code_map


def test_the_map_is_what_the_tree_has():
    made = code_map.page().splitlines()
    stands = code_map.PAGE.read_text().splitlines()
    new, gone = sorted(set(made) - set(stands)), sorted(set(stands) - set(made))
    assert made == stands, f"run `python3 -m ops map` and commit ops/docs/map.md; new: {new}; gone: {gone}"
