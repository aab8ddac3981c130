"""Make the virtualenvs in which the peers run; those that are there are kept.

    python environments.py DIRECTORY

Neither peer can be installed beside the library: katcp 0.9.3 needs a tornado
that is as old as itself. Where a Python is missing, that is said in one line.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Iterator, NamedTuple


class Environment(NamedTuple):
    """A virtualenv: its name, the Pythons it can be made with, and what is in it."""

    name: str
    pythons: tuple[str, ...]
    requirements: tuple[str, ...]


ENVIRONMENTS = [
    Environment("katcp", ("3.9", "3.8"), ("katcp==0.9.3", "tornado==4.5.3")),
    Environment("aiokatcp", ("3.11", "3.12", "3.13"), ("aiokatcp==2.3.0",)),
]


def python_of(directory: pathlib.Path, name: str) -> pathlib.Path:
    """Return the interpreter of the virtualenv *name*."""
    return directory / name / "bin" / "python"


def make(environment: Environment, directory: pathlib.Path) -> None:
    """Make the virtualenv, unless a finished one is there."""
    root = directory / environment.name
    # Written last: a virtualenv without it is half made, or made for something else.
    finished = root / "finished.json"
    wanted = json.dumps(environment.requirements)
    python = python_of(directory, environment.name)
    # The Python that it was made with may be gone: then its link leads nowhere.
    if python.exists() and finished.exists() and finished.read_text() == wanted:
        return
    subprocess.run([find_python(environment), "-m", "venv", "--clear", root], check=True)
    pip = [python, "-m", "pip"]
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *options, *environment.requirements], check=True)
    finished.write_text(wanted)


def find_python(environment: Environment) -> str:
    """Return a Python that can make this virtualenv, or exit."""
    for version in environment.pythons:
        for candidate in _candidates(version):
            if _is_usable(candidate, version):
                return candidate
    *others, last = environment.pythons
    sys.exit(
        f"interop: no Python {', '.join(others)} or {last} found, which {environment.name} needs: "
        f"install one (pyenv install {environment.pythons[0]})"
    )


def _candidates(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield on_path
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv")
    for root in sorted(pyenv.glob(f"versions/{version}.*")):
        yield str(root / "bin" / "python")


def _is_usable(python: str, version: str) -> bool:
    """Return whether it runs: pyenv puts shims on the path that only say that they do not."""
    program = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", program], capture_output=True, text=True)
    except OSError:
        return False
    return answer.stdout.strip() == version


def main() -> None:
    (directory,) = sys.argv[1:]
    for environment in ENVIRONMENTS:
        make(environment, pathlib.Path(directory))


if __name__ == "__main__":
    main()
