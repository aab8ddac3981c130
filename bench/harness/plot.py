"""The ratios as a picture: how many times better than each rival, and what was wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .competitor import AIOKATCP, OLD


def draw(tables: list[dict[str, Any]], path: Path) -> None:
    """Write a picture, a column for each rival: the first table as bars, the other as dots."""
    # Here, so that only who wants a picture needs the package.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = [row["title"] for row in tables[0]["rows"]]
    figure, axes = pyplot.subplots(
        1, 2, sharey=True, figsize=(14, 1.5 + 0.26 * len(titles)), layout="constrained"
    )
    for axis, rival in zip(axes, (OLD, AIOKATCP)):
        _draw_rival(axis, tables, rival)
        axis.set_title(f"times better than {rival}")
    axes[0].set_yticks(range(len(titles)), titles)
    axes[0].invert_yaxis()
    axes[1].legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _draw_rival(axis: Any, tables: list[dict[str, Any]], rival: str) -> None:
    for table, style in zip(tables, ("bar", "mark")):
        values = [
            (place, row["competitors"][rival])
            for place, row in enumerate(table["rows"])
            if "ratio" in row["competitors"].get(rival, {})
        ]
        places = [place for place, _ in values]
        ratios = [result["ratio"] for _, result in values]
        if style == "bar":
            axis.barh(places, ratios, color="tab:blue", alpha=0.6, label=table["title"])
            _draw_targets(axis, values)
        else:
            axis.plot(ratios, places, "k.", label=table["title"])
    axis.set_xscale("log")
    axis.axvline(1, color="black", linewidth=0.8)
    axis.grid(axis="x", alpha=0.3)


def _draw_targets(axis: Any, values: list[tuple[int, dict[str, Any]]]) -> None:
    wanted = [
        (place, *map(float, result["target"].split("/")))
        for place, result in values
        if "target" in result
    ]
    if wanted:
        places, musts, aims = zip(*wanted)
        axis.plot(musts, places, "|", color="tab:red", markersize=10, label="must")
        axis.plot(aims, places, "|", color="tab:green", markersize=10, label="aim")
