"""The workloads for clients in a loop, made of the few things that differ between packages."""

import asyncio
import contextlib
import functools
import time

from lines import PAYLOAD_KINDS, make_payload
from worker import Stopwatch, resident_bytes

HOST = "127.0.0.1"


class Counting:
    """Counts calls of `count`, for a client."""

    counted = wanted = 0

    def until_counted(self, count):
        """Return a future that is done after so many more calls."""
        self.wanted = self.counted + count
        self.all_counted = self.new_future()
        return self.all_counted

    def count(self, *args):
        self.counted += 1
        if self.counted == self.wanted:
            self.all_counted.set_result(None)

    def new_future(self):
        return asyncio.get_running_loop().create_future()


class Package:
    """A package whose clients live in a loop.

    Subclasses define these coroutine functions:

    ``connect(port, count)``
        Return clients.
    ``connect_counting(port, count)``
        Return clients that count the informs that they have not asked for.
    ``subscribe(port, count=None)``
        Return one client, which counts the updates of all sensors; *count* is how many there are.
    ``disconnect(clients)``

    and ``request(client, name, *arguments)``, which returns an awaitable, and
    ``check(result, size=None, informs=0)``, which looks at what that has given.
    """

    sleep = staticmethod(asyncio.sleep)

    @contextlib.contextmanager
    def loop(self):
        """Yield a function that runs a coroutine in a new loop."""
        with asyncio.Runner() as runner:
            yield runner.run

    def gather(self, coroutines):
        """Run coroutines together."""
        return asyncio.gather(*coroutines)

    # What is measured.

    async def ask(self, clients, operations):
        [client] = clients
        for _ in range(operations):
            await self.request(client, "echo", b"1")

    async def ask_together(self, clients, operations):
        [client] = clients
        await self.gather([self.request(client, "echo", b"1") for _ in range(operations)])

    async def ask_all(self, clients, operations):
        await self.gather([self.ask([client], operations // len(clients)) for client in clients])

    async def ask_beside_pending(self, clients, operations):
        """Ask one by one, while 1000 other requests wait for replies that never come."""
        [client] = clients
        if not hasattr(client, "silenced"):
            client.silenced = self.gather([self.request(client, "silent") for _ in range(1000)])
        await self.ask(clients, operations)

    async def receive_flood(self, clients, operations):
        [client] = clients
        counted = client.until_counted(operations)
        await self.request(client, "flood", operations)
        await counted

    async def receive_informs(self, clients, operations):
        [client] = clients
        self.check(await self.request(client, "informs", operations), informs=operations)

    async def send(self, payload, clients, operations):
        [client] = clients
        for _ in range(operations):
            self.check(await self.request(client, "swallow", payload))

    async def fetch(self, kind, clients, operations):
        [client] = clients
        for _ in range(operations):
            self.check(await self.request(client, "fetch", kind), size=2**20)

    # How it is measured.

    def in_loop(self, play, count=1, connect=None):
        """Return the workload that awaits ``play(clients, operations)``."""

        def workload(port):
            with self.loop() as run_in_loop:
                clients = run_in_loop((connect or self.connect)(port, count))

                async def timed(operations, watch):
                    with watch:
                        await play(clients, operations)

                yield lambda operations, watch: run_in_loop(timed(operations, watch))
                run_in_loop(self.disconnect(clients))

        return workload

    def together(self, play, window):
        """Return the workload that awaits ``play(clients, window)`` again and again."""

        async def play_windows(clients, operations):
            for _ in range(operations // window):
                await play(clients, window)

        return self.in_loop(play_windows)

    def connecting(self, connect):
        """Return the workload that connects so many clients, or subscribes to so many sensors."""

        async def timed(port, operations, watch):
            with watch:
                clients = await connect(port, operations)
            await self.disconnect(clients)

        return self.measured_apart(timed)

    def memory(self, connect):
        """Return the workload that measures how many bytes of memory *connect* takes."""

        async def measured(port, operations, watch):
            # What the first client brings in belongs to the process.
            first = await self.connect(port, 1)
            before = resident_bytes()
            clients = await connect(port, operations)
            watch.amount = resident_bytes() - before
            await self.disconnect(first + clients)

        return self.measured_apart(measured)

    def timer(self, part):
        """Return how late a 1 ms timer is in a flood; *part* of the times it was not as late."""

        async def measured(port, operations, watch):
            lateness = []
            clients = await self.connect_counting(port, 1)
            flooded = []

            async def flood():
                await self.receive_flood(clients, operations)
                flooded.append(True)

            async def sleep():
                while not flooded:
                    start = time.perf_counter()
                    await self.sleep(0.001)
                    lateness.append(time.perf_counter() - start - 0.001)

            await self.gather([flood(), sleep()])
            watch.amount = sorted(lateness)[int(part * (len(lateness) - 1))]
            await self.disconnect(clients)

        return self.measured_apart(measured)

    def measured_apart(self, measured):
        """Return the workload that awaits ``measured(port, operations, watch)``."""

        def workload(port):
            with self.loop() as run_in_loop:
                yield lambda operations, watch: run_in_loop(measured(port, operations, watch))

        return workload

    def exchanges(self):
        """Return the workloads of requests and informs."""
        workloads = {
            "flood": self.in_loop(self.receive_flood, connect=self.connect_counting),
            "informs": self.in_loop(self.receive_informs),
            "connect-1000": self.connecting(self.connect),
            "memory": self.memory(self.connect),
        }
        for count in 1, 100, 1000:
            workloads[f"clients-{count}"] = self.in_loop(self.ask_all, count)
        # A package with one kind of request does with it what others do in several ways.
        workloads["future"] = workloads["callback"] = workloads["blocking"] = self.in_loop(self.ask)
        for window in 100, 1000:
            together = self.together(self.ask_together, window)
            workloads[f"future-{window}"] = workloads[f"callback-{window}"] = together
        for kind in PAYLOAD_KINDS:
            send = functools.partial(self.send, make_payload(kind))
            workloads[f"send-{kind}"] = self.in_loop(send)
            workloads[f"fetch-{kind}"] = self.in_loop(functools.partial(self.fetch, kind))
        return workloads

    def all_workloads(self):
        """Return `exchanges`, and the workloads that need a real client."""
        workloads = self.exchanges()
        workloads["pending-1000"] = self.in_loop(self.ask_beside_pending)
        workloads["timer-99"] = self.timer(0.99)
        workloads["timer-worst"] = self.timer(1)
        workloads["sensors-subscribe"] = self.connecting(self.subscribe)
        workloads["sensors-memory"] = self.memory(self.subscribe)
        update = self.in_loop(self.receive_flood, connect=lambda port, _: self.subscribe(port))
        workloads["sensors-update"] = update
        workloads["sensors-update-inform"] = ratio(update, workloads["flood"])
        return workloads


def ratio(workload, other):
    """Return the workload that measures how many times as long *workload* takes as *other*."""

    def both(port):
        workload_open, other_open = map(contextlib.contextmanager, (workload, other))
        with workload_open(port) as run, other_open(port) as run_other:

            def run_both(operations, watch):
                first, second = Stopwatch(), Stopwatch()
                run(operations, first)
                run_other(operations, second)
                watch.amount = first.amount / second.amount

            yield run_both

    return both
