"""`ops new handler NAME`: writes a handler and its test, to begin with."""

from __future__ import annotations

import keyword
import re
import shlex
from pathlib import Path
from string import Template

from ops.stack.venv import ROOT

_HANDLER = Template('''\
"""Runs jobs whose payload says `"task": "$name"`."""

from __future__ import annotations

from typing import Any

from webapp.jobs import JobContext, handler


@handler("$name")
def $function(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Does the work of one job; what it returns is kept as the job's result."""
    context.logger.info("job runs", extra={"for": payload["for"]})
    return {"done": payload["for"]}
''')
_TEST = Template('''\
"""What becomes of jobs of `$name`."""

from __future__ import annotations

from $module import $function

from tasks import testing


def test_a_job_completes() -> None:
    outcome = testing.run($function, {"for": "ada"})
    assert isinstance(outcome, testing.Completed)
    assert outcome.result == {"done": "ada"}


def test_a_job_that_does_not_say_for_whom_is_tried_again() -> None:
    outcome = testing.run($function, {})
    assert isinstance(outcome, testing.Retried)
    assert outcome.error.summary == "KeyError: 'for'"
''')


class CannotWrite(Exception):
    """The files cannot be written; the message says why, and nothing was."""


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes a handler and its test; returns the paths of both.

    Args:
        name: what `payload["task"]` will say.
        folder: where.

    Raises:
        CannotWrite: the name breaks its rule, or there is such a file already.
    """
    # Only this command needs the handlers, and all of SQLAlchemy's and redis-py's modules with them.
    from webapp.jobs.handlers import NAME, load, registry  # noqa: PLC0415

    if not NAME.fullmatch(name):
        raise CannotWrite(f"a handler's name must match {NAME.pattern}; given: {name[:100]!r}")
    load((), "")
    if registry.get(name) is not None:
        raise CannotWrite(f"DJPS has a handler {name!r} of its own; take another name")
    function = function_of(name)
    module = f"{function.rstrip('_')}_handler"
    handler, test = folder / f"{module}.py", folder / f"test_{module}.py"
    if there := [path.name for path in (handler, test) if path.exists()]:
        raise CannotWrite(f"there is already {' and '.join(there)}; nothing was written")
    values = {"name": name, "function": function, "module": module}
    try:
        handler.write_text(_HANDLER.substitute(values))
        test.write_text(_TEST.substitute(values))
    except OSError as error:
        handler.unlink(missing_ok=True)
        raise CannotWrite(f"{folder} cannot be written: {error.strerror}") from None
    return handler, test


def function_of(name: str) -> str:
    """A function's name for a handler's. Pure.

    Example:
        >>> function_of("send-email"), function_of("2.orders"), function_of("import")
        ('send_email', 'job_2_orders', 'import_')
    """
    words = re.sub(r"\W", "_", name.lower())
    # pytest would take a module or a function whose name begins with `test` for tests.
    if words[0].isdigit() or words.startswith("test"):
        words = f"job_{words}"
    return f"{words}_" if keyword.iskeyword(words) else words


def told(handler: Path, test: Path) -> str:
    """What a terminal shows: what was written, and how to go on."""
    # Tests run, and `up` looks for modules, in the clone's folder.
    is_here = handler.parent.resolve() == ROOT
    where = "." if is_here else shlex.quote(str(handler.parent.resolve()))
    return (
        f"wrote {handler.name} and {test.name}\n"
        f"test it: python3 -m ops test {test.name if is_here else shlex.quote(str(test.resolve()))}\n"
        f"run it:  PYTHONPATH={where} HANDLERS={handler.stem} python3 -m ops up"
    )
