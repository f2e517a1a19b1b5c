"""A parser of command lines that groups its commands, shows examples, and names what was probably meant.

Standard library only: it works before anything is installed.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_NO_CHOICE = re.compile(r"invalid choice: '?(?P<given>[^'\s]+)'?")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as they are written, and says each option's default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, False, True, (), argparse.SUPPRESS) or not action.option_strings
        return action.help if silent else f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """A command line, or one command of it."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        shown = "\n".join(f"  {one}" for one in examples)
        kwargs.setdefault("formatter_class", _Formatter)
        kwargs.setdefault("epilog", f"examples:\n{shown}" if examples else None)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.groups: list[tuple[str, list[str]]] = []
        self.commands: dict[str, Parser] = {}
        self.says: dict[str, str] = {}

    def group(self, title: str, commands: argparse._SubParsersAction[Parser], **says: str) -> None:
        """Adds commands that belong together.

        Args:
            title: what they are for, in a word.
            says: each command's name and sentence.
        """
        self.groups.append((title, list(says)))
        for name, sentence in says.items():
            self.says[name] = sentence
            self.commands[name] = commands.add_parser(name, help=sentence, description=f"{sentence}.")

    def format_help(self) -> str:
        """The help; the commands in their groups, where there are groups."""
        if not self.groups:
            return super().format_help()
        width = max(map(len, self.says)) + 2
        parts = [f"usage: {self.prog} COMMAND ...\n\n{self.description}\n"]
        for title, names in self.groups:
            lines = "\n".join(f"  {name:<{width}}{self.says[name]}" for name in names)
            parts.append(f"{title}:\n{lines}\n")
        parts.append("`COMMAND --help` has a command's options and examples.\n")
        if self.epilog:
            parts.append(f"{self.epilog}\n")
        return "\n".join(parts)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parses a command line; what is not known ends the process with a sentence and exit code 2."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            command = self.commands.get(str(getattr(found, "command", "")), self)
            if not rest[0].startswith("-"):
                command.error(f"`{command.prog.rpartition(' ')[2]}` takes no {rest[0]!r}")
            unknown = rest[0].partition("=")[0]
            command.error(f"there is no {unknown}{meant(unknown, command.options())}")
        return found

    def options(self) -> list[str]:
        """The options there are, such as --json."""
        return [option for action in self._actions for option in action.option_strings]

    def choices(self) -> list[str]:
        """What its arguments may be, where that is a list; without options."""
        return [
            str(one) for action in self._actions if not action.option_strings for one in action.choices or ()
        ]

    def error(self, message: str) -> NoReturn:
        """Ends the process with a sentence, and with what was probably meant."""
        if (no_choice := _NO_CHOICE.search(message)) is not None:
            choices = [str(one) for action in self._actions for one in action.choices or ()]
            given = no_choice["given"]
            all_of_them = f" (there are: {', '.join(choices)})"
            message = f"there is no {given!r}{meant(given, choices) or all_of_them}"
        self.exit(2, f"ops: {message.removesuffix('.')}\nSee `{self.prog} --help`\n")


def meant(given: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of a sentence; empty where nothing is near.

    Example:
        >>> meant("stauts", ["up", "status"])
        "; did you mean 'status'?"
    """
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
