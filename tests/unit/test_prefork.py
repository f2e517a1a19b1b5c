from __future__ import annotations

import gc

from webapp.infra import prefork


def test_what_is_loaded_is_kept_and_garbage_is_looked_for_less_often():
    before = gc.get_threshold()
    try:
        prefork.share_memory()
        assert gc.get_freeze_count() > 1_000
        assert gc.get_threshold() == (prefork.YOUNG, *before[1:])
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
