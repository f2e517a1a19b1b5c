"""`ops completion`: a script that has a shell complete `python3 -m ops`, made from the commands as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ops.cli.commands import FORWARDED, parser
from ops.cli.stack import ALL
from ops.stack.stack import NAMES

#: The commands whose arguments are names of processes, and what they take beside them.
_OF_PROCESSES = {"restart": (ALL,), "stop": (), "logs": ()}

# Each shell asks the same function for the words that may follow some commands: `_djps_words "jobs submit"`.
_BASH = """\
_djps_words() {
    case "$1" in
%(cases)s
    esac
}
_djps_ops() {
    [ "${COMP_WORDS[1]}" = -m ] && [ "${COMP_WORDS[2]}" = ops ] && [ "$COMP_CWORD" -gt 2 ] || return 0
    local key="" word longer
    for word in "${COMP_WORDS[@]:3:COMP_CWORD-3}"; do
        longer="${key:+$key }$word"
        [ -n "$(_djps_words "$longer")" ] && key="$longer"
    done
    COMPREPLY=($(compgen -W "$(_djps_words "$key")" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -o bashdefault -F _djps_ops python3 python
"""
_ZSH = """\
_djps_words() {
    case "$1" in
%(cases)s
    esac
}
_djps_ops() {
    if [[ "${words[2]} ${words[3]}" != "-m ops" ]]; then
        _default
        return
    fi
    local key="" word longer
    for word in "${(@)words[4,CURRENT-1]}"; do
        longer="${key:+$key }$word"
        [[ -n "$(_djps_words "$longer")" ]] && key="$longer"
    done
    compadd -- ${=$(_djps_words "$key")} || _default
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _djps_ops python3 python
"""
_FISH = """\
function __djps_words
    switch "$argv"
%(cases)s
    end
end
function __djps_is_ops
    set -l words (commandline -opc)
    test (count $words) -ge 3; and test "$words[2] $words[3]" = "-m ops"
end
function __djps_ops
    set -l words (commandline -opc)
    set -l key
    for word in $words[3..]
        test (count $key) -eq 0; and test "$word" = ops; and continue
        test -n "$(__djps_words $key $word)"; and set key $key $word
    end
    string split -n ' ' -- "$(__djps_words $key)"
end
complete -c python3 -n __djps_is_ops -f -a '(__djps_ops)'
complete -c python -n __djps_is_ops -f -a '(__djps_ops)'
"""
_SCRIPTS = {
    "bash": (_BASH, '        "%s") echo "%s" ;;'),
    "zsh": (_ZSH, '        "%s") echo "%s" ;;'),
    "fish": (_FISH, "        case '%s'\n            echo '%s'"),
}


def script(shell: str) -> str:
    """What a shell must be given.

    Args:
        shell: bash, zsh or fish.
    """
    form, case = _SCRIPTS[shell]
    return form % {"cases": "\n".join(case % (key, " ".join(words)) for key, words in known().items())}


def known() -> dict[str, list[str]]:
    """The words that may follow some commands, such as `{"jobs": ["submit", "list", ...]}`."""
    root = parser()
    found = {"": [*root.commands, *root.options()]}
    for name, command in root.commands.items():
        if name in FORWARDED:
            continue
        names = [*NAMES, *_OF_PROCESSES[name]] if name in _OF_PROCESSES else []
        found[name] = [*command.choices(), *names, *command.options()]
    return found | dict(_forwarded())


def _forwarded() -> Iterator[tuple[str, list[str]]]:
    """The words of the application's own commands."""
    from flask_migrate.cli import db  # noqa: PLC0415 - these load the application, and only this needs it

    from webapp.cli import GROUPS  # noqa: PLC0415 - as above

    for group in (*GROUPS, db):
        yield str(group.name), [*group.commands, "--help"]
        for name, command in group.commands.items():
            yield f"{group.name} {name}", [*_options(command), "--help"]


def _options(command: click.Command) -> list[Any]:
    return [
        name
        for one in command.params
        if isinstance(one, click.Option)
        for name in one.opts
        if name.startswith("--")
    ]
