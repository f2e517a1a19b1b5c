r"""Text from anywhere in a form that a terminal only shows: what would control it is written as an escape. Pure.

A key, a reason or an error's text may hold an escape sequence that clears the screen or types commands, a line break that
begins a false line, or an override that turns the reading direction.
"""

from __future__ import annotations

import json
import re
import unicodedata

#: All that may be more than a plain character; what it is, its category says.
_SUSPECT = re.compile(r"[^\x20-\x7e]")


def _steers(character: str) -> bool:
    """True for controls, formats, surrogates, what is private or unassigned, and separators of lines and paragraphs."""
    return unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"


def escaped(text: str) -> str:
    r"""The text in one line, with Python's escapes for what would control a terminal.

    Example:
        >>> escaped("\x1b[2J Zürich\n")
        '\\x1b[2J Zürich\\n'
    """
    return _SUSPECT.sub(
        lambda found: found[0].encode("unicode_escape").decode() if _steers(found[0]) else found[0], text
    )


def escaped_json(text: str) -> str:
    r"""JSON text that means the same, with JSON's escapes for what would control a terminal; its line breaks stay.

    Example:
        >>> escaped_json('"\x9b2J"')
        '"\\u009b2J"'
    """
    return _SUSPECT.sub(
        lambda found: json.dumps(found[0])[1:-1] if _steers(found[0]) and found[0] != "\n" else found[0], text
    )
