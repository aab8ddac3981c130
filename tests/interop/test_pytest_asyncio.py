"""Beside pytest-asyncio the fixtures of the plugin serve tests that are coroutines."""

from __future__ import annotations

import subprocess
import sys

from tests.support.helpers import PATIENCE
from tests.support.process import ENVIRONMENT
from tests.support.snippets import ROOT


def test_the_tests_of_the_example_pass() -> None:
    # The plugin is named, because it need not be installed here.
    plugins = ["-p", "pytest_katcp", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "examples/test_in_asyncio.py"],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=6 * PATIENCE,
    )
    assert "3 passed" in done.stdout, done
    assert done.returncode == 0
