"""The tests of katcp."""

import pytest

# Their asserts count too, also under ``python -O``.
pytest.register_assert_rewrite(
    "tests.support.abnf",
    "tests.support.command",
    "tests.support.faultproxy",
    "tests.support.helpers",
    "tests.support.process",
    "tests.support.replay",
    "tests.support.snippets",
    "tests.support.steps",
    "tests.support.tlsrelay",
)
