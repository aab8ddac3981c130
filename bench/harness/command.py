"""Measure this checkout against the rivals: ``tox -e bench``, or ``python -m bench``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, Iterator, Optional, TextIO

from . import environments
from .competitor import AIOKATCP, FLOOR_ASYNCIO, FLOOR_BLOCKING, OLD, OURS, Competitor
from .plot import draw
from .report import HEADER, format_glance, format_row, summarise
from .rounds import Arena, Plan
from .server import make_command, running_server
from .workloads import WORKLOADS

CHECKOUT = Path(__file__).parent.parent.parent

FULL = Plan(rounds=7, seconds=0.15, quick=False)
QUICK = Plan(rounds=3, seconds=0.05, quick=True)


def parse_options() -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="pinned only, in short rounds")
    parser.add_argument("--rounds", type=int, help="rounds of each workload")
    parser.add_argument("--seconds", type=float, help="length of a round of each competitor")
    parser.add_argument("--workload", nargs="+", metavar="NAME", choices=names, default=names)
    parser.add_argument("--list", action="store_true", help="list the workloads")
    parser.add_argument(
        "--without",
        nargs="+",
        choices=["floor", AIOKATCP, "katcp"],
        default=[],
        help="who does not take part",
    )
    parser.add_argument(
        "--with",
        dest="extra",
        nargs="+",
        metavar="PACKAGE",
        default=[],
        help="ours once more, where this is installed (uvloop: on it)",
    )
    parser.add_argument("--pinning", choices=["pinned", "unpinned", "both"])
    parser.add_argument("--source", type=Path, default=CHECKOUT, help="the checkout that is ours")
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], help="other checkouts of ours, as rivals"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument(
        "--environments", type=Path, default=CHECKOUT / ".tox" / "bench-rivals", metavar="FOLDER"
    )
    return parser.parse_args()


def find_competitors(options: argparse.Namespace) -> list[Competitor]:
    """Return who takes part; say in a line who cannot, and why."""
    folder = options.environments
    version = environments.choose_version(folder)
    ours = environments.make_ours(folder, version)
    source = str(options.source.resolve())
    competitors = [
        Competitor(FLOOR_BLOCKING, ours, "floor_blocking.py"),
        Competitor(FLOOR_ASYNCIO, ours, "floor_asyncio.py"),
        Competitor(OURS, ours, "ours.py", source),
    ]
    for package in options.extra:
        python = environments.make_ours(folder, version, package)
        competitors.append(Competitor(f"with {package}", python, "ours.py", source))
    for also in map(Path.resolve, options.also):
        competitors.append(Competitor(also.name, ours, "ours.py", str(also)))
    competitors += find_rivals(folder, version)
    return [one for one in competitors if not one.name.startswith(tuple(options.without))]


def find_rivals(folder: Path, version: str) -> Iterator[Competitor]:
    """Give the rivals that can be installed."""
    try:
        yield Competitor(AIOKATCP, environments.make_aiokatcp(folder, version), "aio.py")
    except environments.Missing as missing:
        print(f"without {AIOKATCP}: {missing}", file=sys.stderr)
    try:
        yield Competitor(OLD, environments.make_old(folder), "old_katcp.py")
    except environments.Missing as missing:
        print(f"without {OLD}: {missing}", file=sys.stderr)


def choose_processors(options: argparse.Namespace) -> list[Optional[tuple[int, int]]]:
    """Return the processors for server and competitor, for each table; None: not pinned."""
    pinning = options.pinning or ("pinned" if options.quick else "both")
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        print("not pinned: there is but one processor", file=sys.stderr)
        return [None]
    ways = {"pinned": [True], "unpinned": [False], "both": [True, False]}[pinning]
    return [(available[0], available[1]) if pinned else None for pinned in ways]


def measure_all(
    options: argparse.Namespace, competitors: list[Competitor], log: TextIO
) -> Iterator[dict[str, Any]]:
    """Give a table for each way to use the processors."""
    server = make_command(options.environments)
    for pair in choose_processors(options):
        server_cpu, cpu = pair or (None, None)
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(running_server(server, server_cpu))
            arena = stack.enter_context(Arena(competitors, port, cpu, log))
            title = "pinned" if pair else "unpinned"
            print(f"\n{title}: {json.dumps(arena.versions)}\n\n{HEADER}")
            rows = list(measure(arena, options))
            print(f"\n{title}\n\n{format_glance(rows)}", flush=True)
            yield {"title": title, "versions": arena.versions, "rows": rows}


def measure(arena: Arena, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give the row of one workload after the other; show it as soon as it is known."""
    usual = QUICK if options.quick else FULL
    plan = Plan(options.rounds or usual.rounds, options.seconds or usual.seconds, usual.quick)
    for workload in WORKLOADS:
        if workload.name in options.workload:
            row = summarise(workload, arena.measure(workload, plan))
            print(format_row(row), flush=True)
            yield row


def describe_machine() -> dict[str, Any]:
    """Return when and on what is measured."""
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.split(":", 1)[1].strip() for line in cpuinfo if "model name" in line]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processor": models[0] if models else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
    }


def main() -> None:
    options = parse_options()
    if options.list:
        for workload in WORKLOADS:
            print(f"{workload.name:<22} {workload.title}")
        return
    options.environments.mkdir(parents=True, exist_ok=True)
    competitors = find_competitors(options)
    machine = describe_machine()
    print(json.dumps(machine))
    with (options.environments / "workers.log").open("w") as log:
        tables = list(measure_all(options, competitors, log))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "tables": tables}, indent=1))
    if options.plot:
        draw(tables, options.plot)
