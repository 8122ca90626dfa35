"""Completion scripts for shells, made of the command line's own parser. Pure."""

import argparse
import shlex
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

SHELLS: Final = ("bash", "zsh", "fish")


class Option(NamedTuple):
    """An option that starts with two dashes."""

    name: str
    summary: str
    takes_value: bool
    choices: tuple[str, ...]


class Place(NamedTuple):
    """A place on the command line: after which subcommands, and what may come there."""

    at: str
    """The subcommands, joined by spaces; empty before the first."""
    words: tuple[tuple[str, str], ...]
    """Subcommands, or the choices of an argument, each with its summary."""
    options: tuple[Option, ...]


def places(parser: argparse.ArgumentParser, at: str = "") -> Iterator[Place]:
    """Yield all places of a parser, the outer ones first."""
    words: list[tuple[str, str]] = []
    options: list[Option] = []
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words += [(each.dest, str(each.help or "")) for each in action._choices_actions]
            inner += [(f"{at} {name}".strip(), each) for name, each in action.choices.items()]
        elif action.option_strings:
            options.append(_option(action))
        elif action.choices:
            words += [(str(choice), "") for choice in action.choices]
    yield Place(at, tuple(words), tuple(options))
    for place, each in inner:
        yield from places(each, place)


def _option(action: argparse.Action) -> Option:
    summary = str(action.help or "").partition(" (default")[0].replace("%%", "%")
    choices = tuple(str(choice) for choice in action.choices or ())
    return Option(action.option_strings[-1], summary, action.nargs != 0, choices)


def script(shell: str, program: str, parser: argparse.ArgumentParser) -> str:
    """Return the script that makes ``shell`` complete ``program``'s command lines."""
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return make(program, list(places(parser)))


def _bash(program: str, all_places: list[Place]) -> str:
    cases, values = [], []
    for place in all_places:
        words = [word for word, _ in place.words]
        words += [option.name for option in place.options]
        cases.append(f"        {shlex.quote(place.at)}) words={_joined(words)} ;;")
        values += [
            f"        {_quoted(place.at, option.name)}) words={_joined(option.choices)} ;;"
            for option in place.options
            if option.takes_value
        ]
    return f"""\
# bash completion for {program}: source <({program} completion bash)
_{program}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} at= words= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{at:+$at }}${{COMP_WORDS[i]}}" in
            {_patterns(all_places)}) at="${{at:+$at }}${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$at" in
{chr(10).join(cases)}
    esac
    # An option's value: one of its choices, else -o default completes file names.
    case "$at $prev" in
{chr(10).join(values)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _{program} {program}
"""


def _zsh(program: str, all_places: list[Place]) -> str:
    cases, values = [], []
    for place in all_places:
        words = " ".join(_described(word, summary) for word, summary in place.words)
        options = " ".join(_described(each.name, each.summary) for each in place.options)
        cases.append(
            f"        {shlex.quote(place.at)}) words_here=({words}) options=({options}) ;;"
        )
        for option in place.options:
            if option.takes_value:
                what = f"compadd {shlex.join(option.choices)}" if option.choices else "_files"
                values.append(f"        {_quoted(place.at, option.name)}) {what}; return ;;")
    return f"""\
#compdef {program}
# zsh completion for {program}: source <({program} completion zsh)
_{program}() {{
    local -a words_here options
    local at= word
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "${{at:+$at }}$word" in
            {_patterns(all_places)}) at="${{at:+$at }}$word" ;;
        esac
    done
    case "$at ${{words[CURRENT-1]}}" in
{chr(10).join(values)}
    esac
    case "$at" in
{chr(10).join(cases)}
    esac
    if [[ $PREFIX == -* ]]; then
        _describe option options
    elif (( $#words_here )); then
        _describe command words_here
    else
        _files
    fi
}}
if [[ $funcstack[1] == _{program} ]]; then
    _{program} "$@"
else
    compdef _{program} {program}
fi
"""


def _fish(program: str, all_places: list[Place]) -> str:
    known = " ".join(shlex.quote(place.at) for place in all_places if place.at)
    lines = []
    for place in all_places:
        condition = f"-n {_fish_quoted(f'__{program}_at {_fish_quoted(place.at)}')}"
        start = f"complete -c {program} {condition}"
        for word, summary in place.words:
            lines.append(f"{start} -f -a {_fish_quoted(word)} -d {_fish_quoted(summary)}")
        for option in place.options:
            value = ""
            if option.choices:
                value = f" -x -a {_fish_quoted(' '.join(option.choices))}"
            elif option.takes_value:
                value = " -r -F"
            name = option.name.removeprefix("--")
            lines.append(f"{start} -l {name}{value} -d {_fish_quoted(option.summary)}")
    return f"""\
# fish completion for {program}: {program} completion fish | source
function __{program}_at
    set -l at ''
    for word in (commandline -opc)[2..-1]
        set -l next (string trim -- "$at $word")
        contains -- "$next" {known}
        and set at "$next"
    end
    test "$at" = "$argv[1]"
end
{chr(10).join(lines)}
"""


def _patterns(all_places: list[Place]) -> str:
    return "|".join(shlex.quote(place.at) for place in all_places if place.at)


def _joined(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _quoted(at: str, option: str) -> str:
    return shlex.quote(f"{at} {option}")


def _described(word: str, summary: str) -> str:
    # A colon ends the word for _describe.
    return shlex.quote(f"{word}:{summary}" if summary else word)


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
