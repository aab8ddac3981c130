"""The floor for blocking programs: a bare socket that does the exchange and parses nothing."""

import socket

from lines import escape
from worker import measure_payloads, parse_options, serve

CHUNK = 262144


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    receive_lines(sock, 3)  # the greeting
    return sock


def receive_lines(sock, count):
    """Read so many lines; no more come before something is sent."""
    while count:
        count -= sock.recv(CHUNK).count(b"\n")


def exchange(request):
    """Return the workload that sends *request* and waits for a line, one after the other."""

    def workload(port):
        with connect(port) as sock:

            def run(operations, watch):
                with watch:
                    for _ in range(operations):
                        sock.sendall(request)
                        receive_lines(sock, 1)

            yield run

    return workload


def burst(request):
    """Return the workload that sends *request* once, and reads a line for each operation."""

    def workload(port):
        with connect(port) as sock:

            def run(operations, watch):
                with watch:
                    sock.sendall(request % operations)
                    receive_lines(sock, operations + 1)

            yield run

    return workload


workloads = {
    "blocking": exchange(b"?echo[1] 1\n"),
    "flood": burst(b"?flood[1] %d\n"),
    "informs": burst(b"?informs[1] %d\n"),
    **measure_payloads(
        lambda payload: exchange(b"?swallow[1] %s\n" % escape(payload)),
        lambda kind, size: exchange(b"?fetch[1] %s\n" % kind.encode()),
    ),
}

options = parse_options()
serve(workloads, options.port, {})
