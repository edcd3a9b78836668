"""``completion``: scripts that complete the command line in a shell. What fits is found by this program at each Tab.

The script asks ``PROGRAM __complete WORD...``, which prints what the last word can become, one a line: the word, a tab,
and what it is. So a script goes on to be right when commands and options are added.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from telemetry_broker.cli.connecting import OPTIONS, opened
from telemetry_broker.cli.output import line
from telemetry_broker.cli.parser import Command, Parser, describe
from telemetry_broker.errors import BrokerError

COMPLETE: Final = "__complete"

_BROKER_TIMEOUT: Final = 2.0
"""Seconds that a Tab waits for names from the broker."""

_BASH: Final = """\
{function}() {{
    local line
    COMPREPLY=()
    [[ "${{COMP_WORDS[*]:1:{skipped}}}" == "{module}" && $COMP_CWORD -gt {skipped} ]] || return
    while IFS= read -r line; do
        COMPREPLY+=("${{line%%$'\\t'*}}")
    done < <("${{COMP_WORDS[@]:0:{first}}}" {complete} "${{COMP_WORDS[@]:{first}:COMP_CWORD-{skipped}}}" 2>/dev/null)
}}
complete -o bashdefault -o default -F {function} {names}
"""
_ZSH: Final = """\
{function}() {{
    if [[ "${{words[2,{first}]}}" != "{module}" || $CURRENT -le {first} ]]; then
        _{name} "$@"
        return
    fi
    local line
    local -a found
    for line in "${{(@f)$("${{(@)words[1,{first}]}}" {complete} "${{(@)words[{first}+1,CURRENT]}}" 2>/dev/null)}}"; do
        [[ -n $line ]] && found+=("${{line%%$'\\t'*}}:${{line#*$'\\t'}}")
    done
    (( $#found )) && _describe -t values value found || _files
}}
compdef {function} {names}
"""
_FISH: Final = """\
function {function}
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1..{first}] {complete} $words[(math {first} + 1)..-1] 2>/dev/null)
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
"""
_FISH_NAME: Final = "complete -c {name} -f{condition} -a '({function})'\n"
_FISH_CONDITION: Final = ' -n \'set -l words (commandline -opc); test "$words[2..{first}]" = "{module}"\''
_SUMMARY: Final = "print a script that completes this command in a shell"
_TEXT: Final = """Commands, options and their values are completed; topics and groups too, where TELEMETRY_BROKER or
--broker says at which broker.

  bash, in ~/.bashrc                 eval "$(%(prog)s bash)"
  zsh, in ~/.zshrc behind compinit   eval "$(%(prog)s zsh)"
  fish, in ~/.config/fish/config.fish   %(prog)s fish | source"""
_SHELLS: Final = ("bash", "zsh", "fish")


def _add(parser: Parser) -> None:
    describe(parser, _SUMMARY, _run, text=_TEXT)
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))


COMMAND: Final = Command("completion", _SUMMARY, _add)


def _run(parsed: argparse.Namespace) -> int:
    # What a shell completes has one word. `python -m telemetry_broker` is completed as an argument of python.
    program, *module = parsed.prog.split()
    names = [program, f"{program}3"] if module else [program]
    told = {
        "function": f"_{(module or [program])[-1]}_completion",
        "name": program,
        "names": " ".join(names),
        "module": " ".join(module),
        "skipped": len(module),
        "first": len(module) + 1,
        "complete": COMPLETE,
    }
    match parsed.shell:
        case "bash":
            script = _BASH.format(**told)
        case "zsh":
            script = _ZSH.format(**told)
        case _:
            condition = _FISH_CONDITION.format(**told) if module else ""
            script = _FISH.format(**told)
            script += "".join(_FISH_NAME.format(**told | {"name": name, "condition": condition}) for name in names)
    line(script.rstrip())
    return 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a word can become."""

    word: str
    text: str = ""


def complete(root: Parser, words: Sequence[str]) -> int:
    """Prints what the last of the words behind the program's name can become, and returns the exit status."""
    for candidate in candidates(root, words):
        line(f"{candidate.word}\t{candidate.text}")
    return 0


def candidates(root: Parser, words: Sequence[str]) -> list[Candidate]:
    """What the last of the words can become, in alphabetical order."""
    *before, last = _joined(words) or [""]
    place = _Place(root)
    for word in before:
        place.go_on(word)
    return sorted(
        (each for each in place.candidates(wants_option=last.startswith("-")) if each.word.startswith(last)),
        key=lambda each: each.word,
    )


def _joined(words: Sequence[str]) -> list[str]:
    """The words as they were typed: bash breaks them at colons and equals signs."""
    joined: list[str] = []
    is_open = False
    for word in words:
        is_break = word != "" and not word.strip(":=")
        if joined and (is_break or is_open):
            joined[-1] += word
        else:
            joined.append(word)
        is_open = is_break
    return joined


@dataclass(slots=True)
class _Place:
    """Where in a command line we are."""

    parser: Parser
    expecting: argparse.Action | None = None
    """The option whose value comes next."""
    given: dict[str, str] = field(default_factory=dict)
    """Values of options and positional arguments, by destination."""
    used: set[str] = field(default_factory=set)

    def go_on(self, word: str) -> None:
        """Passes a word."""
        if self.expecting is not None:
            self.given[self.expecting.dest] = word
            self.expecting = None
        elif word.startswith("-"):
            name, equals, value = word.partition("=")
            action = next((each for each in self.parser.arguments() if name in each.option_strings), None)
            if action is not None:
                self.used.update(action.option_strings)
                if equals:
                    self.given[action.dest] = value
                elif action.nargs != 0:
                    self.expecting = action
        elif (action := self._positional()) is not None:
            if isinstance(action.choices, Mapping) and isinstance(found := action.choices.get(word), Parser):
                self.parser = found
            else:
                self.given[action.dest] = word

    def candidates(self, *, wants_option: bool) -> Iterable[Candidate]:
        """What can come next."""
        if self.expecting is not None:
            return self._values(self.expecting)
        if wants_option:
            return [
                Candidate(name, (each.help or "") % vars(each))
                for each in self.parser.arguments()
                for name in each.option_strings
                if name.startswith("--") and name not in self.used
            ]
        action = self._positional()
        return [] if action is None else self._values(action)

    def _positional(self) -> argparse.Action | None:
        """The next argument that is no option."""
        return next(
            (each for each in self.parser.arguments() if not each.option_strings and each.dest not in self.given), None
        )

    def _values(self, action: argparse.Action) -> Iterable[Candidate]:
        if isinstance(action.choices, Mapping):
            return [
                Candidate(name, (parser.description or "").partition("\n")[0])
                for name, parser in action.choices.items()
            ]
        if action.choices is not None:
            return [Candidate(str(choice)) for choice in action.choices]
        return self._names(action.dest) if action.dest in ("topic", "group") else []

    def _names(self, what: str) -> list[Candidate]:
        """Topics, or groups of the topic, as far as the broker says them soon."""
        told = {option: self.given.get(option) for option in OPTIONS}
        asked = argparse.Namespace(**told, prog=self.parser.prog)
        found: list[Candidate] = []

        def ask() -> None:
            try:
                with opened(asked) as broker:
                    if what == "topic":
                        found.extend(Candidate(topic.name) for topic in broker.topics())
                    else:
                        found.extend(Candidate(group.name, group.mode) for group in broker.groups(self.given["topic"]))
            except (BrokerError, KeyError):
                return  # a Tab is no place for an error

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_BROKER_TIMEOUT)
        return list(found)
