"""What a resource client does with a device, as a list.

The program runs with katcp 0.9.3 as well as with this package::

    python observe_resource.py PORT

It prints the list as JSON: what was done, and what came of it.
"""

import json
import logging
import sys

import tornado.gen
import tornado.ioloop

from katcp.resource_client import KATCPClientResource

NAMES = ["a_count", "b_count"]
PATIENCE = 10


class Observer:
    """Uses a device, and notes what comes of it."""

    def __init__(self, port):
        self.noted = []
        self.heard = []
        self.client = KATCPClientResource(
            {"name": "dev", "address": ("127.0.0.1", port), "controlled": True}
        )

    def note(self, what, *outcome):
        self.noted.append([what, *outcome])

    @tornado.gen.coroutine
    def raised(self, what, call, *args):
        """Note the class of what is raised."""
        try:
            yield call(*args)
        except Exception as error:
            self.note(what, type(error).__name__)
        else:
            self.note(what, "nothing was raised")

    def on_reading(self, sensor, reading):
        self.heard.append([sensor.name, reading.status, reading.value])

    def on_values(self, received, timestamp, status, value):
        self.heard.append(["old", status, value])
        assert abs(received - timestamp) < 60

    @tornado.gen.coroutine
    def until_heard(self, count):
        for _ in range(1000):
            if len(self.heard) >= count:
                break
            yield tornado.gen.sleep(0.01)
        self.note("heard", self.heard[:count])
        del self.heard[:]

    @tornado.gen.coroutine
    def run(self):
        client = self.client
        self.note("before", client.state, client.is_connected(), sorted(client.sensor))
        client.start()
        self.note("synced", (yield client.until_synced(timeout=PATIENCE)))
        self.note("state", client.state, client.synced, client.is_connected())
        self.note("versions", sorted(map(str, client.versions)))
        yield self.use_sensors()
        yield self.use_requests()
        yield self.use_strategies()
        yield self.use_listeners()
        yield self.wait()
        yield self.list_sensors()
        client.stop()
        self.note("stopped", (yield client.until_stopped(timeout=PATIENCE)), client.state)

    @tornado.gen.coroutine
    def use_sensors(self):
        sensors = self.client.sensor
        self.note("sensors", sorted(sensors))
        for name in NAMES:
            sensor = sensors[name]
            self.note(name, sensor.name, sensor.normalised_name, sensor.parent_name)
            self.note(name, sensor.type, sensor.units, sensor.description)
            self.note(name, sensor.value, sensor.status, list(sensor.sampling_strategy))
            yield self.client.req.set(sensor.name, 3)
            value = yield sensor.get_value()
            status = yield sensor.get_status()
            reading = yield sensor.get_reading()
            self.note(name, value, status, reading.istatus, reading.status, reading.value)

    @tornado.gen.coroutine
    def use_requests(self):
        req = self.client.req
        self.note("requests", sorted(req))
        for request in (req.echo, req.sensor_list):
            self.note("request", request.name, request.description, request.timeout_hint)
        reply = yield req.echo("a b", 1, 2.5, True, b"\x01", "")
        self.note("echo", repr(reply), reply.succeeded, bool(reply), len(reply.messages))
        reply = yield req.count(3)
        self.note("count", repr(reply), [int(inform.arguments[0]) for inform in reply.informs])
        reply = yield req.refuse()
        self.note("refuse", repr(reply), reply.succeeded)
        replies = yield [req["echo"](number) for number in range(5)]
        self.note("at once", [repr(reply) for reply in replies])
        self.client.set_active(False)
        try:
            req.echo()
        except Exception as error:
            self.note("inactive", type(error).__name__, str(error))
        self.client.set_active(True)

    @tornado.gen.coroutine
    def use_strategies(self):
        sensor = self.client.sensor.a_count
        for strategy in [("event",), ("period", 1000), ("auto",), ("none",)]:
            outcome = yield sensor.set_strategy(*strategy)
            self.note("set_strategy", outcome, sensor.sampling_strategy)
        for strategy in ["event", ("period", 2000), "none"]:
            outcome = yield self.client.set_sampling_strategy("b.count", strategy)
            self.note(
                "set_sampling_strategy", outcome, self.client.sensor.b_count.sampling_strategy
            )
        ok, _ = yield sensor.set_strategy("nonsense")
        self.note("nonsense", ok)
        outcome = yield self.client.set_sampling_strategy("new.one", "event")
        self.note("a sensor that is not there", outcome)
        outcome = yield self.client.set_sampling_strategies("count$", "event")
        self.note("set_sampling_strategies", outcome)

    @tornado.gen.coroutine
    def use_listeners(self):
        sensors, set_it = self.client.sensor, self.client.req.set
        yield self.client.set_sensor_listener("a.count", self.on_reading)
        sensors.b_count.register_listener(self.on_values)
        for number in range(4, 8):
            yield set_it("a.count", number)
        yield set_it("b.count", -1)
        yield self.until_heard(5)
        yield sensors.a_count.get_value()
        yield self.until_heard(1)
        sensors.b_count.unregister_listener(self.on_values)
        self.note("is_listener", sensors.b_count.is_listener(self.on_values))

    @tornado.gen.coroutine
    def wait(self):
        client = self.client
        self.note("there", (yield client.wait("a.count", 7, timeout=PATIENCE)))
        self.note("not there", (yield client.wait("a_count", 8, timeout=0.1)))
        waiting = client.sensor.b_count.wait(lambda reading: reading.value > 20, timeout=PATIENCE)
        yield client.req.set("b.count", 21)
        self.note("to come", (yield waiting))
        yield self.raised("late", lambda: client.sensor.b_count.wait(22, timeout=0.1))
        yield client.sensor.a_count.set_strategy("none")
        yield self.raised("not sampled", lambda: client.wait("a.count", 7))

    @tornado.gen.coroutine
    def list_sensors(self):
        for arguments in [{}, {"filter": "^a"}, {"strategy": True}, {"status": "nominal"}]:
            found = yield self.client.list_sensors(**arguments)
            self.note("list", [[one.name, one.python_identifier, one.type] for one in found])
        found = yield self.client.list_sensors("a.count", tuple=True)
        self.note("tuple", [[one[0], one[1], one[3], one[6], one[7]] for one in found])


def main():
    # What 0.9.3 logs of strategies that are refused.
    logging.disable(logging.CRITICAL)
    observer = Observer(int(sys.argv[1]))
    tornado.ioloop.IOLoop.current().run_sync(observer.run)
    print(json.dumps(observer.noted))


if __name__ == "__main__":
    main()
