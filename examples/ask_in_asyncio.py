"""Read all sensors at once, while another one is watched, in one asyncio loop.

"async with" runs the client in the loop of the program: there is no thread.
"""

import argparse
import asyncio

from katcp import AsyncClient


async def watch(client, name, count):
    """Print some changes of a sensor."""
    async with client.sensors.watch(name, timeout=10) as updates:
        async for _, reading in updates:
            print(f"{name} is {reading.value} now")
            count -= 1
            if not count:
                break


async def read_all(client):
    """Ask for all sensors and for their readings, and print them."""
    sensors, readings = await asyncio.gather(
        client.sensors.async_find(), client.sensors.async_read()
    )
    for sensor in sensors:
        print(f"{sensor.name} = {readings[sensor.name].value} {sensor.units}".rstrip())


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    options = parser.parse_args()

    async with AsyncClient(options.host, options.port) as client:
        await asyncio.gather(watch(client, "counter", 3), read_all(client))


if __name__ == "__main__":
    asyncio.run(main())
