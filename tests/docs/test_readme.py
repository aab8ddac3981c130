"""Every block of code in README.md runs, and prints what it should."""

import re

import pytest

import katcp
from katcp.cli import main
from katcp.simdevice import SimulatedDevice
from tests.support.snippets import PORT, ROOT, markdown_blocks

README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
BLOCKS = markdown_blocks(README)

PRINTED = {
    "script": r"temperature is \d+\.\d+ degC\n",
    "watch": r"((counter is \d+|mode is idle) nominal\n)*counter is \d*[05] nominal\n",
    "ask": r"Tell that the device is alive .*\n",
    "asyncio": r"mode is idle\nlabel is simulated device\nTell that .*\n",
    "0.9": r"connected\nnow idle\nTrue\ndisconnected\n",
}


def test_there_is_a_block_for_each_way():
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize(("way", "block"), list(zip(PRINTED, BLOCKS)), ids=list(PRINTED))
def test_block(way, block, capsys):
    assert f'("localhost", {PORT})' in block
    with SimulatedDevice() as device:
        code = block.replace(PORT, str(device.address[1]))
        exec(compile(code, f"README.md, {way}", "exec"), {"__name__": "__main__"})
    assert re.fullmatch(PRINTED[way], capsys.readouterr().out)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", README + CONTRIBUTING))
def test_links_lead_to_files(target):
    assert (ROOT / target).is_file()


def test_the_two_commands_stand_alone():
    commands = re.findall(r"^    (.+)$", README, re.MULTILINE)
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/katcp demo" in commands
    assert "bash .ci/run" in commands


@pytest.mark.parametrize("arguments", re.findall(r"^    \.venv/bin/katcp (.+)$", README, re.M))
def test_commands_that_look_at_the_device(arguments, capsys, monkeypatch):
    with SimulatedDevice() as device:
        monkeypatch.setenv("KATCP_DEVICE", "{}:{}".format(*device.address))
        if arguments.startswith("simulate"):
            # It would run for ever.
            arguments += " --help"
            with pytest.raises(SystemExit, match="^0$"):
                main(arguments.split())
        else:
            assert main(arguments.split()) == 0
    assert capsys.readouterr().out


def test_contributing_names_all_environments():
    named = set(re.findall(r"`([a-z0-9-]+)`", CONTRIBUTING.split("| `tox -e` |")[1].split("##")[0]))
    settings = (ROOT / "tox.ini").read_text("utf-8")
    environments = set(re.findall(r"^\[testenv:([a-z-]+)\]", settings, re.MULTILINE))
    assert named - {"py39", "py315"} == environments - {"demo"}


def test_all_name_the_same_pythons():
    versions = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text("utf-8"))
    named = f"Python {versions[0]} to {versions[-1]}"
    for page in ("README.md", "CHANGELOG.md", "docs/index.rst"):
        assert named in (ROOT / page).read_text("utf-8")
    factors = ",".join(version.replace(".", "") for version in versions)
    assert f"py{{{factors}}}" in (ROOT / "tox.ini").read_text("utf-8")


def test_changelog_begins_with_this_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == katcp.__version__
