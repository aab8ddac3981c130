"""Measure this checkout against the rivals: ``tox -e bench``, or ``python -m bench``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, Iterator, Optional

from . import environments
from .competitor import Competitor
from .report import HEADER, format_row, summarise
from .rounds import Arena, Plan
from .server import make_command, running_server
from .workloads import WORKLOADS, Workload

CHECKOUT = Path(__file__).parent.parent

FULL = Plan(rounds=9, seconds=0.2, quick=False)
QUICK = Plan(rounds=3, seconds=0.05, quick=True)


def parse_options() -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="pinned only, in short rounds")
    parser.add_argument("--rounds", type=int, help="rounds of each workload")
    parser.add_argument("--seconds", type=float, help="length of a round of each competitor")
    parser.add_argument("--workload", nargs="+", metavar="NAME", choices=names, default=names)
    parser.add_argument("--list", action="store_true", help="list the workloads")
    parser.add_argument("--competitor", nargs="+", metavar="NAME", help="only these, and ours")
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
    """Return who can take part; say in a line who cannot, and why."""
    folder = options.environments
    ours, aiokatcp, reason = environments.make_new(folder)
    competitors = [Competitor("ours", ours, "ours.py", str(options.source.resolve()))]
    for also in options.also:
        competitors.append(Competitor(also.resolve().name, ours, "ours.py", str(also.resolve())))
    try:
        old = environments.make_old(folder)
        competitors.append(Competitor("katcp 0.9.3", old, "old_katcp.py"))
    except environments.Missing as missing:
        print(f"without katcp 0.9.3: {missing}", file=sys.stderr)
    if aiokatcp is None:
        print(f"without aiokatcp: {reason}", file=sys.stderr)
    else:
        competitors.append(Competitor("aiokatcp", aiokatcp, "aio.py"))
    competitors.append(Competitor("floor, blocking", ours, "floor_blocking.py"))
    competitors.append(Competitor("floor, asyncio", ours, "floor_asyncio.py"))
    wanted = options.competitor
    return [one for one in competitors if not wanted or one.name in wanted or one.name == "ours"]


def choose_processors(options: argparse.Namespace) -> list[Optional[tuple[int, int]]]:
    """Return the processors for server and competitor, for each table; None: not pinned."""
    pinning = options.pinning or ("pinned" if options.quick else "both")
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        print("not pinned: there is but one processor", file=sys.stderr)
        return [None]
    pair = (available[0], available[1])
    return {"pinned": [pair], "unpinned": [None], "both": [pair, None]}[pinning]


def measure(arena: Arena, workloads: list[Workload], plan: Plan) -> Iterator[dict[str, Any]]:
    """Measure one workload after the other; show each as soon as it is known."""
    print(HEADER)
    for workload in workloads:
        row = summarise(workload, arena.measure(workload, plan))
        print(format_row(row), flush=True)
        yield row


def describe_machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.split(":", 1)[1].strip() for line in cpuinfo if "model name" in line]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processor": models[0] if models else processor,
        "processors": len(os.sched_getaffinity(0)),
    }


def main() -> None:
    options = parse_options()
    if options.list:
        for workload in WORKLOADS:
            print(f"{workload.name:<22} {workload.title}")
        return
    plan = QUICK if options.quick else FULL
    plan = Plan(options.rounds or plan.rounds, options.seconds or plan.seconds, plan.quick)
    options.environments.mkdir(parents=True, exist_ok=True)
    competitors = find_competitors(options)
    server = make_command(options.environments)
    workloads = [workload for workload in WORKLOADS if workload.name in options.workload]
    report: dict[str, Any] = {"machine": describe_machine(), "server": server, "tables": []}
    for pair in choose_processors(options):
        server_cpu, cpu = pair or (None, None)
        title = "pinned" if pair else "unpinned"
        with running_server(server, server_cpu) as port, Arena(competitors, port, cpu) as arena:
            report["versions"] = arena.versions
            print(f"\n{title}: {json.dumps(arena.versions)}\n")
            report["tables"].append({"title": title, "rows": [*measure(arena, workloads, plan)]})
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


main()
