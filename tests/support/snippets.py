"""Find the code in README.md, in docs/ and in docstrings, and run it against a device.

The pages talk to ``"localhost", 7147``. When they are run, 7147 is replaced by
the port of a simulated device, in code and in what it should print.
"""

from __future__ import annotations

import doctest
import re
import textwrap
from pathlib import Path
from typing import Any, Iterator

from katcp import DeviceClient

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.rst") if "_build" not in path.parts)

PORT = "7147"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

_MARKDOWN_RE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_REST_RE = re.compile(
    r"^(?P<indent> *)\.\. code-block:: python\n(?: +:.*\n)*\n(?P<code>(?:(?P=indent) +.*\n|\n)+)",
    re.MULTILINE,
)


def markdown_blocks(text: str) -> list[str]:
    """Return the Python blocks of a Markdown text."""
    return _MARKDOWN_RE.findall(text)


def rest_snippets(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the snippets of a reST text in order, with their positions.

    A snippet is a str, or a list of `doctest.Example` that belong together.
    """
    found: list[tuple[int, Any]] = [
        (text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"]))
        for match in _REST_RE.finditer(text)
    ]
    found += [(example.lineno, [example]) for example in doctest.DocTestParser().get_examples(text)]
    return iter(sorted(found, key=lambda snippet: snippet[0]))


def run_page(path: Path, port: int) -> int:
    """Run all code of a page in one namespace; return how many snippets there were."""
    text = path.read_text("utf-8").replace(PORT, str(port))
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    try:
        for line, snippet in rest_snippets(text):
            count += 1
            if isinstance(snippet, str):
                exec(compile("\n" * line + snippet, str(path), "exec", optimize=0), names)
            else:
                run_examples(snippet, names, path)
    except BaseException:
        # A page that runs to its end stops its clients itself.
        for client in [value for value in names.values() if isinstance(value, DeviceClient)]:
            client.stop()
        raise
    return count


def run_examples(examples: list[Any], names: dict[str, Any], path: Path, line: int = 0) -> None:
    """Run examples of an interactive session; fail if they print something else."""
    test = doctest.DocTest(examples, names, path.name, str(path), line, None)
    # Without this, what an example defines would be forgotten with the test.
    test.globs = names
    output: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    runner.run(test, out=output.append, clear_globs=False)
    if runner.failures:
        raise AssertionError("".join(output))
