"""The command line of the simulated device."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Optional, Sequence

from tornado.ioloop import IOLoop

from .connection import LOG_LEVELS
from .device import SimulatedDevice
from .faults import list_faults


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a simulated device until SIGINT, SIGTERM or ``?halt``; return the exit status.

    One line with its address is printed when it listens. The default arguments are those of the
    process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m katcp.simdevice", description="Run a simulated KATCP device."
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port (any free one)")
    add_behaviour_arguments(parser)
    try:
        run(parser.parse_args(arguments))
    except ValueError as error:
        print(f"katcp.simdevice: {error}", file=sys.stderr)
        return 2
    except CannotListen as error:
        print(f"katcp.simdevice: cannot listen: {error}", file=sys.stderr)
        return 1
    return 0


class CannotListen(OSError):
    """The device cannot listen on its port."""


def add_behaviour_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for `run`, except ``host`` and ``port``."""
    parser.add_argument(
        "--protocol",
        default="5.1-MIB",
        help="version, 4 or 5, and flags, like 4 or 5.1-MIBT (%(default)s)",
    )
    parser.add_argument("--name", default="simulated-device", help="its name (%(default)s)")
    parser.add_argument(
        "--log-level", default="warn", choices=LOG_LEVELS, help="of #log informs (%(default)s)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:REQUEST][=VALUE]",
        help="a fault of the device; may be given several times",
    )
    parser.add_argument("--list-faults", action="store_true", help="list all faults, and exit")


def run(options: argparse.Namespace) -> None:
    """Run the device described by the command line.

    Raises `ValueError` if an option is wrong, and `CannotListen`.
    """
    if options.list_faults:
        for name, description in list_faults().items():
            print(f"{name:<28} {description}")
        return
    device = SimulatedDevice(
        options.host,
        options.port,
        protocol=options.protocol,
        name=options.name,
        faults=options.fault,
        log_level=options.log_level,
    )
    if device.protocol.major not in (4, 5):
        raise ValueError(f"{options.protocol!r} is not a version of KATCP: 4 and 5 are.")
    asyncio.run(_serve(device))


async def _serve(device: SimulatedDevice) -> None:
    """Run a device until a signal or a request stops it."""
    try:
        device.start_in(IOLoop.current())
    except OSError as error:
        raise CannotListen(error.errno, error.strerror or str(error)) from error
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, device.stop)
    host, port = device.address
    print(f"{device.name} listens on {host}:{port}", flush=True)
    await device.until_stopped()
