"""What settings may be, as far as their fields say: read from the source, for before anything is installed nothing can import it."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.stack.venv import ROOT

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


@dataclass(frozen=True, slots=True)
class Choices:
    """What a word may be."""

    names: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"must be one of {', '.join(self.names)}"

    def admits(self, text: str) -> bool:
        """True unless a value is surely refused by the settings."""
        return text in self.names


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a text must look like."""

    expression: str

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"must match {self.expression}"

    def admits(self, text: str) -> bool:
        """True unless a value is surely refused by the settings."""
        # What Python and the settings understand by the end of a line is not the same.
        return "\n" in text or re.search(self.expression, text) is not None


Rule = Bounds | Choices | Pattern


def breach(given: Mapping[str, str], folder: Path = ROOT / "webapp" / "settings") -> str | None:
    """A sentence about a setting that is not what its field says; None when there is none."""
    for name, rule in known(folder).items():
        if name in given and not rule.admits(given[name]):
            # What stands in the place of a key's hash may be the key.
            shown = "a text that is not shown" if name.endswith("_SHA256") else repr(given[name][:80])
            return f"{name}: {rule.rule} (given: {shown})"
    return None


def known(folder: Path = ROOT / "webapp" / "settings") -> dict[str, Rule]:
    """The rules of settings, by variable."""
    return dict(one for file in sorted(folder.glob("*.py")) for one in _fields(ast.parse(file.read_text())))


def _fields(tree: ast.Module) -> Iterator[tuple[str, Rule]]:
    """What `name: int = Field(default, ge=..., le=...)` says, for each such line of a class."""
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=ast.Call(keywords=given)):
                said = {
                    one.arg: one.value.value
                    for one in given
                    if one.arg is not None and isinstance(one.value, ast.Constant)
                }
                if (rule := _rule(kind, said)) is not None:
                    yield str(said.get("alias", name.upper())), rule


def _rule(kind: ast.expr, said: Mapping[str, Any]) -> Rule | None:
    """The rule of a field: its annotation, and the constants that it was given."""
    match kind:
        case ast.Name(id="int" | "float" as number):
            return Bounds(number == "int", {name: said[name] for name in _LIMITS if name in said})
        case ast.Name(id="str") if "pattern" in said:
            return Pattern(said["pattern"])
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=names)):
            return Choices(tuple(one.value for one in names if isinstance(one, ast.Constant)))
    return None
