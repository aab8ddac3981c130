"""``katcp shell`` as an operator uses it, in a real terminal."""

from __future__ import annotations

import re
import signal

import pytest

from katcp.simdevice import Sensor
from tests.support.helpers import PATIENCE, TestDevice, closed_port
from tests.terminal.terminal import ScreenTerminal

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


@pytest.fixture
def open_shell(tmp_path):
    """Return a function that opens a shell on a device, and waits for its prompt."""
    terminals = []

    def open_shell(device, **environment):
        address = "{}:{}".format(*device.address)
        terminal = ScreenTerminal("shell", address, state=tmp_path, **environment)
        terminals.append(terminal)
        terminal.wait_line("Connected to 127.0.0.1")
        terminal.wait_prompt()
        return terminal

    yield open_shell
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def shell(open_shell, device):
    return open_shell(device)


def test_a_request_and_its_timing(shell):
    shell.type("count 2\r")
    shell.wait_line("!count ok 2")
    shell.wait_prompt()
    last = [line for line in shell.lines if line[:1] in "#!"]
    assert last[:2] == ["#count 0", "#count 1"]
    assert re.fullmatch(r"!count ok 2   \d+\.\d\d ms", last[2])


def test_greeting(shell):
    assert re.search(r": protocol 5\.1-BIM, \d+ requests, 0 sensors\.$", shell.lines[0])


def test_ctrl_d_ends(shell, device):
    shell.type(CTRL_D)
    assert shell.wait_end() == 0
    device.wait_until(lambda: not device.clients, PATIENCE)


@pytest.mark.parametrize("word", ["quit", "exit"])
def test_quit(shell, word):
    shell.type(f"{word}\r")
    assert shell.wait_end() == 0


def test_ctrl_c_clears_the_line(shell, device):
    shell.type("refuse")
    shell.wait_prompt("refuse")
    shell.type(CTRL_C)
    shell.wait_prompt()
    shell.type("echo\r")
    shell.wait_line("!echo ok")
    assert not device.received_requests("refuse")


def test_ctrl_c_gives_up_a_request(shell, device):
    shell.type("hold x\r")
    held = device.next_held()
    shell.wait_line("No reply yet; Ctrl-C gives up.")
    shell.type(CTRL_C)
    shell.wait_line("Gave up ?hold after")
    shell.wait_prompt()
    shell.type("echo still here\r")
    shell.wait_line("!echo ok still here")
    held.inform("at last")
    held.reply("ok")
    shell.wait_line('#hold "at last"   (late)')
    shell.wait_line("!hold ok   (late)")


def test_informs_are_shown_before_the_reply(shell, device):
    shell.type("hold x\r")
    held = device.next_held()
    held.inform("half way")
    shell.wait_line('#hold "half way"')
    held.reply("ok", "done")
    shell.wait_line("!hold ok done")


def test_completion_of_requests(shell):
    shell.type("ech\t")
    shell.wait_prompt("echo")
    shell.wait_line("?echo: Reply the arguments.")
    shell.type(" a\r")
    shell.wait_line("!echo ok a")
    shell.type("?ref\t")
    shell.wait_prompt("?refuse")


def test_completion_of_thousands_of_sensors(open_shell):
    sensors = [
        Sensor(f"m{number:03}.dig.temp-{number}", "float", units="degC", description="How warm")
        for number in range(3000)
    ]
    with TestDevice(sensors=sensors) as device:
        shell = open_shell(device)
        shell.wait_line("3000 sensors")
        shell.type("sensor-value m2718.d\t")
        shell.wait_prompt("sensor-value m2718.dig.temp-2718")
        shell.wait_line("m2718.dig.temp-2718: How warm (float in degC)")
        shell.type("\r")
        shell.wait_line("!sensor-value ok 1")
        # What is in the middle of a name is found, too.
        shell.type("sensor-value temp-1234\t")
        shell.wait_line("> sensor-value m1234.dig.temp-1234")
        shell.type(CTRL_C)
        shell.wait_prompt()
        shell.type("sensor-value m00\t")
        shell.wait_line("m001.dig.temp-1 ")


def test_completion_of_what_else_is_known(shell):
    shell.type("log-level deb\t")
    shell.wait_prompt("log-level debug")
    shell.type(CTRL_C)
    shell.wait_prompt()
    shell.type("sensor-sampling x event-\t")
    shell.wait_prompt("sensor-sampling x event-rate")


def test_completion_of_arguments_by_the_help(shell):
    """The help says what they are: a register, then numbers."""
    shell.type("read sys_s\t")
    shell.wait_prompt("read sys_scratchpad")
    shell.type(" \t")
    shell.wait_prompt("read sys_scratchpad")
    shell.type("\r")
    shell.wait_line("!read ok ")
    shell.type("wordread \t")
    shell.wait(lambda lines: {"bram", "sys_board_id"} <= {line.strip() for line in lines})
    shell.type(f"{CTRL_C}help wa\t")
    shell.wait_prompt("help watchdog")
    shell.type(f"{CTRL_C}log-level wa\t")
    shell.wait_prompt("log-level warn")


