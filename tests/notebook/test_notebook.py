"""The notebooks of the documentation, and what a notebook shows, in real kernels.

Not part of the default run: ``tox -e notebook`` brings the newest notebook and kernel.
"""

import base64
import os
import subprocess
import sys

import nbclient
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from katcp.simdevice import SimulatedDevice
from tests.support.snippets import DOCS, ROOT

NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))

# Seconds: a kernel on a slow machine takes some to start.
TIMEOUT = 60.0

START = """
from katcp import AsyncClient, BlockingClient, Message
from katcp.simdevice import SimulatedDevice

device = SimulatedDevice()
device.start()
client = BlockingClient(*device.address)
client.start()
assert client.wait_protocol(timeout=10)
reply, informs = client.blocking_request(Message.request("help", "watchdog"))
flags = client.protocol_flags
"""

STOP = """
client.stop()
device.stop()
"""


class Kernel:
    """A kernel in which code is run and completed as a person does it."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(startup_timeout=TIMEOUT)

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def run(self, code):
        """Run a cell and return what it shows, all in one text."""
        shown = []

        def on_output(message):
            content = message["content"]
            assert message["msg_type"] != "error", "\n".join(content["traceback"])
            shown.append(content["data"]["text/plain"] if "data" in content else "")
            shown.append(content.get("text", ""))

        self.client.execute_interactive(code, timeout=TIMEOUT, output_hook=on_output)
        return "".join(shown)

    def complete(self, code):
        """Return what the key TAB offers after *code*."""
        wanted = self.client.complete(code, len(code))
        while True:
            message = self.client.get_shell_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == wanted:
                return message["content"]["matches"]


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Kernels are other processes, and zmq keeps sockets of its own as long as it likes."""


@pytest.fixture(scope="module", autouse=True)
def checkout():
    """Let the kernels find this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        patch.setenv("PYTHONPATH", path)
        yield


@pytest.fixture(scope="module")
def kernel():
    kernel = Kernel()
    kernel.run(START)
    yield kernel
    kernel.run(STOP)
    kernel.stop()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_plots(path):
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=TIMEOUT).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    # Nothing is printed or logged in passing.
    assert {output.output_type for output in outputs} <= {"execute_result", "display_data"}
    images = [output.data["image/png"] for output in outputs if "image/png" in output.data]
    assert len(images) == 1
    assert base64.b64decode(images[0]).startswith(b"\x89PNG")


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize(
    ("code", "some"),
    [
        ("client.", ["ask", "async_ask", "informs", "sensors", "stop", "wait_protocol"]),
        ("client.sensors.", ["async_find", "async_get", "find", "watch"]),
        ("Async", ["AsyncClient"]),
        ("reply.", ["arguments", "get_float", "get_text", "mid", "name", "reply_ok"]),
        ("informs[0].", ["arguments", "get_float", "name"]),
        ("flags.", ["major", "message_ids", "minor", "supports"]),
        ("Message.re", ["Message.request", "request"]),
        ("device.", ["add_sensor", "assert_asked", "faults", "received", "set_sensor"]),
    ],
)
def test_completion(kernel, code, some):
    offered = kernel.complete(code)
    names = {name.rpartition(".")[2] for name in offered}
    assert {name.rpartition(".")[2] for name in some} <= names
    assert not [name for name in names if name.startswith("_") or name == "MAX_LOG_RATE"]


def test_completion_calls_nothing(kernel):
    """Neither properties nor the device: TAB must be free of consequences."""
    kernel.run(
        """
        from katcp import DeviceClient

        properties = [name for name, it in vars(DeviceClient).items() if isinstance(it, property)]
        assert "protocol_flags" in properties

        class Watched(BlockingClient):
            looked_at = []

            def __getattribute__(self, name):
                if name in properties:
                    Watched.looked_at.append(name)
                return super().__getattribute__(name)

        watched = Watched(*device.address)
        Watched.looked_at.clear()
        """
    )
    before = kernel.run("device.received")
    assert "protocol_flags" in kernel.complete("watched.")
    assert "supports" in kernel.complete("watched.protocol_flags.")
    assert kernel.run("Watched.looked_at") == "[]"
    assert kernel.run("device.received") == before


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("client", "<BlockingClient 127.0.0.1:* connected>"),
        ("device", "<SimulatedDevice 127.0.0.1:* 5.1-BIM 1 connected>"),
        ("flags", "<ProtocolFlags 5.1-BIM>"),
        ("reply", "<Message reply help[1] (b'ok', b'1')>"),
        (
            "reply, informs",
            "(<Message reply help[1] (b'ok', b'1')>, [<Message inform help[1] "
            "(b'watchdog', b'Tell that the device is alive (?watchdog).')>])",
        ),
        ("device.sensors['temperature']", "<Sensor temperature float degC>"),
        ("client.ask('watchdog')", "<Answer <Message reply watchdog[*] (b'ok')>>"),
        (
            "client.ask('help', 'watchdog')",
            "<Answer <Message reply help[*, 1 inform> 0 1 arguments b'1' informs[0] "
            "b'watchdog' b'Tell that the device is alive (?'... (42 bytes)",
        ),
        (
            "{'watchdog': client.ask('help', 'watchdog')}",
            "{'watchdog': <Answer <Message reply help[*] (b'ok', b'1')>, 1 inform>}",
        ),
        ("client.sensors", "<Sensors of 127.0.0.1:*>"),
        ("client.sensors['temperature']", "<RemoteSensor temperature: float in degC>"),
        (
            "client.sensors['mode'].read()",
            "Reading(timestamp=*, status=<Status.NOMINAL: 1>, value='idle')",
        ),
        (
            "client.blocking_request(Message.request('read', 'bram', 0, 1000))[0].copy()",
            "<Message reply read (b'ok', b'" + "\\x00" * 120 + "'... (1000 bytes))>",
        ),
    ],
)
def test_what_is_shown(kernel, code, shown):
    text = " ".join(kernel.run(code).split())
    beginning, _, end = shown.partition("*")
    assert text.startswith(beginning)
    assert text.endswith(end)
    assert "*" in shown or text == shown


def test_the_example_plots_with_matplotlib():
    program = ROOT / "examples" / "plot_sensor.py"
    options = ["--window", "--period", "0.01", "--count", "5"]
    with SimulatedDevice() as device:
        done = subprocess.run(
            [sys.executable, program, *map(str, device.address), *options],
            env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
        )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
