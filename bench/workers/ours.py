"""A checkout of this repository as a competitor; on uvloop where that is installed."""

import asyncio
import contextlib
import importlib
import sys

from worker import measure_imports, parse_options, serve

options = parse_options()
sys.path.insert(0, options.source)

with contextlib.suppress(ImportError):
    asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())

katcp = importlib.import_module("katcp")
tornado = importlib.import_module("tornado")
katcp_client = importlib.import_module("katcp_client")


class SensorClient(katcp_client.TornadoCounting, katcp_client.Client):
    """Counts updates of sensors."""


class Ours(katcp_client.Katcp):
    async def subscribe(self, port, count=None):
        [client] = clients = await self.connect(port, 1, SensorClient)
        client.updates = client.sensors.watch("*", strategy="auto", callback=client.count)
        await client.updates.async_open()
        assert count in (None, client.counted)
        return clients


assert katcp.__file__.startswith(options.source), katcp.__file__
workloads = {**Ours().all_workloads(), "import": measure_imports("katcp", options.source)}
serve(workloads, options.port, {"katcp": katcp.__version__, "tornado": tornado.version})
