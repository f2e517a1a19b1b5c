"""What the harness's workers are started from: `python -m ops.chaos.entry_tasks worker ...`. Beat is the product's."""

from __future__ import annotations

import sys

import tasks.celery  # noqa: F401 - all that a worker is made of, before anything in it is switched
from ops.chaos import switches
from tasks.__main__ import main

switches.throw()

if __name__ == "__main__":
    sys.exit(main(module=("-m", "ops.chaos.entry_tasks")))
