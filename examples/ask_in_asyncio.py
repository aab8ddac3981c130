"""Read all sensors at once, while another one is watched, in one asyncio loop.

"async with" runs the client in the loop of the program: there is no thread.
"""

import argparse
import asyncio

from katcp import AsyncClient, KatcpReplyError


async def read(client, name):
    """Return the reading of a sensor as text."""
    try:
        answer = await client.async_ask("sensor-value", name)
    except KatcpReplyError as error:
        return f"? ({error})"
    return answer.informs[0].get_text(4)


async def watch(client, name, count):
    """Print some changes of a sensor."""
    with client.informs("sensor-status", timeout=10) as updates:
        await client.async_ask("sensor-sampling", name, "event")
        async for update in updates:
            print(f"{name} is {update.get_text(4)} now")
            count -= 1
            if not count:
                break
    await client.async_ask("sensor-sampling", name, "none")


async def read_all(client):
    """Ask for all sensors without waiting in between, and print them."""
    names = [inform.get_text(0) for inform in (await client.async_ask("sensor-list")).informs]
    values = await asyncio.gather(*(read(client, name) for name in names))
    for name, value in zip(names, values):
        print(f"{name} = {value}")


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    options = parser.parse_args()

    async with AsyncClient(options.host, options.port) as client:
        await asyncio.gather(watch(client, "counter", 3), read_all(client))


if __name__ == "__main__":
    asyncio.run(main())
