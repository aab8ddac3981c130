"""katcp 0.9.3 as a competitor."""

import importlib.metadata

from katcp_client import HOST, Katcp, TornadoCounting
from tornado.ioloop import IOLoop
from worker import measure_imports, parse_options, serve

from katcp.resource_client import KATCPClientResource


class CountingResource(TornadoCounting, KATCPClientResource):
    """Counts updates of sensors."""


class Old(Katcp):
    async def subscribe(self, port, count=None):
        resource = CountingResource({"name": "bench", "address": (HOST, port), "controlled": True})
        resource.set_ioloop(IOLoop.current())
        resource.start()
        await resource.until_synced()
        results = await resource.set_sampling_strategies("", "auto")
        assert count in (None, len(results))
        for sensor in resource.sensor.values():
            sensor.register_listener(resource.count)
        return [resource]

    def request(self, client, name, *arguments):
        if isinstance(client, KATCPClientResource):
            return client.req[name](*arguments)
        return super().request(client, name, *arguments)


workloads = {**Old().all_workloads(), "import": measure_imports("katcp")}
versions = {name: importlib.metadata.version(name) for name in ("katcp", "tornado")}
serve(workloads, parse_options().port, versions)
