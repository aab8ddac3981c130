"""What is measured, and the targets: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

# How many times better than a peer: what must be, and what is aimed at.
Target = tuple[float, float]

# Against katcp 0.9.3, and against aiokatcp.
Targets = tuple[Target, Target]


@dataclass(frozen=True)
class Workload:
    """One row.

    Attributes
    ----------
    name : str
        What the workers call it, followed by the placement where that is not the usual one.
    title : str
        What the tables call it; what one operation is.
    old, aio : (float, float) or None
        The targets against katcp 0.9.3 and aiokatcp.
    placement : str
        Where server and competitor run: "apart", on a processor each; "same", on one;
        "free", on any.
    step : int
        The number of operations is a multiple of this.
    whole : bool
        The amount is that of a round as a whole, not of each of its operations.
    operations : (int, int) or None
        That many operations in a round, and in a quick one; None: as many as fill the wanted time.
    unit : str
        "seconds", "bytes" or "ratio".
    fresh : bool
        Every round runs in a new process.
    limit : float or None
        What our amount may be at most, whatever the peers need.
    """

    name: str
    title: str
    old: Optional[Target] = None
    aio: Optional[Target] = None
    placement: str = "apart"
    step: int = 1
    whole: bool = False
    operations: Optional[tuple[int, int]] = None
    unit: str = "seconds"
    fresh: bool = False
    limit: Optional[float] = None

    @property
    def task(self) -> str:
        """What the workers call it."""
        return self.name.removesuffix(f"-{self.placement}")


# How many sensors the server has, and how many with --quick.
SENSORS = 10_000, 500


def _one_by_one(kind: str, title: str, old: Target, aio: Target) -> list[Workload]:
    """Return two rows: where both ends run matters more than anything else."""
    return [
        Workload(f"{kind}-{placement}", f"{title}, {placement}", old, aio, placement)
        for placement in ("same", "free")
    ]


def _payload(kind: str, title: str, send: Targets, fetch: Targets) -> list[Workload]:
    """Return two rows."""
    return [
        Workload(f"send-{kind}", f"1 MiB {title}, sent", *send),
        Workload(f"fetch-{kind}", f"1 MiB {title}, received", *fetch),
    ]


def _codec(kind: str, title: str, parse: Targets, serialise: Targets) -> list[Workload]:
    """Return two rows."""
    return [
        Workload(f"parse-{kind}", f"parse {title}", *parse),
        Workload(f"serialise-{kind}", f"serialise {title}", *serialise),
    ]


def _timer(part: str, title: str, limit: float) -> Workload:
    return Workload(
        f"timer-{part}",
        f"1 ms timer in a flood, {title}",
        whole=True,
        operations=(50_000, 10_000),
        limit=limit,
    )


_SIXTEENTH = "with one byte in 16 escaped"
_HALF = "with one byte in 2 escaped"
_FLOOD = 10_000, 5_000

WORKLOADS = [
    *_one_by_one("blocking", "blocking_request one by one", (4, 8), (2, 4.5)),
    *_one_by_one("future", "await future_request one by one", (2.3, 3), (1.1, 1.3)),
    *_one_by_one("callback", "callback_request one by one", (2.2, 2.8), (1.2, 1.45)),
    Workload(
        "pending-1000-same", "await future_request, 1000 others pending, same", placement="same"
    ),
    Workload(
        "threads-or-tasks-8",
        "8 threads on one client (aiokatcp: 8 tasks)",
        (2.3, 4),
        (1.4, 2.2),
        step=8,
    ),
    Workload("future-100", "100 futures together", (6, 10), (3.3, 5), step=100),
    Workload("future-1000", "1000 futures together", (7.5, 12), (3.5, 5.5), step=1000),
    Workload("callback-100", "100 callbacks together", (8.5, 13), (4.5, 7), step=100),
    Workload("callback-1000", "1000 callbacks together", (11, 16), (6.5, 9), step=1000),
    Workload("flood", "inform to its handler", (20, 35), (9, 15), operations=_FLOOD),
    Workload(
        "informs",
        "inform of a request",
        (15, 25),
        (2.2, 3.5),
        operations=(20_000, 5_000),
    ),
    Workload("clients-1", "1 client on a shared loop asking"),
    Workload(
        "clients-100", "100 clients on a shared loop asking", (4.5, 6.5), (1.15, 1.6), step=100
    ),
    Workload(
        "clients-1000", "1000 clients on a shared loop asking", (4.5, 6.5), (1.15, 1.6), step=1000
    ),
    Workload("managed-100", "100 managed clients asking, each from a thread", (3, 9), step=100),
    Workload(
        "connect-1000",
        "connecting 1000 clients on a shared loop, each",
        (3.8, 4.5),
        (2.4, 3),
        operations=(1000, 1000),
    ),
    Workload(
        "connect-managed-100",
        "100 managed clients connecting, each",
        operations=(100, 100),
    ),
    Workload(
        "sensors-subscribe",
        "10 000 sensors listed and subscribed, each",
        operations=SENSORS,
    ),
    Workload("sensors-update", "update of one of 10 000 sensors", operations=_FLOOD),
    Workload(
        "sensors-update-inform",
        "update of a sensor : inform to its handler",
        whole=True,
        unit="ratio",
        operations=_FLOOD,
    ),
    Workload(
        "sensors-memory",
        "memory of one of 10 000 sensors",
        operations=SENSORS,
        unit="bytes",
        fresh=True,
    ),
    *_payload("plain", "plain", ((12, 15), (2.5, 3.5)), ((35, 45), (1, 1.3))),
    *_payload("escaped-16", _SIXTEENTH, ((12, 18), (0.6, 1)), ((13, 20), (0.4, 1))),
    *_payload("escaped-2", _HALF, ((25, 40), (0.15, 1)), ((9, 15), (0.25, 1))),
    *_payload("spaces-16", "with 1/16 spaces", ((12, 18), (0.6, 1)), ((13, 20), (0.4, 1))),
    *_payload("spaces-2", "with 1/2 spaces", ((25, 40), (0.15, 1)), ((9, 15), (0.25, 1))),
    *_payload("zeros", "of zeros", ((50, 200), (1, 1.5)), ((50, 200), (1, 1.5))),
    Workload("build-request", "build a short request (constructor and bytes)"),
    Workload("build-status", "build a sensor line (constructor and bytes)"),
    *_codec("status", "a sensor-status line", ((10, 14), (4, 5)), ((3, 4.5), (2, 3))),
    *_codec("reply", "a short reply", ((3.4, 5), (2.5, 3.5)), ((1.9, 3), (2.3, 3))),
    *_codec("escapes", "a short line of escapes", ((3.5, 5), (0.85, 1.1)), ((2.9, 4), (0.75, 1))),
    *_codec("plain-mib", "1 MiB plain", ((100, 170), (10, 14)), ((35, 45), (6.5, 8))),
    *_codec("escaped-mib", f"1 MiB {_SIXTEENTH}", ((11, 16), (0.6, 1)), ((24, 30), (0.9, 1.1))),
    *_codec("spaces-mib", "1 MiB with 1/16 spaces", ((11, 16), (0.6, 1)), ((24, 30), (0.9, 1.1))),
    Workload("gains", "4100 numbers: parse, copy, serialise", (4, 10), (1.2, 2)),
    Workload(
        "memory",
        "memory of a connected client",
        (2, 3),
        (20, 40),
        operations=(1000, 300),
        unit="bytes",
        fresh=True,
    ),
    _timer("99", "99th percentile", 0.002),
    _timer("worst", "latest", 0.03),
    Workload(
        "import",
        "import katcp (aiokatcp: import aiokatcp)",
        (1.3, 1.8),
        (0.85, 1.2),
        operations=(1, 1),
    ),
]
