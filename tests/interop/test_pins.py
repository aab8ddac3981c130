"""Beside a program that pins katcp below 1, pip keeps this package, and its tornado."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import zipfile
from typing import Callable

import pytest

import katcp

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = ("katcp", "setup.py", "pyproject.toml", "README.md", "pytest_katcp.py")
PROGRAM = "pinning_program"
METADATA = f"Metadata-Version: 2.1\nName: {PROGRAM}\nVersion: 1.0\nRequires-Dist: katcp>=0.9.3,<1\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

Pip = Callable[..., str]


@pytest.fixture
def pip(tmp_path: pathlib.Path) -> Pip:
    """Run the pip of a fresh environment, and return what it says."""
    root = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", root], check=True)

    def pip(*args: object) -> str:
        command = [root / "bin" / "python", "-m", "pip", *map(str, args)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    return pip


@pytest.fixture
def ours(tmp_path: pathlib.Path, pip: Pip) -> pathlib.Path:
    """A wheel of this package, built elsewhere, so that the checkout stays clean."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, copy)
    (wheel,) = tmp_path.glob("katcp-*.whl")
    return wheel


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    """A wheel of a program that was written for katcp 0.9.3."""
    wheel = tmp_path / f"{PROGRAM}-1.0-py3-none-any.whl"
    info = f"{PROGRAM}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", METADATA)
        archive.writestr(f"{info}/WHEEL", WHEEL)
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.mark.timeout(600)
@pytest.mark.parametrize("order", ["first", "together", "last"])
def test_pip_keeps_this_package_beside_a_pin(
    pip: Pip, ours: pathlib.Path, program: pathlib.Path, order: str
) -> None:
    steps: dict[str, list[list[object]]] = {
        "first": [[ours], [program], ["--upgrade", "--upgrade-strategy", "eager", program]],
        "together": [[program, ours]],
        "last": [[program], [ours]],
    }
    for step in steps[order]:
        pip("install", "--quiet", *step)
    installed = {row["name"]: row["version"] for row in json.loads(pip("list", "--format=json"))}
    assert installed["katcp"] == katcp.__version__
    assert int(installed["tornado"].partition(".")[0]) >= 6
    assert "No broken requirements found" in pip("check")
