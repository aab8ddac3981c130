"""What was measured: as plain data, as it comes, and at a glance."""

from __future__ import annotations

import statistics
from typing import Any, Optional

from .competitor import AIOKATCP, FLOOR_ASYNCIO, FLOOR_BLOCKING, OLD, OURS
from .rounds import Series
from .workloads import Target, Workload

_UNITS = {
    "seconds": [(1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s")],
    "bytes": [(1.0, "B"), (1024.0, "KiB"), (1024.0**2, "MiB")],
}


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the first quartile, the median and the third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, middle, third


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return how many times better ours is: the median of what it was in each round."""
    return statistics.median(their / our for our, their in zip(ours, theirs))


def verdict(value: float, target: Target) -> str:
    """Say in a word how *value* stands to its target; how far it is from a must that it misses."""
    if value >= target.aim:
        return "aim"
    if value >= target.must:
        return "must"
    return f"MISS {value / target.must:.2f}"


# As plain data.


def summarise(workload: Workload, results: dict[str, Series]) -> dict[str, Any]:
    """Return the row of a workload."""
    ours = results.get(OURS)
    competitors = {name: _describe(series) for name, series in results.items()}
    if ours is not None:
        for name, series in results.items():
            if name != OURS:
                competitors[name].update(_compare(workload, name, ours, series))
        if workload.limit is not None:
            competitors[OURS].update(_judge(competitors[OURS], workload.limit))
    return {
        "workload": workload.name,
        "title": workload.title,
        "unit": workload.unit,
        "competitors": competitors,
    }


def _describe(series: Series) -> dict[str, Any]:
    first, median, third = quartiles(series.amounts)
    return {
        "median": median,
        "quartiles": [first, third],
        "cpu": statistics.median(series.cpu) if series.cpu else None,
        "amounts": series.amounts,
    }


def _compare(workload: Workload, name: str, ours: Series, series: Series) -> dict[str, Any]:
    """Return how ours stands to another."""
    compared: dict[str, Any] = {"ratio": ratio(ours.amounts, series.amounts)}
    if series.cpu:
        compared["cpu_ratio"] = ratio(ours.cpu, series.cpu)
    targets = {OLD: workload.old, AIOKATCP: workload.aio, FLOOR_BLOCKING: workload.floor}
    target = targets.get(name)
    if target is not None:
        compared["target"] = f"{target.must:g}/{target.aim:g}"
        compared["verdict"] = verdict(compared["ratio"], target)
    return compared


def _judge(result: dict[str, Any], limit: float) -> dict[str, str]:
    """Return how an amount stands to what it may be at most."""
    kept = result["median"] <= limit
    return {"target": f"<= {_format(limit, 'seconds')}", "verdict": "must" if kept else "MISS"}


# As it comes: each competitor in a line.

HEADER = (
    f"  {'competitor':<16} {'median':>10}  ({'quartiles':^22})  {'cpu':>10}  "
    f"{'times':>7}  {'in cpu':>7}  must/aim"
)


def format_row(row: dict[str, Any]) -> str:
    """Return the lines of one workload."""
    lines = [f"{row['workload']}: {row['title']}"]
    lines += [
        _format_competitor(name, result, row["unit"]) for name, result in row["competitors"].items()
    ]
    return "\n".join(lines)


def _format_competitor(name: str, result: dict[str, Any], unit: str) -> str:
    first, third = (_format(value, unit) for value in result["quartiles"])
    cpu = "" if result["cpu"] is None else _format(result["cpu"], "seconds")
    times, cpu_times = (_format_ratio(result.get(key)) for key in ("ratio", "cpu_ratio"))
    text = (
        f"  {name:<16} {_format(result['median'], unit):>10}  ({first:>10} .. {third:>9})"
        f"  {cpu:>10}  {times:>7}  {cpu_times:>7}  {_format_verdict(result)}"
    )
    return text.rstrip()


# At a glance: each workload in a line.


def format_glance(rows: list[dict[str, Any]]) -> str:
    """Return a table of all workloads, in Markdown."""
    columns = ["workload", OURS, "times " + OLD, "times " + AIOKATCP, "of the floor"]
    cells = [columns, *map(_glance_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in cells
    ]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n\n" + _count_verdicts(rows)


def _glance_cells(row: dict[str, Any]) -> list[str]:
    competitors = row["competitors"]
    ours = competitors.get(OURS)
    floor = competitors.get(FLOOR_BLOCKING if row["workload"] == "blocking" else FLOOR_ASYNCIO)
    mine = "" if ours is None else f"{_format(ours['median'], row['unit'])} {_format_verdict(ours)}"
    return [
        row["title"],
        mine.strip(),
        *map(_glance_cell, [*map(competitors.get, [OLD, AIOKATCP]), floor]),
    ]


def _glance_cell(result: Optional[dict[str, Any]]) -> str:
    if result is None or "ratio" not in result:
        return ""
    cpu = f"(cpu {_format_ratio(result['cpu_ratio'])})" if "cpu_ratio" in result else ""
    return f"{_format_ratio(result['ratio'])} {cpu} {_format_verdict(result)}".strip()


def _count_verdicts(rows: list[dict[str, Any]]) -> str:
    verdicts = [
        result["verdict"].split()[0]
        for row in rows
        for result in row["competitors"].values()
        if "verdict" in result
    ]
    counts = {word: verdicts.count(word) for word in ("aim", "must", "MISS")}
    return "aim reached: {aim}, must reached: {must}, missed: {MISS}".format(**counts)


def _format_verdict(result: dict[str, Any]) -> str:
    return f"[{result['target']}] {result['verdict']}" if "verdict" in result else ""


def _format_ratio(value: Optional[float]) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _format(value: float, unit: str) -> str:
    units = _UNITS[unit]
    size, name = next((one for one in reversed(units) if abs(value) >= one[0]), units[0])
    return f"{value / size:.3g} {name}" if value < 1000 * size else f"{value / size:.0f} {name}"
