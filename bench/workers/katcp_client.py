"""The workloads for the two packages that are called katcp: the old one and ours have one API.

Whoever imports this has seen to it that ``import katcp`` finds the right one.
"""

import contextlib
import functools
import threading

from tornado import gen
from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from worker import collect_lateness, measure_codec, measure_payloads, resident_bytes

import katcp
from katcp import Message

HOST = "127.0.0.1"

# For the requests whose answer takes the old client longer than its usual 5 seconds.
PATIENCE = 300

# A line with a megabyte of escaped zeros is longer than the usual limit.
MAX_LINE = 8 * 1024 * 1024


class Client(katcp.AsyncClient):
    MAX_MSG_SIZE = MAX_LINE
    MAX_WRITE_BUFFER_SIZE = 2 * MAX_LINE


class Counter(Client):
    """Counts the informs that nobody asked for."""

    missing = 0

    def until_received(self, count):
        self.missing = count
        self.all_received = Future()
        return self.all_received

    def inform_sensor_status(self, msg):
        """Count it; the old package wants this docstring."""
        self.missing -= 1
        if self.missing == 0:
            self.all_received.set_result(None)


def echo():
    return Message.request("echo", b"1")


# Clients with a thread of their own.


@contextlib.contextmanager
def managed_clients(port, count):
    clients = [katcp.BlockingClient(HOST, port) for _ in range(count)]
    for client in clients:
        client.start(timeout=PATIENCE)
    for client in clients:
        client.wait_protocol(timeout=PATIENCE)
    yield clients
    for client in clients:
        client.stop()
        client.join()


def ask(client, operations):
    for _ in range(operations):
        client.blocking_request(echo())


