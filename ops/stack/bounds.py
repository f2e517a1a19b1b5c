"""The bounds of numeric settings, read from their source: before anything is installed nothing can import it."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.stack.venv import ROOT

#: Annotations of settings that are numbers.
_NUMBERS = ("int", "float")
_LIMITS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number may be."""

    whole: bool
    limits: Mapping[str, float]

    @property
    def rule(self) -> str:
        """The rule in words.

        Example:
            >>> Bounds(True, {"ge": 1, "le": 64}).rule
            'must be a whole number from 1 to 64'
        """
        words = [f"{_LIMITS[name]} {limit:.12g}" for name, limit in sorted(self.limits.items())]
        return " ".join(["must be a whole number" if self.whole else "must be a number", *words])

    def admits(self, text: str) -> bool:
        """True unless a value is surely refused by the settings."""
        if "_" in text:
            # Settings take more of these than Python does.
            return True
        try:
            number = float(text)
        except ValueError:
            return False
        if math.isnan(number):
            return True
        inside = {
            "ge": number >= self.limits.get("ge", -math.inf),
            "gt": number > self.limits.get("gt", -math.inf),
            "le": number <= self.limits.get("le", math.inf),
            "lt": number < self.limits.get("lt", math.inf),
        }
        return all(inside[name] for name in self.limits) and not (self.whole and number % 1)


def breach(given: Mapping[str, str], folder: Path = ROOT / "webapp" / "settings") -> str | None:
    """A sentence about a setting that is no number, or out of its bounds; None when there is none."""
    for name, bounds in known(folder).items():
        if name in given and not bounds.admits(given[name]):
            return f"{name}: {bounds.rule} (given: {given[name][:80]!r})"
    return None


def known(folder: Path = ROOT / "webapp" / "settings") -> dict[str, Bounds]:
    """The bounds of every setting that is a number, by variable."""
    return dict(one for file in sorted(folder.glob("*.py")) for one in _fields(ast.parse(file.read_text())))


def _fields(tree: ast.Module) -> Iterator[tuple[str, Bounds]]:
    """What `name: int = Field(default, ge=..., le=...)` says, for each such line of a class."""
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=ast.Name(id=kind), value=ast.Call(keywords=given)
            ):
                if kind in _NUMBERS:
                    said = {
                        one.arg: one.value.value
                        for one in given
                        if one.arg in {*_LIMITS, "alias"} and isinstance(one.value, ast.Constant)
                    }
                    alias = str(said.pop("alias", name.upper()))
                    yield alias, Bounds(kind == "int", said)