@pytest.mark.parametrize("attempt", range(3))
def test_tab_and_enter_together(attempt, open_shell):
    """What is on the line is what is sent, and what is kept."""
    sensors = [Sensor("temperature", "float"), Sensor("other", "float")]
    with TestDevice(sensors=sensors) as device:
        shell = open_shell(device)
        shell.type("sensor-value temp\t\r")
        shell.wait_line("!sensor-value ok 1")
        shell.wait_line("> sensor-value temperature")
        shell.wait_prompt()
        assert device.received_requests("sensor-value")[-1].arguments == [b"temperature"]
        shell.type("sensor-sampling temp\t ev\t\r")
        shell.wait_line("!sensor-sampling")
        shell.wait_prompt()
        shell.type(UP)
        shell.wait_prompt("sensor-sampling temperature event")


def test_tab_and_enter_where_several_fit(open_shell):
    sensors = [Sensor(f"temp-{number}", "float") for number in range(3)]
    with TestDevice(sensors=sensors) as device:
        shell = open_shell(device)
        shell.type("sensor-value te\t\r")
        shell.wait_line("!sensor-value fail")
        shell.wait_line("> sensor-value temp-")
        assert device.received_requests("sensor-value")[-1].arguments == [b"temp-"]


def test_comments(shell, device):
    shell.type("# a remark\r")
    shell.type("\x1b[200~echo 1\n  # another\n\necho 2\n\x1b[201~\r")
    shell.wait_line("!echo ok 2")
    assert [it.arguments for it in device.received_requests("echo")] == [[b"1"], [b"2"]]
    assert "not the name of a request" not in "".join(shell.lines)


@pytest.mark.parametrize("columns", [30, 60, 80, 200])
def test_toolbar_fits(columns, tmp_path, device):
    address = "{}:{}".format(*device.address)
    with ScreenTerminal("shell", address, state=tmp_path, columns=columns) as shell:
        shell.wait_line("Tab completes")
        texts = shell.lines[-1].split(", ")
    assert (
        texts
        == [
            "Tab completes",
            "help: all requests",
            "Ctrl-C gives up",
            "Ctrl-D ends",
        ][: len(texts)]
    )
    assert len(texts) == {30: 1, 60: 3}.get(columns, 4)


def test_times_are_dates(open_shell):
    since = Sensor("since", "timestamp", value=1700000001.5, timestamp=1700000000.0)
    with TestDevice(sensors=[since]) as device:
        shell = open_shell(device)
        shell.type("sensor-value since\r")
        shell.wait_line(
            "#sensor-value 2023-11-14T22:13:20.000Z 1 since nominal 2023-11-14T22:13:21.500Z"
        )


def test_names_are_learnt_again_when_the_interface_changes(shell, device):
    device.add_sensor(Sensor("brand-new", "integer"))
    shell.wait_line("#interface-changed")
    device.wait_for_request("sensor-list", PATIENCE, count=2)
    shell.type("sensor-value bra\t")
    shell.wait_prompt("sensor-value brand-new")


def test_help(shell):
    shell.type("help\r")
    shell.wait_line("Reply the arguments.")
    shell.wait_prompt()
    shell.type("help echo nonsense\r")
    shell.wait_line("The device has no request or sensor nonsense.")
    assert "?echo" in shell.lines
    assert "  Reply the arguments." in shell.lines
    # With the question mark it is the request, as it is.
    shell.type("?help echo\r")
    shell.wait_line('#help echo "Reply the arguments."')


def test_unasked_informs_leave_the_typed_line_alone(shell, device):
    shell.type("echo half a l")
    shell.wait_prompt("echo half a l")
    device.send_raw(b"#hey you\n#log warn 1 a.b it\\_is\\_warm\n")
    shell.wait_line("#hey you")
    shell.wait_line("WARN  a.b: it is warm")
    shell.wait_prompt("echo half a l")
    shell.type("ine\r")
    shell.wait_line("!echo ok half a line")


def test_bytes_that_are_no_text(shell, device):
    shell.type('echo \\xff\\0 "two words" \\@ grüße\r')
    shell.wait_line('!echo ok \\xff\\0 "two words" "" grüße')
    arguments = [b"\xff\0", b"two words", b"", "grüße".encode()]
    assert device.received_requests("echo")[0].arguments == arguments
    device.send_raw(b"#hey \xfe\\e[31m\n#not\xffa message\n")
    shell.wait_line("#hey \\xfe\\e[31m")
    shell.wait_line(": BAD COMMAND: ")
    assert b"\x1b[31m\xfe" not in shell.said
    # Typed as a byte that is no UTF-8: it is sent, and kept in the history.
    shell.type(b"echo \xe9x\r")
    shell.wait_line("!echo ok \\xe9x")


