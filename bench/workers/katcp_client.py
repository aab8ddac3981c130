"""The workloads for the two packages that are called katcp: the old one and ours have one API.

Whoever imports this has seen to it that ``import katcp`` finds the right one.
"""

import contextlib
import functools
import threading

from loops import HOST, Counting, Package
from tornado import gen
from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from worker import measure_codec

import katcp
from katcp import Message

# The old client needs more than its usual 5 seconds for some answers.
PATIENCE = 300

# A line with a megabyte of escaped zeros is longer than the usual limit.
MAX_LINE = 8 * 1024 * 1024


class Client(katcp.AsyncClient):
    MAX_MSG_SIZE = MAX_LINE
    MAX_WRITE_BUFFER_SIZE = 2 * MAX_LINE


class TornadoCounting(Counting):
    new_future = Future


class CountingClient(TornadoCounting, Client):
    def inform_sensor_status(self, msg):
        """Count it; the old package wants this docstring."""
        self.count()


def echo():
    return Message.request("echo", b"1")


class Katcp(Package):
    sleep = staticmethod(gen.sleep)
    gather = staticmethod(gen.multi)

    @contextlib.contextmanager
    def loop(self):
        ioloop = IOLoop(make_current=False)
        yield lambda coroutine: ioloop.run_sync(lambda: coroutine)
        ioloop.close()

    async def connect(self, port, count, client_class=Client):
        clients = [client_class(HOST, port, timeout=PATIENCE) for _ in range(count)]
        for client in clients:
            client.set_ioloop(IOLoop.current())
            client.start()
        for client in clients:
            await client.until_protocol()
        return clients

    async def connect_counting(self, port, count):
        return await self.connect(port, count, CountingClient)

    async def disconnect(self, clients):
        for client in clients:
            client.stop()
        for client in clients:
            await client.until_stopped()

    def request(self, client, name, *arguments):
        return client.future_request(Message.request(name, *arguments))

    def check(self, result, size=None, informs=0):
        reply, received = result
        assert reply.reply_ok()
        assert len(received) == informs
        assert size is None or len(reply.arguments[1]) == size

    async def ask_together(self, clients, operations):
        [client] = clients
        for future in [client.future_request(echo()) for _ in range(operations)]:
            await future

    def ask_by_callback(self, clients, operations):
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

    def ask_together_by_callback(self, clients, operations):
        [client] = clients
        done = Future()
        left = operations

        def on_reply(reply):
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)

        for _ in range(operations):
            client.callback_request(echo(), reply_cb=on_reply)
        return done

    def all_workloads(self):
        codec = katcp.MessageParser().parse, bytes, constructor, Message.copy
        return {
            **super().all_workloads(),
            **measure_codec(*codec),
            "callback": self.in_loop(self.ask_by_callback),
            "callback-100": self.together(self.ask_together_by_callback, 100),
            "callback-1000": self.together(self.ask_together_by_callback, 1000),
            "blocking": threads(1, 1),
            "threads-or-tasks-8": threads(1, 8),
            "managed-100": threads(100, 100),
            "connect-managed-100": connecting_managed,
        }


def constructor(kind, name, mid, arguments):
    mid = None if mid is None else str(mid)
    return functools.partial(getattr(Message, kind), name, *arguments, mid=mid)


# Clients with a loop thread of their own.


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


def threads(client_count, thread_count):
    """Return the workload of so many threads that share so many clients."""

    def workload(port):
        with managed_clients(port, client_count) as clients:

            def run(operations, watch):
                share = operations // thread_count
                asking = [
                    threading.Thread(target=ask, args=(client, share))
                    for client in clients * (thread_count // client_count)
                ]
                with watch:
                    for thread in asking:
                        thread.start()
                    for thread in asking:
                        thread.join()

            yield run

    return workload


def connecting_managed(port):
    def run(operations, watch):
        # The watch stops before the clients do.
        with contextlib.ExitStack() as stack, watch:
            stack.enter_context(managed_clients(port, operations))

    yield run
