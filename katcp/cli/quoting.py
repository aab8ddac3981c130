r"""Quoting of arguments in ``katcp shell``: text to bytes and back.

Words are separated by blanks. A word, or a part of one, may be quoted: double quotes protect
blanks, single quotes protect everything. Elsewhere a backslash begins an escape: KATCP's own (``\_
\n \r \t \e \0 \@ \\``), ``\xff`` for any byte, and an escaped quote or blank is literal. Text is
UTF-8.

`quote` writes an argument so that `split` reads it.
"""

from __future__ import annotations

import re

_ESCAPES = {
    "_": b" ",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "e": b"\x1b",
    "0": b"\0",
    "@": b"",
    "\\": b"\\",
    '"': b'"',
    "'": b"'",
    " ": b" ",
}
_NAMES_OF_ESCAPES = {value: name for name, value in _ESCAPES.items() if name not in "_@"}

# A piece of a line: a quoted text, an escape, blanks, or plain text.
_PIECE_RE = re.compile(
    r"""'(?P<single>[^']*)'|(?P<blanks>[ \t]+)|(?P<quote>")|\\x(?P<byte>[0-9a-fA-F]{2})"""
    r"""|\\(?P<escape>[^x])|(?P<plain>[^\\"' \t]+)""",
    re.DOTALL,
)
_UNSAFE_RE = re.compile(r"""[\\"' \t\n\r\x1b\0]""")


class BadWords(Exception):
    """A line cannot be understood.

    Attributes
    ----------
    position : int
        The position in the line.
    """

    def __init__(self, text: str, position: int) -> None:
        super().__init__(text)
        self.position = position


def split(line: str) -> list[bytes]:
    """Split a line into words, as bytes, or raise `BadWords`.

    Bytes that are not UTF-8 are surrogates in *line*, as Python reads them from a terminal.
    """
    words: list[bytes] = []
    word: bytearray | None = None
    opened: int | None = None
    position = 0
    while position < len(line):
        match = _PIECE_RE.match(line, position)
        if opened is not None and line[position] == "'":
            # Nothing special in double quotes.
            piece, position = b"'", position + 1
        elif match is None:
            raise _bad(line, position)
        elif match["blanks"] is not None and opened is None:
            position = match.end()
            if word is not None:
                words.append(bytes(word))
            word = None
            continue
        else:
            if match["quote"] is not None:
                opened = position if opened is None else None
            piece, position = _meaning(match, position), match.end()
        word = bytearray() if word is None else word
        word += piece
    if opened is not None:
        raise BadWords("This quote is not closed.", opened)
    return words if word is None else [*words, bytes(word)]


def quote(argument: bytes) -> str:
    """Return an argument as text in one line, quoted if necessary."""
    text = argument.decode("utf-8", "surrogateescape")
    if text and text.isprintable() and not _UNSAFE_RE.search(text):
        return text
    quoted = "".join(map(_quote_character, text))
    return f'"{quoted}"' if not text or " " in text or "'" in text else quoted


def escape_bytes(line: str) -> str:
    r"""Return a line with ``\xff`` for bytes that are not UTF-8."""
    return re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", line)


def _quote_character(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return escape_bytes(character)
    if character == " " or (character.isprintable() and character not in '\\"'):
        return character
    data = character.encode("utf-8", "surrogatepass")
    name = _NAMES_OF_ESCAPES.get(data)
    return f"\\{name}" if name else "".join(f"\\x{byte:02x}" for byte in data)


def _meaning(match: re.Match[str], position: int) -> bytes:
    """Return the bytes of a piece."""
    if match["quote"] is not None:
        return b""
    if match["byte"] is not None:
        return bytes.fromhex(match["byte"])
    if match["escape"] is not None:
        try:
            return _ESCAPES[match["escape"]]
        except KeyError:
            raise _bad(match.string, position) from None
    text = match["single"] or match["blanks"] or match["plain"] or ""
    return text.encode("utf-8", "surrogateescape")


def _bad(line: str, position: int) -> BadWords:
    if line[position] == "'":
        return BadWords("This quote is not closed.", position)
    return BadWords(
        f"{line[position : position + 2]} is no escape: \\\\ is a backslash, \\xff a byte, "
        "and in '...' there are no escapes.",
        position,
    )
