"""Rules that a request broke, as an answer names them: which field, which rule, what was given.

The words are those of `webapp/jobs/broken_rules.py`, which programs that submit without HTTP are told as well.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from webapp.jobs.broken_rules import field_of, rule_of, shown

#: Most broken rules that are named in one answer: who sent ten thousand of them looks at the first ones.
MAX_BREACHES = 20


class Breach(BaseModel):
    """One rule that a request broke."""

    model_config = ConfigDict(extra="forbid")

    field: str
    rule: str
    given: str


def breaches_of(error: ValidationError, *under: str, secret: bool = False) -> list[Breach]:
    """The rules that a request or an item of a batch broke.

    Args:
        under: the path of the value that was looked at.
        secret: do not repeat what was given.
    """
    return [
        Breach(
            field=field_of(item, *under) or "body",
            rule=rule_of(item),
            given="not shown" if secret else shown(item["input"]),
        )
        for item in error.errors(include_url=False)[:MAX_BREACHES]
    ]
