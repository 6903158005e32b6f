"""The plot of the scale bench: time against the number of runs."""

from __future__ import annotations

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
