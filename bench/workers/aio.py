"""aiokatcp as a competitor."""

import functools
import importlib.metadata

import aiokatcp
from aiokatcp import Message
from loops import HOST, Counting, Package
from worker import measure_codec, measure_imports, parse_options, serve


class CountingClient(Counting, aiokatcp.Client):
    def inform_sensor_status(
        self, timestamp: bytes, count: bytes, name: bytes, status: bytes, value: bytes
    ) -> None:
        self.count()


class CountingWatcher(Counting, aiokatcp.SensorWatcher):
    def sensor_updated(self, *args):
        super().sensor_updated(*args)
        self.count()


class Aiokatcp(Package):
    async def connect(self, port, count, client_class=aiokatcp.Client):
        clients = [client_class(HOST, port) for _ in range(count)]
        for client in clients:
            await client.wait_connected()
        return clients

    async def connect_counting(self, port, count):
        return await self.connect(port, count, CountingClient)

    async def subscribe(self, port, count=None):
        [client] = clients = await self.connect(port, 1)
        watcher = CountingWatcher(client)
        client.until_counted = watcher.until_counted
        client.add_sensor_watcher(watcher)
        await watcher.synced.wait()
        assert count in (None, watcher.counted)
        return clients

    async def disconnect(self, clients):
        for client in clients:
            client.close()
        for client in clients:
            await client.wait_closed()

    def request(self, client, name, *arguments):
        return client.request(name, *arguments)

    def check(self, result, size=None, informs=0):
        arguments, received = result
        assert len(received) == informs
        assert size is None or len(arguments[0]) == size

    async def ask_in_tasks(self, clients, operations):
        """Do what threads do elsewhere: eight tasks ask one client."""
        await self.gather([self.ask(clients, operations // 8) for _ in range(8)])


def constructor(kind, name, mid, arguments):
    return functools.partial(getattr(Message, kind), name, *arguments, mid=mid)


def copy_message(message):
    return Message(message.mtype, message.name, *message.arguments)


package = Aiokatcp()
workloads = {
    **package.all_workloads(),
    **measure_codec(Message.parse, bytes, constructor, copy_message, b"\n"),
    "threads-or-tasks-8": package.in_loop(package.ask_in_tasks),
    "import": measure_imports("aiokatcp"),
}
versions = {name: importlib.metadata.version(name) for name in ("aiokatcp", "katcp-codec")}
serve(workloads, parse_options().port, versions)
