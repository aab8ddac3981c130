"""A program as users write them, which ``mypy --strict`` must accept (tox -e types).

It is checked, never run; the tests of the clients run what it uses.
"""

from __future__ import annotations

import asyncio
import concurrent.futures

from katcp import (
    Answer,
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    InformStream,
    KatcpArgumentError,
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientTimeout,
    KatcpReplyError,
    Message,
    ProtocolFlags,
    Sensor,
    kattypes,
    make_threadsafe,
    request_check,
)
from katcp.core import Reading
from katcp.sampling import SampleStrategy


class Watcher(CallbackClient):
    """A client with handlers, hooks and names of its own."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, auto_reconnect=False)
        self.temperatures: list[float] = []

    def notify_connected(self, connected: bool) -> None:
        print("connected" if connected else "disconnected")

    def inform_sensor_status(self, msg: Message) -> None:
        self.temperatures.append(msg.get_float(4))

    def unhandled_inform(self, msg: Message) -> None:
        print(msg.name, msg.get_text(0))

    async def request_identify(self, msg: Message) -> Message:
        await asyncio.sleep(0)
        return Message.reply_to_request(msg, "ok", "a watcher")

    @make_threadsafe
    def forget(self) -> None:
        self.temperatures.clear()

    def mean(self) -> float:
        return sum(self.temperatures) / len(self.temperatures)


class Listener(DeviceClient):
    """The smallest client."""

    def reply_watchdog(self, msg: Message) -> None:
        print(msg.reply_ok())


def script() -> float:
    with BlockingClient("localhost", 7147, timeout=2.0) as client:
        answer: Answer = client.ask("sensor-value", "temperature", timeout=1)
        arguments, informs = answer
        count: bytes = arguments[0]
        inform: Message = informs[0]
        print(count, inform.get_timestamp(0, milliseconds=False), answer.reply.mid)
        flags = client.protocol_flags
        print(flags is not None and flags.message_ids, ProtocolFlags(5, 0, "I"))
        reply, _ = client.blocking_request(Message.request("watchdog"))
        reply, _ = request_check(client, RuntimeError, "watchdog", timeout=1)
        return inform.get_float(4) + reply.get_int(1)


def many(client: BlockingClient, names: list[str]) -> dict[str, float]:
    futures = {
        client.concurrent_request(Message.request("sensor-value", name)): name for name in names
    }
    values: dict[str, float] = {}
    for future in concurrent.futures.as_completed(futures, timeout=5):
        reply, informs = future.result()
        if reply.reply_ok():
            values[futures[future]] = informs[0].get_float(4)
    return values


def watch() -> None:
    with Watcher("localhost", 7147) as watcher:
        mean: float = watcher.mean()

        def on_log(msg: Message) -> None:
            print(msg.get_text(3), mean)

        def on_connection(connected: bool) -> None:
            print(connected)

        watcher.add_inform_callback("log", on_log)
        watcher.add_connection_callback(on_connection)
        with watcher.informs("sensor-status", maxsize=10, timeout=5) as updates:
            watcher.ask("sensor-sampling", "temperature", "event")
            for update in updates:
                print(update.get_text(2), update.get_bool(1), updates.dropped)
        watcher.remove_inform_callback("log", on_log)
        watcher.remove_connection_callback(on_connection)
        watcher.forget()
    with Listener("localhost", 7147) as listener:
        listener.send_request(Message.request("watchdog"))


async def program() -> None:
    async with AsyncClient("localhost", 7147) as client:
        reply, informs = await client.async_request(Message.request("help"), timeout=1.0)
        reply, informs = await client.future_request(Message.request("help"))
        print(reply.get_int(1) == len(informs))
        stream: InformStream = client.informs()
        async for msg in stream:
            print(msg)
            break
        try:
            print((await client.async_ask("restart")).arguments)
        except KatcpReplyError as refusal:
            print(refusal, refusal.reply and refusal.reply.arguments, len(refusal.informs))
        except (KatcpClientTimeout, KatcpClientDisconnected) as failure:
            print(failure)
        except (KatcpClientError, KatcpArgumentError):
            raise


class Decorated(BlockingClient):
    """Its handlers get values."""

    @kattypes.inform(kattypes.Str(), kattypes.Float(default=0.0))
    def inform_wind(self, direction: str, speed: float) -> None:
        print(direction, speed)

    @kattypes.request_timeout_hint(5)
    @kattypes.request(kattypes.Int(min=1), has_req=False)
    @kattypes.return_reply(kattypes.Int())
    def request_double(self, number: int) -> tuple[str, int]:
        return "ok", 2 * number


class Printer:
    """An observer."""

    def update(self, sensor: Sensor, reading: Reading) -> None:
        print(sensor.name, reading.status == Sensor.WARN, reading.value)


def sense() -> SampleStrategy:
    sensor = Sensor.float("wind", "Speed of the wind", "m/s", params=[0, 10], default=1)
    sensor.attach(Printer())
    sensor.set_value(1.5, Sensor.WARN, timestamp=1.0)
    print(b" ".join(sensor.read_formatted(major=4)))
    return SampleStrategy.get_strategy("event", print, sensor)


def misspelt(client: BlockingClient) -> None:
    """Checkers see what does not exist: the unused ignores would be errors."""
    client.blocking_requets(Message.request("help"))  # type: ignore[attr-defined]
    client.ask(5)  # type: ignore[arg-type]


if __name__ == "__main__":
    print(script())
    watch()
    asyncio.run(program())
