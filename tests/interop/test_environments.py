"""What these tests rest on: a missing Python is told of, and no server outlives a test run."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.interop import environments
from tests.interop.environments import ENVIRONMENTS
from tests.interop.peers import KINDS
from tests.support.helpers import PATIENCE


def test_a_missing_python_is_told_of_in_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, environments.__file__, tmp_path / "peers"],
        env={"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == (
        "interop: no Python 3.9 or 3.8 found, which katcp needs: install one (pyenv install 3.9)\n"
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_a_python_that_only_pyenv_knows_is_found(environment, tmp_path, monkeypatch):
    """A shim on the path is there without the Python it stands for."""
    version = environment.pythons[-1]
    shim = tmp_path / f"python{version}"
    shim.write_text("#!/bin/sh\nexit 127\n")
    hidden = tmp_path / "versions" / f"{version}.1" / "bin" / "python"
    hidden.parent.mkdir(parents=True)
    hidden.write_text(f"#!/bin/sh\necho {version}\n")
    for script in (shim, hidden):
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert pathlib.Path(environments.find_python(environment)) == hidden


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_server_ends_with_a_test_run_that_is_killed(kind):
    program = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *kind.command(0)], stdout=subprocess.PIPE
    ) as test_run:
        assert test_run.stdout is not None
        assert int(test_run.stdout.readline())
        test_run.kill()
        # The server holds the other end: this ends when the server has.
        assert test_run.communicate(timeout=PATIENCE) == (b"", None)
