"""The benchmark runs, and its statistics are right; how fast anything is, no test asks."""

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from bench import walks
from bench.harness.competitor import OURS, Competitor
from bench.harness.report import (
    compare,
    format_glance,
    format_row,
    format_times,
    summarise,
    verdict,
)
from bench.harness.rounds import Arena, Plan, Series
from bench.harness.server import FALLBACK, make_command, running_server
from bench.harness.workloads import WORKLOADS, Workload

CHECKOUT = Path(__file__).parent.parent
HOST = "127.0.0.1"
SENSORS = 20
REQUESTS = [
    b"echo[1] 1",
    b"swallow 1",
    b"nosuch[2]",
    b"help[3]",
    b"informs[4] 2",
    b"flood[5] 1500",
    b"fetch[6] escaped-16",
    b"sensor-list[7]",
    b"sensor-sampling[8] bench.sensor.00001,bench.sensor.00002 auto",
    b"echo[9]",
]

# One of each kind: a thread, a loop, a ratio, a fresh process, bytes, no client at all.
PLAYED = [
    Workload("blocking-same", "", placement="same"),
    Workload("future-100", "", step=100),
    Workload("timer-99", "", whole=True, operations=(20, 20), limit=1e-9),
    Workload("sensors-subscribe", "", operations=(SENSORS, SENSORS)),
    Workload("sensors-update-inform", "", whole=True, operations=(50, 50), unit="ratio"),
    Workload("sensors-memory", "", operations=(SENSORS, SENSORS), unit="bytes", fresh=True),
    Workload("build-status", "", placement="free"),
]


def answers(command):
    """Return what a server answers to all the requests, greeting first."""
    received = bytearray()
    with running_server(command) as (_, port), socket.create_connection((HOST, port), 30) as sock:
        sock.sendall(b"".join(b"?%s\n" % request for request in REQUESTS))
        while not received.endswith(b"!echo[9] ok\n"):
            data = sock.recv(65536)
            assert data, received[-200:]
            received += data
    return bytes(received)


def test_both_servers_give_the_same_answers(tmp_path):
    """Where there is no compiler, both are the fallback."""
    received = answers([sys.executable, str(FALLBACK), str(SENSORS)])
    assert received.startswith(b"#version-connect katcp-protocol 5.1-MIB\n")
    assert received.count(b"\n#informs[4] ") == 2
    assert received.count(b"\n#sensor-list[7] bench.sensor.") == SENSORS
    assert received.count(b"\n#sensor-status ") == 1500 + 2
    assert len(received) > 2**20
    assert answers(make_command(tmp_path, SENSORS)) == received


def test_the_harness_runs(tmp_path, capfd):
    """This checkout beside itself, in rounds of one operation."""
    competitors = [Competitor(name, sys.executable, "ours.py", CHECKOUT) for name in (OURS, "also")]
    plan = Plan(rounds=2, seconds=0, quick=True)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("w"))
        server = stack.enter_context(running_server(make_command(tmp_path, SENSORS)))
        arena = stack.enter_context(Arena(competitors, server, log))
        rows = [summarise(workload, arena.measure(workload, plan)) for workload in PLAYED]
    assert capfd.readouterr().err == ""
    assert [list(row["competitors"]) for row in rows] == [[OURS, "also"]] * len(PLAYED)
    assert all(len(one["amounts"]) == 2 for row in rows for one in row["competitors"].values())
    assert "no difference seen" in format_row(rows[0])
    assert format_glance(rows).endswith("\n\naim: 0, must: 0, unclear: 0, MISS: 1")


def test_rows_have_names_of_their_own():
    names = [workload.name for workload in WORKLOADS]
    assert len(set(names)) == len(names)


def ratios(*values):
    return compare([2.0] * len(values), [2.0 * value for value in values])


def test_a_ratio_is_printed_with_its_quartiles():
    assert format_times(ratios(2, 2, 3, 3, 4, 4, 4, 5, 5)) == "4 (3 .. 4)"


@pytest.mark.parametrize(
    ("above", "below", "seen"),
    [(8, 0, True), (7, 0, False), (9, 0, True), (8, 1, False), (13, 2, True), (12, 3, False)],
)
def test_a_ratio_that_may_be_noise_is_not_printed(above, below, seen):
    """A coin falls 8 times on the same side in one of 128 runs, 13 of 15 times in one of 135."""
    for values in ([1.5] * above + [0.5] * below, [0.5] * above + [1.5] * below):
        assert format_times(ratios(*values)).startswith("no difference seen (") is not seen


def test_equal_amounts_are_no_difference():
    assert format_times(ratios(*[1] * 15)) == "no difference seen (1 .. 1)"


def test_ratios_are_taken_within_a_round():
    """The machine is ten times slower in every second round."""
    ours = Series(amounts=[1.0, 10.0] * 4, cpu=[1.0] * 8)
    theirs = Series(amounts=[2.0, 20.0] * 4, cpu=[3.0] * 8)
    row = summarise(Workload("x", "x"), {OURS: ours, "theirs": theirs})
    assert row["competitors"]["theirs"]["times"] == {"quartiles": (2, 2, 2), "noise": False}
    assert row["competitors"]["theirs"]["cpu_times"]["quartiles"] == (3, 3, 3)


@pytest.mark.parametrize(
    ("target", "word"), [((1, 2), "aim"), ((2, 5), "must"), ((3, 5), "unclear"), ((5, 6), "MISS")]
)
def test_a_target_is_reached_by_the_quartile_that_is_worse(target, word):
    assert verdict((2, 3, 4), target) == word


def test_walks_count_calls(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["walks"])
    walks.main()
    lines = capsys.readouterr().out.splitlines()
    names = ["blocking_request", "future_request", "inform to its handler"]
    assert [line.partition(":")[0] for line in lines] == names
    assert all(int(line.split()[-2]) > 5 for line in lines)
