"""Every block of code in README.md runs, and prints what it should."""

import re

import pytest

import katcp
from katcp.simdevice import SimulatedDevice

from .snippets import PORT, ROOT, markdown_blocks

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = markdown_blocks(README)

PRINTED = {
    "script": r"temperature is \d+\.\d+\n",
    "subclass": r"connected\nnow idle\ndisconnected\n",
    "shared loop": r"\d+ requests\n",
}


def test_there_is_a_block_for_each_habit():
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize(("habit", "block"), list(zip(PRINTED, BLOCKS)), ids=list(PRINTED))
def test_block(habit, block, capsys):
    assert f'("localhost", {PORT})' in block
    with SimulatedDevice() as device:
        code = block.replace(PORT, str(device.address[1]))
        exec(compile(code, f"README.md, {habit}", "exec"), {"__name__": "__main__"})
    assert re.fullmatch(PRINTED[habit], capsys.readouterr().out)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_to_files(target):
    assert (ROOT / target).is_file()


def test_the_two_commands_stand_alone():
    commands = re.findall(r"^    (.+)$", README, re.MULTILINE)
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/katcp demo" in commands
    assert "bash .ci/run" in commands


def test_changelog_begins_with_this_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == katcp.__version__
