"""What is used of others that they do not promise: it is still there, and the page lists it."""

from __future__ import annotations

import codecs
import inspect
import re
import threading
from pathlib import Path

import pytest
from tornado.iostream import IOStream
from tornado.platform.asyncio import BaseAsyncIOLoop

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "architecture.rst"

# By the name on the page: in which file it is used, and as what it is found there.
USED = {
    "IOStream._handle_events": ("katcp/_net/stream.py", r"\b_handle_events\b"),
    "IOStream._state": ("katcp/_net/stream.py", r"\bself\._state\b"),
    "BaseAsyncIOLoop": ("katcp/ioloop_manager.py", r"\bBaseAsyncIOLoop\b"),
    "threading._register_atexit": ("katcp/_runtime/ending.py", r"\b_register_atexit\b"),
    "codecs.escape_decode": ("katcp/_wire/escaping.py", r"\bescape_decode\b"),
}


@pytest.mark.parametrize("name", USED)
def test_the_page_says_where_it_is_used(name):
    where, pattern = USED[name]
    assert re.search(rf"``{re.escape(name)}``\n +- ``{where[6:]}``", PAGE.read_text("utf-8"))
    users = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "katcp").rglob("*.py")
        if re.search(pattern, path.read_text("utf-8"))
    }
    # Parts of our own have a state, too.
    assert where in users
    if name != "IOStream._state":
        assert users == {where}


def test_tornado_tells_a_stream_of_its_events():
    parameters = list(inspect.signature(IOStream._handle_events).parameters)
    assert parameters == ["self", "fd", "events"], (
        "tornado calls IOStream._handle_events otherwise: PatientStream reads through "
        "read_from_fd() then, more slowly; adapt katcp/_net/stream.py"
    )


def test_a_stream_of_tornado_has_the_events_that_it_waits_for_in_its_state():
    source = inspect.getsource(IOStream)
    base = inspect.getsource(IOStream.__mro__[1])
    assert "update_handler(self.fileno(), self._state)" in source + base, (
        "tornado keeps what a stream waits for elsewhere than in _state: "
        "adapt PatientStream._handle_events in katcp/_net/stream.py"
    )


def test_a_loop_of_tornado_can_be_made_for_one_of_asyncio():
    assert "asyncio_loop" in inspect.signature(BaseAsyncIOLoop.initialize).parameters, (
        "tornado makes its loops otherwise: adapt IOLoopManager in katcp/ioloop_manager.py"
    )


def test_python_tells_when_the_main_thread_has_ended():
    assert hasattr(threading, "_register_atexit"), (
        "nothing tells when the main thread has ended: adapt katcp/_runtime/ending.py"
    )


def test_python_decodes_escapes():
    assert codecs.escape_decode(rb"\n\\") == (b"\n\\", 4), (
        "codecs.escape_decode is another: katcp/_wire/escaping.py must not use it any more"
    )
