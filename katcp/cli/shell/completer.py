"""Completion in ``katcp shell``."""

from __future__ import annotations

import itertools
from typing import Callable, Iterable

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from ..names import Names, candidates, first_line


class RequestCompleter(Completer):
    """Completes names of requests, and arguments if the help describes them."""

    def __init__(self, look_up: Callable[[str], Names], local: Names) -> None:
        self._look_up = look_up
        self._local = local

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield the names that begin with the word at the cursor, then those that contain it."""
        word = document.get_word_before_cursor(WORD=True)
        # Of pasted lines, the one with the cursor.
        line = document.current_line_before_cursor
        before = line[: -len(word) or None].split()
        if not before:
            word = word.removeprefix("?")
        names = candidates(before, self._look_up)
        if not before:
            names = {**self._local, **names}
        fitting = [name for name in names if name.startswith(word)]
        for name in sorted(fitting or [name for name in names if word.lower() in name.lower()]):
            yield Completion(name, -len(word), display_meta=first_line(names[name]))


def complete_now(buffer: Buffer) -> None:
    """Complete the word before the cursor, and show a menu if there are several choices.

    The unambiguous part is on the line on return: Enter, however soon it follows, sends what the
    line shows. The menu comes later, and changes nothing by itself.
    """
    if buffer.complete_state is not None:
        buffer.complete_next()
        return
    assert buffer.completer is not None
    found = list(buffer.completer.get_completions(buffer.document, CompleteEvent(True)))
    if len(found) == 1:
        buffer.apply_completion(found[0])
    elif found:
        _insert_common_part(buffer, found)
        buffer.start_completion()


def _insert_common_part(buffer: Buffer, found: list[Completion]) -> None:
    """Insert the common prefix of all completions, if that is longer than what is typed."""
    # The common prefix of the first and the last in alphabetical order is that of all.
    first, last = min(it.text for it in found), max(it.text for it in found)
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last))
    common = "".join(character for character, _ in pairs)
    start = -found[0].start_position
    if len(common) > start:
        buffer.apply_completion(Completion(common, -start))
