"""The doors: every public name is where programs look for it, and nothing else is public."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import katcp
import katcp.client
import katcp.compat
import katcp.core
import katcp.ioloop_manager
import katcp.version

PUBLIC = {
    "katcp": """
        AsyncClient BlockingClient CallbackClient DeviceClient DeviceLogger DeviceMetaclass
        KatcpClientDisconnected KatcpClientError KatcpClientStopped KatcpClientTimeout
        KatcpDeviceError KatcpSyntaxError KatcpTypeError KatcpVersionError AsyncReply FailReply
        Message MessageParser ProtocolFlags __version__
    """,
    "katcp.client": """
        AsyncClient BlockingClient CallbackClient DeviceClient make_threadsafe
        make_threadsafe_blocking request_check
        LatencyTimer ensure_native_str until_later
    """,
    "katcp.core": """
        Message MessageParser ProtocolFlags DeviceMetaclass
        AsyncReply FailReply KatcpClientDisconnected KatcpClientError KatcpDeviceError
        KatcpSyntaxError KatcpTypeError KatcpVersionError
        AsyncCallbackEvent AsyncEvent AsyncState LatencyTimer
        future_timeout_manager log_coroutine_exceptions log_future_exceptions
        until_any until_later until_some
        AttrDict DefaultAttrDict byte_chars convert_method_name encode_utf8_with_error_log
        ensure_native_str hashable_identity is_bytes is_text steal_docstring_from
        DEFAULT_KATCP_MAJOR FLOAT_TS_KATCP_MAJOR INTERFACE_CHANGED_KATCP_MAJOR MID_KATCP_MAJOR
        MS_TO_SEC_FAC SEC_TO_MS_FAC SEC_TS_KATCP_MAJOR VERSION_CONNECT_KATCP_MAJOR
    """,
    "katcp.ioloop_manager": """
        IOLoopManager IOLoopThreadWrapper ObjectWrapper ThreadSafeMethodAttrWrapper
        with_relative_timeout
    """,
    "katcp.server": "DeviceLogger",
    "katcp.compat": "byte_chars ensure_native_str is_bytes is_text",
}
DOORS = [katcp, katcp.core]


def short(value):
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("module", PUBLIC)
def test_the_names_are_where_programs_look_for_them(module):
    names = PUBLIC[module].split()
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("module", ["katcp", "katcp.core"])
def test_what_programs_look_for_is_exported(module):
    assert set(PUBLIC[module].split()) <= set(importlib.import_module(module).__all__)


def test_a_star_import_gives_the_public_names_and_nothing_else():
    namespace = {}
    exec("from katcp import *", namespace)
    del namespace["__builtins__"]
    assert set(namespace) == set(katcp.__all__)
    assert not [name for name, value in namespace.items() if isinstance(value, types.ModuleType)]
    private = [name for name in namespace if name.startswith("_")]
    assert private == ["__version__"]


@pytest.mark.parametrize("portal", DOORS, ids=short)
def test_no_name_is_exported_twice(portal):
    assert len(portal.__all__) == len(set(portal.__all__))


@pytest.mark.parametrize("portal", DOORS, ids=short)
def test_the_door_imports_no_name_that_it_does_not_export(portal):
    tree = ast.parse(inspect.getsource(portal))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
    assert imported == set(portal.__all__)


def is_documented(value):
    """Return whether *value* has a text of its own, not one of Exception, dict or object."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return isinstance(value, (int, float, str))
    inherited = [base.__doc__ for base in getattr(value, "__mro__", [None])[1:]]
    return bool(value.__doc__) and value.__doc__ not in inherited


@pytest.mark.parametrize("portal", DOORS, ids=short)
def test_what_is_exported_exists_and_is_documented(portal):
    assert [name for name in portal.__all__ if not is_documented(getattr(portal, name))] == []


def test_a_plain_import_is_enough_for_the_old_paths():
    # A new interpreter: here, the tests have imported everything already.
    program = (
        "import katcp; print(katcp.core.Message is katcp.Message is katcp.client.Message, "
        "katcp.compat.ensure_native_str(b'a'), katcp.ioloop_manager.IOLoopManager.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(katcp.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True a IOLoopManager\n", "")


def test_both_doors_lead_to_the_same_things():
    both = set(katcp.__all__) & set(katcp.core.__all__)
    assert len(both) > 10
    assert [name for name in both if getattr(katcp, name) is not getattr(katcp.core, name)] == []


def test_the_version_is_in_one_place():
    assert katcp.__version__ == katcp.version.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", katcp.__version__)
