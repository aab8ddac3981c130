"""Measure this checkout beside its peers: ``tox -e bench``, or ``python -m bench``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

from . import environments
from .competitor import AIOKATCP, FLOOR, OLD, OURS, Competitor
from .report import HEADER, format_glance, format_row, summarise
from .rounds import Arena, Plan
from .server import make_command, running_server
from .workloads import SENSORS, WORKLOADS

CHECKOUT = Path(__file__).parent.parent.parent

FULL = Plan(rounds=15, seconds=0.1, quick=False)
QUICK = Plan(rounds=12, seconds=0.02, quick=True)


def parse_options() -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything, in short rounds")
    parser.add_argument("--rounds", type=int, help="rounds of each workload")
    parser.add_argument("--seconds", type=float, help="processor time of each in a round")
    parser.add_argument("--workload", nargs="+", metavar="NAME", choices=names, default=names)
    parser.add_argument("--list", action="store_true", help="list the workloads")
    parser.add_argument(
        "--without",
        nargs="+",
        choices=[FLOOR, AIOKATCP, "katcp"],
        default=[],
        help="who takes no part",
    )
    parser.add_argument(
        "--with",
        dest="extra",
        nargs="+",
        metavar="PACKAGE",
        default=[],
        help="ours once more, where this is installed (uvloop: on it)",
    )
    parser.add_argument(
        "--also", type=Path, nargs="+", metavar="PATH", default=[], help="other checkouts of ours"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--environments", type=Path, default=CHECKOUT / ".tox" / "bench-rivals", metavar="FOLDER"
    )
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 8:
        parser.error("fewer than 8 rounds cannot show a difference")
    return options


def find_competitors(options: argparse.Namespace) -> list[Competitor]:
    """Return who takes part; say in a line who cannot, and why."""
    folder = options.environments
    version = environments.choose_version(folder)
    ours = environments.make_ours(folder, version)
    competitors = [
        Competitor(FLOOR, ours, "floor.py"),
        Competitor(OURS, ours, "ours.py", CHECKOUT),
    ]
    for package in options.extra:
        python = environments.make_ours(folder, version, package)
        competitors.append(Competitor(f"with {package}", python, "ours.py", CHECKOUT))
    for also in options.also:
        competitors.append(Competitor(str(also), ours, "ours.py", also.resolve()))
    competitors += find_peers(folder, version)
    return [one for one in competitors if not one.name.startswith(tuple(options.without))]


def find_peers(folder: Path, version: str) -> Iterator[Competitor]:
    """Yield the peers that can be installed."""
    try:
        yield Competitor(AIOKATCP, environments.make_aiokatcp(folder, version), "aio.py")
    except environments.Missing as missing:
        print(f"without {AIOKATCP}: {missing}", file=sys.stderr)
    try:
        yield Competitor(OLD, environments.make_old(folder), "old_katcp.py")
    except environments.Missing as missing:
        print(f"without {OLD}: {missing}", file=sys.stderr)


def measure(arena: Arena, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the row of one workload after the other; print it as soon as it is known."""
    usual = QUICK if options.quick else FULL
    given = {key: value for key in ("rounds", "seconds") if (value := getattr(options, key))}
    plan = replace(usual, **given)
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
            print(f"{workload.name:<20} {workload.title}")
        return
    options.environments.mkdir(parents=True, exist_ok=True)
    competitors = find_competitors(options)
    machine = describe_machine()
    print(json.dumps(machine))
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((options.environments / "workers.log").open("w"))
        server = stack.enter_context(
            running_server(make_command(options.environments, SENSORS[options.quick]))
        )
        arena = stack.enter_context(Arena(competitors, server, log))
        print(f"{json.dumps(arena.versions)}\n\n{HEADER}")
        rows = list(measure(arena, options))
        print(f"\n{format_glance(rows)}")
    if options.json:
        results = {"machine": machine, "versions": arena.versions, "rows": rows}
        options.json.write_text(json.dumps(results, indent=1))
