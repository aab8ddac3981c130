"""Ask many devices at once how they are, in one loop and one thread.

Those that are down or silent are named, and keep nobody waiting: the whole check
takes no longer than the slowest device may.
"""

import argparse
import asyncio

from katcp import AsyncClient, KatcpClientError


def address(text):
    """Read HOST:PORT."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


async def check(host, port, timeout):
    """Return whether a device is well, and what there is to say about it."""
    try:
        # The timeout is that of the connection, and of each request.
        async with AsyncClient(host, port, timeout=timeout) as client:
            await client.async_ask("watchdog")
            return True, f"ok, speaks {client.protocol_flags}"
    except KatcpClientError as error:
        return False, str(error)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "devices", nargs="*", type=address, default=[("localhost", 7147)], metavar="HOST:PORT"
    )
    parser.add_argument("--timeout", type=float, default=2, help="seconds")
    options = parser.parse_args()

    results = await asyncio.gather(
        *(check(host, port, options.timeout) for host, port in options.devices)
    )
    for (host, port), (_, text) in zip(options.devices, results):
        print(f"{host}:{port} {text}")
    return 0 if all(well for well, _ in results) else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
