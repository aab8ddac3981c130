"""How a process ends whose program has started a client, and has not stopped it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from katcp import Message
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.process import ENVIRONMENT, PythonProcess

PROGRAM = """
import logging, sys
from katcp import BlockingClient
logging.basicConfig(level=logging.INFO)

class Client(BlockingClient):
    def inform_end(self, msg):
        self.stop()

def main():
    client = Client("127.0.0.1", {port})
    client.start()
    client.wait_protocol()
    return {status}

{end}
"""
LIVES_ON = "The main thread has ended, the process goes on until these stop: the client of 127.0"


@pytest.fixture
def device():
    with TestDevice() as device:
        yield device


def program(device, end, status="None"):
    return PROGRAM.format(port=device.address[1], end=end, status=status)


def ended(*arguments, typed=""):
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=ENVIRONMENT,
        input=typed,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        ("main(); 1 / 0", None, 1),
        ("main(); sys.exit(3)", None, 3),
        ("main(); sys.exit('failed')", None, 1),
        ("sys.exit(main())", 4, 4),
        ("main(); raise SystemExit(5)", None, 5),
        ("main(); raise KeyboardInterrupt", None, -2),
    ],
)
def test_after_a_failure_the_client_stops_and_the_process_ends(device, end, status, code):
    done = ended("-c", program(device, end, status))
    assert done.returncode == code, done.stderr
    assert "Client connect loop" in done.stderr
    assert LIVES_ON not in done.stderr


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("main()", None),
        ("sys.exit(main())", None),
        ("sys.exit(main())", 0),
        ("main(); sys.exit()", None),
        ("main()\ntry:\n    sys.exit(6)\nexcept SystemExit:\n    pass", None),
    ],
)
def test_a_program_whose_main_thread_simply_ends_lives_on(device, end, status):
    with PythonProcess("-c", program(device, end, status)) as process:
        while LIVES_ON not in process.error_line():
            assert process.is_running()
        device.inform(Message.inform("end"))
        assert process.end()[0] == 0


def test_after_an_interactive_session_the_client_stops(device):
    done = ended("-i", "-q", typed=f"exec({program(device, 'main()')!r})\nexit()\n")
    assert done.returncode == 0, done.stderr
    assert "Client connect loop" in done.stderr


def test_a_process_that_was_forked_ends_by_itself(device):
    end = "import os\nclient = main()\nos.fork() and (os.wait(), client.stop())\n1 / 0"
    done = ended("-c", program(device, end, "client"))
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("ZeroDivisionError") == 2
