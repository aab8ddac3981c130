"""Output formats for programs: JSON, a JSON object in each line, and CSV."""

from __future__ import annotations

import base64
import contextlib
import csv
import json
import sys
from typing import Any, Optional, Sequence, Union

from .output import is_terminal, printable, wants_colour

FORMATS = ("table", "json", "jsonl", "csv")

Record = dict[str, Any]


def json_text(data: bytes) -> Union[str, dict[str, str]]:
    """Return bytes for JSON: as text, or in base64 if they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def print_json(document: Any) -> None:
    """Print a JSON document: indented and coloured on a terminal, else in one line."""
    if not is_terminal(sys.stdout):
        print(_dumps(document))
        return
    text = _dumps(document, indent=2)
    if wants_colour(sys.stdout):
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.highlighter import JSONHighlighter

            Console(soft_wrap=True, force_terminal=True).print(JSONHighlighter()(text))
            return
    print(text)


def _dumps(document: Any, indent: Optional[int] = None) -> str:
    """Return JSON without control characters."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    )


class RecordWriter:
    """Writes records to the standard output."""

    def __init__(self, form: str, fields: Sequence[str]) -> None:
        self._form = form
        self._fields = fields
        if form == "csv":
            self._csv = csv.writer(sys.stdout, lineterminator="\n")
            self._csv.writerow(fields)
            # The first record may be long in coming.
            sys.stdout.flush()

    def write(self, record: Record) -> None:
        """Write one of many records, which arrive one by one."""
        if self._form == "csv":
            self._csv.writerow([_csv_cell(record[field]) for field in self._fields])
        elif self._form == "jsonl":
            print(_dumps(record))
        else:
            print_json(record)

    def write_all(self, records: Sequence[Record]) -> None:
        """Write all records at once: in JSON, as a list."""
        if self._form == "json":
            print_json(records)
            return
        for record in records:
            self.write(record)


def _csv_cell(value: Any) -> Any:
    """Return a value for CSV: None as nothing, bytes with escapes."""
    if isinstance(value, dict):
        return printable(base64.b64decode(value["base64"]))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else printable(value) if isinstance(value, str) else value
