"""The tests of katcp."""

import pytest

# Their asserts count too, also under ``python -O``.
pytest.register_assert_rewrite(
    "tests.abnf",
    "tests.command",
    "tests.faultproxy",
    "tests.kit",
    "tests.process",
    "tests.replay",
    "tests.snippets",
    "tests.tlsrelay",
)
