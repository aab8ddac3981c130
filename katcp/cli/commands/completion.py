"""``katcp completion``: completion of commands, options, and the device's names with Tab.

The work is done by ``argcomplete``: when Tab is pressed, the shell runs ``katcp`` with the line in
its environment, and `complete` answers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Any, Callable, Sequence

from ..connect import CommandClient, ask_all, connected
from ..devices import Address, read_nicknames, split_devices
from ..names import Names, candidates, make_names
from ..options import Parser, parse
from ..output import HOW_TO_INSTALL, OK, USAGE, CommandError, printable

SHELLS = ("bash", "zsh", "fish")
# How many seconds a device may take to answer: the user is waiting.
PATIENCE = 1.0

EXAMPLES = """
completion bash >> ~/.bashrc
completion zsh >> ~/.zshrc
completion fish > ~/.config/fish/completions/katcp.fish
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "completion",
        help="print the code for completion with Tab",
        description="Print shell code that makes Tab complete commands, options, nicknames, and\n"
        "the requests and sensors of the device. Needs the extra 'cli'.",
        usage="bash|zsh|fish",
        examples=EXAMPLES,
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if len(options.words) != 1 or options.words[0] not in SHELLS:
        raise CommandError(f"which shell? one of {', '.join(SHELLS)}", USAGE)
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise CommandError(f"for completion, {HOW_TO_INSTALL}", USAGE) from None
    print(shellcode(["katcp"], shell=options.words[0]))
    return OK


def complete(make_parser: Callable[[], tuple[Parser, Any]]) -> None:
    """Answer the shell and exit, if it asks for completions."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    def complete_words(**_: Any) -> Names:
        line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
        words = argcomplete.lexers.split_line(line, point)[3]
        with contextlib.suppress(CommandError):
            options = parse(*make_parser(), words[1:])
            return _WORDS[words[1]](options)
        return {}

    parser, commands = make_parser()
    for name, command in commands.choices.items():
        command.words.completer = complete_words if name in _WORDS else None
        for action in command._actions:
            if "--device" in action.option_strings:
                action.completer = _complete_device
    argcomplete.autocomplete(parser, always_complete_options=False)


def _complete_device(**_: Any) -> Names:
    return read_nicknames()


def _complete_request(options: argparse.Namespace) -> Names:
    (device, *_), before = split_devices(options.device, options.words)
    is_first = not options.device and not options.words
    return {**(read_nicknames() if is_first else {}), **_ask(options, device, before)}


def _complete_filter(options: argparse.Namespace) -> Names:
    devices, filters = split_devices(options.device, options.words, most=None)
    more = {} if options.device or filters else read_nicknames()
    return {**more, **_ask(options, devices[0], ["sensor-value"])}


def _ask(options: argparse.Namespace, device: Address, before: Sequence[str]) -> Names:
    """Return the device's names that may follow some words of a request."""
    options.timeout = PATIENCE
    with connected(CommandClient(options, device)) as client:

        def look_up(kind: str) -> Names:
            informs = ask_all(client, kind)
            return make_names(kind, [[*map(printable, it.arguments)] for it in informs])

        return candidates(before, look_up)


_WORDS: dict[str, Callable[[argparse.Namespace], Names]] = {
    "request": _complete_request,
    "sensors": _complete_filter,
    "watch": _complete_filter,
    "log": lambda options: read_nicknames(),
    "shell": lambda options: {} if options.words else read_nicknames(),
    "completion": lambda options: dict.fromkeys(SHELLS, ""),
    "help": lambda options: dict.fromkeys(options.commands, ""),
}