def test_a_line_that_cannot_be_understood(shell):
    shell.type("echo 'x\r")
    shell.wait_line("^ This quote is not closed.")
    shell.wait_prompt()
    shell.type("1x\r")
    shell.wait_line("^ 1x is not the name of a request.")


def test_resize(shell):
    shell.type("echo half")
    shell.wait_prompt("echo half")
    for columns, rows in ((40, 10), (20, 5), (150, 40)):
        shell.resize(columns, rows)
        shell.type("x")
        shell.wait(lambda lines: "echo halfx" in "".join(lines))
        shell.type("\x7f")
    shell.type("\r")
    shell.wait_line("!echo ok half")


def test_history_is_kept(open_shell, device, tmp_path):
    first = open_shell(device)
    first.type("echo kept\r")
    first.wait_line("!echo ok kept")
    first.wait_prompt()
    first.type(CTRL_D)
    assert first.wait_end() == 0
    path = tmp_path / "katcp" / "shell-history"
    assert path.stat().st_mode & 0o777 == 0o600
    second = open_shell(device)
    second.type(UP)
    second.wait_prompt("echo kept")
    second.type("\r")
    second.wait_line("!echo ok kept")


def test_history_that_cannot_be_kept(open_shell, device, tmp_path):
    (tmp_path / "katcp").write_text("no directory")
    shell = open_shell(device)
    shell.type("echo a\r")
    shell.wait_line("!echo ok a")
    shell.type(UP)
    shell.wait_prompt("echo a")


def test_a_device_that_dies_and_comes_back(open_shell):
    device = TestDevice(port=closed_port())
    with device:
        shell = open_shell(device)
        shell.type("hold\r")
        device.next_held()
    shell.wait_line(": connection lost; reconnecting")
    shell.wait_line("Connection closed before reply was received")
    shell.wait_line("not connected; trying again")
    shell.type("echo\r")
    shell.wait_line("Not connected to device")
    device.request(lambda request: "ok", name="new-request")
    with device:
        shell.wait_line("Connected again to 127.0.0.1")
        shell.type("new-\t")
        shell.wait_prompt("new-request")
        shell.type("\r")
        shell.wait_line("!new-request ok")
        shell.type(CTRL_D)
        assert shell.wait_end() == 0
    assert "lost" not in shell.lines[-1]


def test_a_dead_device(tmp_path, refused_address):
    address = "{}:{}".format(*refused_address[:2])
    with ScreenTerminal("shell", address, state=tmp_path) as terminal:
        assert terminal.wait_end() == 3
        terminal.wait_line(f"katcp: cannot connect to {address}: ")
        assert len(terminal.lines) == 1


def test_a_silent_device(tmp_path, silent_address):
    address = "{}:{}".format(*silent_address[:2])
    with ScreenTerminal("shell", address, "--timeout", "0.5", state=tmp_path) as terminal:
        assert terminal.wait_end() == 3
        terminal.wait_line("no answer within 0.5 seconds")


def test_version_4(open_shell, device_v4):
    shell = open_shell(device_v4)
    assert ": protocol 4" in shell.lines[0]
    shell.type("ech\t")
    shell.wait_prompt("echo")
    shell.type(" a\r")
    shell.wait_line("!echo ok a")


def test_colours_are_for_those_who_want_them(open_shell, device):
    shell = open_shell(device)
    shell.type("refuse\r")
    shell.wait_line("!refuse fail")
    assert b"\x1b[31m!refuse fail" in shell.said
    plain = open_shell(device, NO_COLOR="1")
    plain.type("refuse\r")
    plain.wait_line("!refuse fail")
    assert b"\x1b[31m" not in plain.said


def test_terminated(shell):
    """The terminal is left in order: it does not mark what is pasted any more."""
    shell.kill(signal.SIGTERM)
    assert shell.wait_end() == 128 + signal.SIGTERM
    assert shell.said.rfind(b"\x1b[?2004l") > shell.said.rfind(b"\x1b[?2004h")


def test_lines_that_are_pasted(shell):
    shell.type("\x1b[200~echo 1\necho 2\n\x1b[201~\r")
    shell.wait_line("!echo ok 1")
    shell.wait_line("!echo ok 2")


def test_the_input_is_a_terminal_and_the_output_is_none(tmp_path, device):
    """As in ``katcp shell ... | cat``: no prompt, no colours."""
    address = "{}:{}".format(*device.address)
    with ScreenTerminal("shell", address, state=tmp_path, pipe="cat") as terminal:
        terminal.type("refuse\n")
        terminal.wait_line('!refuse fail "not today"')
        terminal.type(CTRL_D)
        assert terminal.wait_end() == 0
    assert b"\x1b" not in terminal.said
