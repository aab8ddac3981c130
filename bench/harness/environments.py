"""The virtual environments of the competitors, made once and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional

OLD_KATCP = ["katcp==0.9.3", "tornado==4.5.3"]
AIOKATCP = ["aiokatcp==2.3.0"]
OURS = ["tornado>=6.1", "future"]

# The newest first: ours and aiokatcp run on the first for which both can be installed.
NEW_PYTHONS = ["3.13", "3.12", "3.11"]
OLD_PYTHON = "3.9"


class Missing(Exception):
    """A competitor cannot take part; the text says what is missing."""


def find_python(version: str) -> Optional[str]:
    """Return the interpreter of that version, from the path or from pyenv."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return getattr(sys, "_base_executable", sys.executable)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [*map(str, sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True))]
    on_path = shutil.which(f"python{version}")
    for candidate in [*candidates, on_path] if on_path else candidates:
        if _runs(candidate):
            return candidate
    return None


def _runs(python: str) -> bool:
    """Return whether it is a Python, not a shim of pyenv that offers to install one."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def make_environment(folder: Path, version: str, requirements: list[str]) -> str:
    """Return the python of a virtual environment that has *requirements*."""
    python = str(folder / "bin" / "python")
    done = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if done.exists() and done.read_text() == wanted:
        return python
    base = find_python(version)
    if base is None:
        raise Missing(f"there is no Python {version}")
    print(f"making {folder} ({', '.join(requirements)})", file=sys.stderr)
    subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
    if subprocess.run([*install, *requirements], stdout=sys.stderr, check=False).returncode:
        raise Missing(f"pip could not install {' '.join(requirements)} for Python {version}")
    done.write_text(wanted)
    return python


def make_old(folder: Path) -> str:
    """Return the python that has katcp 0.9.3."""
    return make_environment(folder / "old", OLD_PYTHON, OLD_KATCP)


def make_aiokatcp(folder: Path, version: str) -> str:
    """Return the python that has aiokatcp."""
    return make_environment(folder / f"aiokatcp-{version}", version, AIOKATCP)


def make_ours(folder: Path, version: str, *extras: str) -> str:
    """Return the python that has what ours needs, and *extras*."""
    name = "-".join(["ours", version, *extras])
    return make_environment(folder / name, version, [*OURS, *extras])


def choose_version(folder: Path) -> str:
    """Return the newest Python for aiokatcp and ours; if there is none, the one that runs this."""
    for version in NEW_PYTHONS:
        try:
            make_aiokatcp(folder, version)
            make_ours(folder, version)
        except Missing as missing:
            print(f"not on Python {version}: {missing}", file=sys.stderr)
        else:
            return version
    return f"{sys.version_info.major}.{sys.version_info.minor}"
