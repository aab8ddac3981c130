"""The statistics of what was measured; the results as plain data and as tables."""

from __future__ import annotations

import math
import statistics
from typing import Any, Optional

from .competitor import AIOKATCP, OLD, OURS
from .rounds import Series
from .workloads import Target, Workload

_UNITS = {
    "seconds": [(1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s")],
    "bytes": [(1.0, "B"), (1024.0, "KiB"), (1024.0**2, "MiB")],
    "ratio": [(1.0, "to 1")],
}

# First quartile, median and third quartile.
Quartiles = tuple[float, float, float]


def quartiles(values: list[float]) -> Quartiles:
    """Return first quartile, median and third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def compare(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return quartiles of how many times less ours took in each round, and if they are noise."""
    times = [their / our for our, their in zip(ours, theirs)]
    return {"quartiles": quartiles(times), "noise": may_be_noise(times)}


def may_be_noise(times: list[float]) -> bool:
    """Return whether chance would put so many on one side of 1 in more than 1 % of all runs."""
    count = len(times)
    fewer = min(sum(one <= 1 for one in times), sum(one >= 1 for one in times))
    return 2 * sum(math.comb(count, k) for k in range(fewer + 1)) > 0.01 * 2.0**count


def verdict(values: Quartiles, target: Target) -> str:
    """Return in a word whether a target is reached."""
    must, aim = target
    if values[2] < must:
        return "MISS"
    if values[0] < must:
        return "unclear"
    return "must" if values[0] < aim else "aim"


# As plain data.


def summarise(workload: Workload, results: dict[str, Series]) -> dict[str, Any]:
    """Return the row of a workload."""
    ours = results.get(OURS)
    competitors = {name: _describe(series) for name, series in results.items()}
    if ours is not None:
        for name, series in results.items():
            if name != OURS and workload.unit != "ratio":
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
    return {
        "amount": quartiles(series.amounts),
        "cpu": quartiles(series.cpu) if series.cpu else None,
        "amounts": series.amounts,
    }


def _compare(workload: Workload, name: str, ours: Series, series: Series) -> dict[str, Any]:
    """Return how ours compares with another."""
    compared: dict[str, Any] = {"times": compare(ours.amounts, series.amounts)}
    if series.cpu:
        compared["cpu_times"] = compare(ours.cpu, series.cpu)
    target = {OLD: workload.old, AIOKATCP: workload.aio}.get(name)
    if target is not None:
        compared["target"] = "{:g}/{:g}".format(*target)
        compared["verdict"] = verdict(compared["times"]["quartiles"], target)
    return compared


def _judge(result: dict[str, Any], limit: float) -> dict[str, str]:
    """Return whether an amount is within its limit."""
    kept = result["amount"][1] <= limit
    return {"target": f"<= {_format(limit, 'seconds')}", "verdict": "must" if kept else "MISS"}


# As it comes: each competitor in a line.

HEADER = (
    f"  {'competitor':<16} {'median (quartiles)':<32}  {'cpu':>7}  "
    f"{'times':<34}  {'in cpu':<34}  must/aim"
)


def format_row(row: dict[str, Any]) -> str:
    """Return the lines of one workload."""
    lines = [f"{row['workload']}: {row['title']}"]
    lines += [
        _format_competitor(name, result, row["unit"]) for name, result in row["competitors"].items()
    ]
    return "\n".join(lines)


def _format_competitor(name: str, result: dict[str, Any], unit: str) -> str:
    amount = _format_spread(result["amount"], unit)
    cpu = _format(result["cpu"][1], "seconds") if result["cpu"] else ""
    compared, cpu_compared = (format_times(result.get(key)) for key in ("times", "cpu_times"))
    target = f"[{result['target']}] {result['verdict']}" if "verdict" in result else ""
    return (
        f"  {name:<16} {amount:<32}  {cpu:>7}  {compared:<34}  {cpu_compared:<34}  {target}"
    ).rstrip()


# At a glance: each workload in a line.


def format_glance(rows: list[dict[str, Any]]) -> str:
    """Return a table of all workloads, in Markdown."""
    others = list(
        dict.fromkeys(name for row in rows for name in row["competitors"] if name != OURS)
    )
    cells = [["workload", OURS, *(f"times {name}" for name in others)]]
    cells += [_glance_cells(row, others) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in cells
    ]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n\n" + _count_verdicts(rows)


def _glance_cells(row: dict[str, Any], others: list[str]) -> list[str]:
    cells = [row["title"]]
    for name in [OURS, *others]:
        result = row["competitors"].get(name, {})
        if "times" in result:
            cell = format_times(result["times"])
        else:
            cell = _format_spread(result["amount"], row["unit"]) if result else ""
        cells.append(f"{cell} {result.get('verdict', '')}".rstrip())
    return cells


def _count_verdicts(rows: list[dict[str, Any]]) -> str:
    verdicts = [
        result["verdict"]
        for row in rows
        for result in row["competitors"].values()
        if "verdict" in result
    ]
    return ", ".join(
        f"{word}: {verdicts.count(word)}" for word in ("aim", "must", "unclear", "MISS")
    )


def format_times(compared: Optional[dict[str, Any]]) -> str:
    """Return the median and the quartiles; but instead of a figure that may be noise, say so."""
    if compared is None:
        return ""
    first, median, third = (f"{value:.3g}" for value in compared["quartiles"])
    said = "no difference seen" if compared["noise"] else median
    return f"{said} ({first} .. {third})"


def _format_spread(values: Quartiles, unit: str) -> str:
    first, median, third = (_format(value, unit) for value in values)
    return f"{median} ({first} .. {third})"


def _format(value: float, unit: str) -> str:
    units = _UNITS[unit]
    size, name = next((one for one in reversed(units) if abs(value) >= one[0]), units[0])
    return f"{value / size:.3g} {name}" if value < 1000 * size else f"{value / size:.0f} {name}"
