"""The tests of katcp."""

import pytest

# Its asserts count too, also under ``python -O``.
pytest.register_assert_rewrite("tests.kit")
