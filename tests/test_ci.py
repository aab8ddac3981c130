"""The scripts of CI, as far as they can be tried without a network."""

import subprocess
import sys

from tests.support.snippets import ROOT


def test_pythons_that_cannot_be_had_are_told_of_in_one_line(tmp_path):
    (tmp_path / "python3.98").symlink_to(sys.executable)
    run = subprocess.run(
        [sys.executable, ROOT / ".ci" / "pythons.py", tmp_path / "pythons", "3.98", "3.99"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    reason = "[Errno 2] No such file or directory: 'apt-get'"
    assert run.stdout == f"Not all of Python 3.99 can be had here: {reason}\n"
    assert run.stderr == ""
    assert not (tmp_path / "pythons").exists()
