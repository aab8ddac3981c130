"""The soak tool: it passes on what is well, and finds each growth that is made on purpose.

Not collected by default: ``tox -e soak``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.soak import LEAKS, MARGINS, Growth, Sample, after_warm_up, growths, main

ROOT = Path(__file__).resolve().parent.parent.parent


def samples(*values: float) -> list[Sample]:
    return [MARGINS._replace(memory=value) for value in values]


def test_the_thirds_are_compared_by_their_medians():
    memory = growths(samples(100, 9999, 101, 3, 4, 5, 8000, 8001, 1))[0]
    assert memory == Growth("memory", 101, 8000, 9999, 4096)
    assert memory.is_too_large


@pytest.mark.parametrize(("number", "left_out"), [(9, 3), (20, 6), (60, 9), (200, 20)])
def test_the_warm_up_is_left_out(number, left_out):
    taken = [(1000 * (position + 1), MARGINS) for position in range(number)]
    assert len(after_warm_up(taken)) == number - left_out


def test_a_single_outlier_is_no_growth():
    assert not any(growth.is_too_large for growth in growths(samples(*[100] * 8, 99999)))


def test_the_run_ends_when_the_counts_are_reached(capsys):
    assert main(["--seconds", "600", "--requests", "5000", "--informs", "50000"]) == 0
    assert " requests, " in capsys.readouterr().out


def test_too_short_a_run_is_no_success(capsys):
    assert main(["--seconds", "0"]) == 2
    assert "too few" in capsys.readouterr().err


@pytest.mark.timeout(300)
@pytest.mark.parametrize("leak", LEAKS)
def test_a_growth_is_found(leak):
    # Enough cycles after the warm-up that the thirds differ.
    command = [sys.executable, "-m", "tests.system.soak", "--requests", "15000", "--leak", leak]
    soak = subprocess.run(
        [*command, "--seconds", "240"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert soak.returncode == 1
    assert [line.split()[0] for line in soak.stdout.splitlines() if line.endswith("GROWS")] == [
        leak
    ]
