import asyncio
import sys

from katcp import AsyncClient


async def watch(device):
    async with AsyncClient(*device.split(":")) as client:
        async for name, reading in client.sensors.watch("rx.*"):
            print(device, name, reading.value, reading.status, flush=True)


async def main():
    await asyncio.gather(*map(watch, sys.argv[1:]))


asyncio.run(main())
