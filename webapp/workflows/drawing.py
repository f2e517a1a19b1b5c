"""A workflow as a picture: the text of a Mermaid flowchart, which GitHub and many wikis draw. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from webapp.workflows.model import Kind, StepRow, StepStatus, When

#: Colours by status: background, border. Each status is said in words as well.
COLOURS: Final = {
    StepStatus.WAITING: ("#f4f4f5", "#a1a1aa"),
    StepStatus.RUNNING: ("#dbeafe", "#2563eb"),
    StepStatus.COMPLETED: ("#dcfce7", "#16a34a"),
    StepStatus.FAILED: ("#fee2e2", "#dc2626"),
    StepStatus.CANCELLED: ("#fef3c7", "#d97706"),
    StepStatus.SKIPPED: ("#ffffff", "#d4d4d8"),
}
#: What would be read as a part of the picture's own language.
_UNSAFE = re.compile(r"[^A-Za-z0-9_. -]")
_SHAPES: Final = {
    Kind.JOB: ('["', '"]'),
    Kind.MAP: ('[["', '"]]'),
    Kind.BATCH: ('[["', '"]]'),
    Kind.WORKFLOW: ('(["', '"])'),
}


def mermaid(steps: Sequence[StepRow]) -> str:
    """The flowchart of a workflow's steps.

    Args:
        steps: all of them, by number.
    """
    lines = ["flowchart TD"]
    for step in steps:
        before, behind = _SHAPES[step.kind]
        lines.append(f"  s{step.number}{before}{_safe(step.name)}<br/>{step.status.value}{behind}")
    for step in steps:
        arrow = "-->" if step.when is When.COMPLETED else f"-.->|{step.when.value}|"
        if step.undoes is not None:
            lines.append(f"  s{step.undoes} -.->|compensate| s{step.number}")
            continue
        lines += [f"  s{other} {arrow} s{step.number}" for other in step.after]
    for status, (background, border) in COLOURS.items():
        if numbers := [f"s{step.number}" for step in steps if step.status is status]:
            lines.append(f"  classDef {status.value} fill:{background},stroke:{border},color:#18181b")
            lines.append(f"  class {','.join(numbers)} {status.value}")
    return "\n".join(lines) + "\n"


def _safe(name: str) -> str:
    """A name that ends no text of the picture.

    Example:
        >>> _safe('a"]')
        'a#34;#93;'
    """
    return _UNSAFE.sub(lambda one: f"#{ord(one[0])};", name)
