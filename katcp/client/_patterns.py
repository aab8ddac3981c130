"""The names of sensors that a program asks for: a name, a pattern or a regular expression."""

from __future__ import annotations

import fnmatch
import re
from typing import Any, Callable, Optional, Union

_WILDCARDS = re.compile(r"[*?\[]")

Pattern = Union[str, "re.Pattern[str]"]


def regex_of(pattern: Pattern) -> Optional[str]:
    """Return a regular expression for the devices that know them; None: it is a name."""
    if isinstance(pattern, re.Pattern):
        return pattern.pattern
    if not _WILDCARDS.search(pattern):
        return None
    # Python wraps it in a group that other dialects do not know.
    translated = fnmatch.translate(pattern)
    match = re.fullmatch(r"\(\?s:(.*)\)\\[zZ]", translated)
    return f"^{match[1] if match else translated}$"


def matcher_of(pattern: Pattern) -> Callable[[str], Any]:
    """Return a function that tells whether a name matches."""
    if isinstance(pattern, re.Pattern):
        return pattern.search
    if not _WILDCARDS.search(pattern):
        return pattern.__eq__
    return re.compile(fnmatch.translate(pattern)).match
