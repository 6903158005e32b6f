"""docs/benchmarks.md's table of artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.peers import FAMILIES
from bench.report import number

DEFAULT = "stock-workers-4"
TITLES = {"local": "Local disk", "s3": "S3 (moto on the same machine)"}


def as_markdown(summary: Mapping[str, Any]) -> str:
    """Headrace, stock as it comes (4 workers), the best of stock's set-ups, and the limit."""
    lines = ["|  | Headrace | stock MLflow by default | its best set-up | the limit |", "|---" * 5 + "|"]
    part = ""
    for row in summary["rows"]:
        if row["part"] != part:
            part = row["part"]
            lines.append(f"| **{TITLES[part]}** |  |  |  |  |")
        stock = row["best"].get("stock")
        cells = [_cell(row, "headrace"), _cell(row, DEFAULT), _cell(row, stock), _cell(row, "bare")]
        cells[0] += "".join(_verdict(target) for target in row["targets"] if target["met"] is not None)
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    machine, versions = summary["machine"], summary["versions"]
    programs = ", ".join(f"{FAMILIES[family]} {version}" for family, version in versions.items())
    facts = (
        f"Measured on {summary['date'][:10]} at commit {summary['commit'][:8]} by `python -m bench artifacts`: "
        f"medians of {summary['rounds']} rounds, {machine['cores']} cores ({machine['cpu']}); {programs}. The limit: "
        "an ASGI app on the same HTTP server that only takes or sends the bytes. More: docs/benchmarks.md."
    )
    return "\n".join([*lines, "", facts])


def _cell(row: Mapping[str, Any], name: str | None) -> str:
    if name is None or name not in row["peers"]:
        return ""
    shown = number(row["peers"][name]["median"], row["unit"])
    return shown if name in ("headrace", "bare", DEFAULT) else f"{shown} ({name.removeprefix('stock-')})"


def _verdict(target: Mapping[str, Any]) -> str:
    against = "the default" if target["against"] == DEFAULT else "the best"
    mark = "met" if target["met"] else "MISSED"
    return f"; {number(target['ratio'])} x {against} (target {target['at_least']:g} x, {mark})"
