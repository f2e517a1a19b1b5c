"""The page on testing handlers holds handlers, an application and their tests; they pass where nothing is set or runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What a user's shell has; and what has the suite measure what runs.
KEPT = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE_")}
PAGE = ROOT / "ops/docs/testing-handlers.md"


def test_the_pages_handler_passes_the_pages_tests(tmp_path):
    text = PAGE.read_text()
    names = re.findall(r"in `(\w+\.py)`:", text)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert names == ["mail_handlers.py", "test_mail_handlers.py", "shop.py", "conftest.py", "test_shop.py"]
    for name, block in zip(names, blocks, strict=True):
        (tmp_path / name).write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**KEPT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(block.count('def test_') for block in blocks)} passed" in done.stdout