def run_in_threads(clients, operations):
    """Let each of *clients* be asked by a thread of its own."""
    threads = [
        threading.Thread(target=ask, args=(client, operations // len(clients)))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def blocking(port):
    with managed_clients(port, 1) as [client]:

        def run(operations, watch):
            with watch:
                ask(client, operations)

        yield run


def threads(port, client_count, thread_count):
    with managed_clients(port, client_count) as clients:

        def run(operations, watch):
            with watch:
                run_in_threads(clients * (thread_count // client_count), operations)

        yield run


# Clients in the loop of the main thread.


async def connect(ioloop, port, count, client_class=Client):
    clients = [client_class(HOST, port) for _ in range(count)]
    for client in clients:
        client.set_ioloop(ioloop)
        client.start()
    for client in clients:
        await client.until_protocol()
    return clients


async def disconnect(clients):
    for client in clients:
        client.stop()
    for client in clients:
        await client.until_stopped()


def in_loop(play, count=1, client_class=Client):
    """Return the workload that awaits ``play(clients, operations)``."""

    def workload(port):
        ioloop = IOLoop(make_current=False)
        clients = ioloop.run_sync(lambda: connect(ioloop, port, count, client_class))

        def run(operations, watch):
            async def timed():
                with watch:
                    await play(clients, operations)

            ioloop.run_sync(timed)

        yield run
        ioloop.run_sync(lambda: disconnect(clients))
        ioloop.close()

    return workload


async def ask_future(clients, operations):
    [client] = clients
    for _ in range(operations):
        await client.future_request(echo())


def ask_callback(clients, operations):
    [client] = clients
    done = Future()
    left = operations

    def ask_next(reply=None):
        nonlocal left
        if not left:
            done.set_result(None)
            return
        left -= 1
        client.callback_request(echo(), reply_cb=ask_next)

    ask_next()
    return done


async def ask_beside_pending(clients, operations):
    """Ask one by one, while 1000 other requests wait for replies that never come."""
    [client] = clients
    if not hasattr(client, "silenced"):
        client.silenced = True
        for _ in range(1000):
            client.callback_request(Message.request("silent"), timeout=PATIENCE)
    await ask_future(clients, operations)


async def ask_future_together(window, clients, operations):
    [client] = clients
    for _ in range(operations // window):
        for future in [client.future_request(echo()) for _ in range(window)]:
            await future


async def ask_callback_together(window, clients, operations):
    for _ in range(operations // window):
        await send_burst(clients[0], window)


def send_burst(client, window):
    done = Future()
    left = window

    def on_reply(reply):
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    for _ in range(window):
        client.callback_request(echo(), reply_cb=on_reply)
    return done


async def ask_all(clients, operations):
    await gen.multi([ask_future([client], operations // len(clients)) for client in clients])


async def receive_flood(clients, operations):
    [client] = clients
    received = client.until_received(operations)
    await client.future_request(Message.request("flood", operations), timeout=PATIENCE)
    await received


async def receive_informs(clients, operations):
    [client] = clients
    request = Message.request("informs", operations)
    reply, informs = await client.future_request(request, timeout=PATIENCE)
    assert reply.reply_ok()
    assert len(informs) == operations


def send_payload(payload):
    async def play(clients, operations):
        [client] = clients
        for _ in range(operations):
            reply, _ = await client.future_request(Message.request("swallow", payload))
            assert reply.reply_ok()

    return in_loop(play)


def fetch_payload(kind, size):
    async def play(clients, operations):
        [client] = clients
        for _ in range(operations):
            reply, _ = await client.future_request(Message.request("fetch", kind))
            assert len(reply.arguments[1]) == size

    return in_loop(play)


def connecting(port):
    ioloop = IOLoop(make_current=False)

    def run(operations, watch):
        async def timed():
            with watch:
                clients = await connect(ioloop, port, operations)
            await disconnect(clients)

        ioloop.run_sync(timed)

    yield run
    ioloop.close()


def memory(port):
    ioloop = IOLoop(make_current=False)

    def run(operations, watch):
        async def measured():
            # What the first client brings in belongs to the process.
            first = await connect(ioloop, port, 1)
            before = resident_bytes()
            clients = await connect(ioloop, port, operations)
            watch.amount = resident_bytes() - before
            await disconnect(first + clients)

        ioloop.run_sync(measured)

    yield run
    ioloop.close()


def timer(port, part):
    """How late a 1 ms timer is while informs are read; *part* of the times it was not as late."""
    ioloop = IOLoop(make_current=False)
    clients = ioloop.run_sync(lambda: connect(ioloop, port, 1, Counter))

    def run(operations, watch):
        async def measured():
            flood = gen.convert_yielded(receive_flood(clients, operations))
            lateness = await collect_lateness(gen.sleep, flood)
            watch.amount = lateness[int(part * (len(lateness) - 1))]

        ioloop.run_sync(measured)

    yield run
    ioloop.run_sync(lambda: disconnect(clients))
    ioloop.close()


def make_message(kind, name, mid, arguments):
    mid = None if mid is None else str(mid)
    return getattr(Message, kind)(name, *arguments, mid=mid)


def make_workloads():
    parser = katcp.MessageParser()
    workloads = measure_codec(parser.parse, bytes, make_message, Message.copy)
    workloads.update(
        {
            **measure_payloads(send_payload, fetch_payload),
            "blocking": blocking,
            "threads-8": functools.partial(threads, client_count=1, thread_count=8),
            "managed-100": functools.partial(threads, client_count=100, thread_count=100),
            "future": in_loop(ask_future),
            "callback": in_loop(ask_callback),
            "clients-100": in_loop(ask_all, 100),
            "clients-1000": in_loop(ask_all, 1000),
            "flood": in_loop(receive_flood, client_class=Counter),
            "informs": in_loop(receive_informs),
            "pending-1000": in_loop(ask_beside_pending),
            "timer-99": functools.partial(timer, part=0.99),
            "timer-worst": functools.partial(timer, part=1),
            "connect-1000": connecting,
            "memory": memory,
        }
    )
    for window in 100, 1000:
        together = functools.partial(ask_future_together, window)
        workloads[f"future-{window}"] = in_loop(together)
        together = functools.partial(ask_callback_together, window)
        workloads[f"callback-{window}"] = in_loop(together)
    return workloads
