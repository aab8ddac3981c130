"""A server made of katcp 0.9.3, run by the Python of its own virtualenv.

    python katcp_server.py PROTOCOL PORT

PROTOCOL is like ``5.0-IM``; with PORT 0 the system chooses one. The port is
printed; the server ends when its standard input does, however that came about.
"""

import os
import sys
import threading

import tornado.gen
import tornado.ioloop
import tornado.queues

from katcp import AsyncDeviceServer, ProtocolFlags, Sensor


class Server(AsyncDeviceServer):
    """What the tests ask of every peer."""

    VERSION_INFO = ("interop-api", 1, 0)
    BUILD_INFO = ("interop-build", 2, 3, "")

    def setup_sensors(self):
        self.releases = tornado.queues.Queue()
        for name in ("a.count", "b.count"):
            self.add_sensor(Sensor.integer(name, "How many", "things", default=0))

    def request_echo(self, req, msg):
        """Reply the arguments."""
        return req.make_reply("ok", *msg.arguments)

    def request_count(self, req, msg):
        """Send as many informs."""
        for position in range(int(msg.arguments[0])):
            req.inform(position)
        return req.make_reply("ok", msg.arguments[0])

    def request_every_byte(self, req, msg):
        """Reply an argument of every byte, so many times over."""
        return req.make_reply("ok", bytes(range(256)) * int(msg.arguments[0]))

    @tornado.gen.coroutine
    def request_hold(self, req, msg):
        """Be answered when there is a release to be had."""
        req.inform("held", *msg.arguments)
        yield self.releases.get()
        raise tornado.gen.Return(req.make_reply("ok", *msg.arguments))

    def request_release(self, req, msg):
        """Let one hold be answered."""
        self.releases.put_nowait(None)
        return req.make_reply("ok")

    def request_set(self, req, msg):
        """Set a sensor."""
        name, value = msg.arguments
        self.get_sensor(name.decode()).set_value(int(value))
        return req.make_reply("ok")

    def request_refuse(self, req, msg):
        """Fail."""
        return req.make_reply("fail", "not today")

    def request_crash(self, req, msg):
        """Raise an exception."""
        raise ValueError("crashed on purpose")


def main():
    version, port = sys.argv[1:]

    # Which requests a server has is settled when its class is made.
    class VersionedServer(Server):
        PROTOCOL_INFO = ProtocolFlags.parse_version(version.encode())

    server = VersionedServer("127.0.0.1", int(port))
    ioloop = tornado.ioloop.IOLoop.current()

    @tornado.gen.coroutine
    def start():
        yield server.start()
        print(server.bind_address[1], flush=True)

    ioloop.add_callback(start)
    ioloop.start()


def end_with_standard_input():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_standard_input, daemon=True).start()
main()
