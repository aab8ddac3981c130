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
OURS = ["tornado>=6.1", "future", "uvloop"]

# The newest first: ours and aiokatcp run on the first that both can be installed for.
NEW_PYTHONS = ["3.13", "3.12", "3.11"]
OLD_PYTHON = "3.9"


class Missing(Exception):
    """A competitor cannot take part; the text is what is missing."""


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
    """Whether it is more than pyenv's word that it could be installed."""
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


def make_new(folder: Path) -> tuple[str, Optional[str], str]:
    """Return the pythons for ours and for aiokatcp (None: not to be had), and the reason."""
    reasons = []
    for version in NEW_PYTHONS:
        try:
            rival = make_environment(folder / f"aiokatcp-{version}", version, AIOKATCP)
        except Missing as missing:
            reasons.append(str(missing))
            continue
        return make_environment(folder / f"ours-{version}", version, OURS), rival, ""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    ours = make_environment(folder / f"ours-{running}", running, OURS)
    return ours, None, "; ".join(reasons)
