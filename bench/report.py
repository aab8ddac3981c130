"""What was measured: as a table, and as JSON."""

from __future__ import annotations

import statistics
from typing import Any, Optional

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


def verdict(value: float, target: Optional[Target]) -> str:
    """Say how *value* stands to its target."""
    if target is None:
        return ""
    if value >= target.aim:
        return f"AIM  of {target.must:g}/{target.aim:g}"
    if value >= target.must:
        return f"must of {target.must:g}/{target.aim:g}"
    return f"MISS of {target.must:g}/{target.aim:g}, {value / target.must:.2f} of must"


def summarise(workload: Workload, results: dict[str, Series]) -> dict[str, Any]:
    """Return one row as plain data."""
    ours = results.get("ours")
    return {
        "workload": workload.name,
        "title": workload.title,
        "unit": workload.unit,
        "competitors": {
            name: {**_describe(series), **_compare(workload, name, ours, series)}
            for name, series in results.items()
        },
    }


def _describe(series: Series) -> dict[str, Any]:
    first, median, third = quartiles(series.amounts)
    return {
        "median": median,
        "quartiles": [first, third],
        "cpu": statistics.median(series.cpu),
        "amounts": series.amounts,
    }


def _compare(
    workload: Workload, name: str, ours: Optional[Series], series: Series
) -> dict[str, Any]:
    """Return how ours stands to another; nothing for itself."""
    if ours is None or ours is series:
        return {}
    value = ratio(ours.amounts, series.amounts)
    target = {"katcp 0.9.3": workload.old, "aiokatcp": workload.aio}.get(name)
    compared = {"ratio": value, "verdict": verdict(value, target)}
    if workload.unit == "seconds":
        compared["cpu_ratio"] = ratio(ours.cpu, series.cpu)
    return compared


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the table: a line for each competitor."""
    lines = [f"{row['workload']}: {row['title']}"]
    lines += [
        _format_competitor(name, result, row["unit"]) for name, result in row["competitors"].items()
    ]
    return "\n".join(lines)


def _format_competitor(name: str, result: dict[str, Any], unit: str) -> str:
    first, third = (_format(value, unit) for value in result["quartiles"])
    cpu = _format(result["cpu"], "seconds") if unit == "seconds" else ""
    times, cpu_times = (_format_ratio(result.get(key)) for key in ("ratio", "cpu_ratio"))
    text = (
        f"  {name:<15} {_format(result['median'], unit):>10}  ({first:>9} .. {third:>9})"
        f"  {cpu:>10}  {times:>7}  {cpu_times:>7}  {result.get('verdict', '')}"
    )
    return text.rstrip()


def _format_ratio(ratio: Optional[float]) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


HEADER = (
    f"  {'competitor':<15} {'median':>10}  ({'quartiles':^22})  {'cpu':>10}  "
    f"{'times':>7}  {'cpu':>7}  verdict of must/aim"
)


def _format(value: float, unit: str) -> str:
    units = _UNITS[unit]
    size, name = next((one for one in reversed(units) if abs(value) >= one[0]), units[0])
    return f"{value / size:.3g} {name}" if value < 1000 * size else f"{value / size:.0f} {name}"
