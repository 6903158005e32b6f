"""The plots: Headrace and FastTrackML against stock, and time against the number of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.scale import SEARCHES


def draw(summary: dict[str, Any], path: Path) -> None:
    """Draw the stages of a summary of the scale bench as a PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    runs = [stage["runs"] for stage in summary["stages"]]
    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=130, layout="constrained")
    for name, (title, *_) in SEARCHES.items():
        axes.plot(runs, [stage["ms"][name] for stage in summary["stages"]], marker="o", label=title)
    axes.set_xscale("log")
    axes.set_xticks(runs)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("runs in the experiment, each with 15 metrics, 15 params, 5 tags")
    axes.set_ylabel("ms, over HTTP")
    axes.set_title("runs/search on PostgreSQL", loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


# rows of the chart against stock: on PostgreSQL, from the foundation bench and the search bench
_SHOWN = {
    "log-metric-32": "log-metric, 32 clients",
    "log-batch-1000": "log-batch of 1,000 metrics",
    "runs-create": "runs/create, 8 clients",
    "runs-get": "runs/get, 8 clients",
    "newest-100": "newest 100 of 50,000 runs",
    "top-1000": "top 1,000 by a metric",
    "history": "get-history, 100,000 points",
    "client-500": "a plain client, 500 metrics",
}


def times_of_stock(row: Mapping[str, Any], peer: str) -> float | None:
    """How many times faster than stock's best set-up a peer is; None where it was not measured."""
    if peer not in row["peers"]:
        return None
    mine = float(row["peers"][peer]["median"])
    of_stock = [float(each["median"]) for name, each in row["peers"].items() if name.startswith("stock")]
    return mine / max(of_stock) if row["unit"] == "requests/s" else min(of_stock) / mine


def against_stock(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw, as a PNG, how many times faster than stock's best set-up Headrace and FastTrackML are on PostgreSQL."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    rows = {row["name"]: row for summary in summaries for row in summary["rows"] if row["part"] == "postgresql"}
    shown = {title: rows[name] for name, title in _SHOWN.items() if name in rows}
    figure, axes = plt.subplots(figsize=(7.4, 3.8), dpi=130, layout="constrained")
    for offset, peer, colour, label in (
        (-0.2, "headrace", "#0b7a75", "Headrace"),
        (0.2, "fasttrackml", "#b8b8b8", "FastTrackML"),
    ):
        values = [times_of_stock(row, peer) or 0.0 for row in shown.values()]
        bars = axes.barh([place + offset for place in range(len(shown))], values, 0.38, color=colour, label=label)
        axes.bar_label(bars, [f"{value:.1f} x" if value else "" for value in values], padding=3, fontsize=7)
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_yticks(range(len(shown)), list(shown), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as stock MLflow in the best of its three set-ups (the line is stock)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
