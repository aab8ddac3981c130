"""Workloads for competitors whose clients live in an asyncio loop, whatever the clients are.

``connect(port, count)`` and ``disconnect(clients)`` are coroutine functions.
"""

import asyncio

from worker import resident_bytes


def in_loop(connect, disconnect, play, count=1):
    """Return the workload that awaits ``play(clients, operations)``."""

    def workload(port):
        with asyncio.Runner() as runner:
            clients = runner.run(connect(port, count))

            def run(operations, watch):
                async def timed():
                    with watch:
                        await play(clients, operations)

                runner.run(timed())

            yield run
            runner.run(disconnect(clients))

    return workload


def connecting(connect, disconnect):
    """Return the workload that connects so many clients."""

    async def timed(port, operations, watch):
        with watch:
            clients = await connect(port, operations)
        await disconnect(clients)

    def workload(port):
        with asyncio.Runner() as runner:
            yield lambda operations, watch: runner.run(timed(port, operations, watch))

    return workload


def memory(connect, disconnect):
    """Return the workload that tells how many bytes so many clients take."""

    async def measured(port, operations, watch):
        # What the first client brings in belongs to the process.
        first = await connect(port, 1)
        before = resident_bytes()
        clients = await connect(port, operations)
        watch.amount = resident_bytes() - before
        await disconnect(first + clients)

    def workload(port):
        with asyncio.Runner() as runner:
            yield lambda operations, watch: runner.run(measured(port, operations, watch))

    return workload
