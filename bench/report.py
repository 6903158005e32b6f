"""From measurements to the summary (JSON), and from the summary to tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.peers import BY_NAME, FAMILIES
from bench.rows import AtMost, Row, Target
from bench.workloads import Measurement

COLUMNS = ("headrace", "stock", "fasttrackml", "limit")
HEADINGS = ("Headrace", "stock MLflow, its best", "FastTrackML", "the limit")
KIND_TITLES = {
    "postgresql": "PostgreSQL",
    "sqlite": "SQLite",
    "start": "Start and memory",
    "local": "Artifacts, local disk",
    "s3": "Artifacts, S3",
}


@dataclass
class Results:
    """Every measurement, by part ("postgresql", "sqlite", "start"), row and peer's name, in the order of the rounds."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    measured: dict[tuple[str, str], dict[str, list[Measurement]]] = field(default_factory=dict)

    def add(self, part: str, row: Row, peer: str, measurement: Measurement) -> None:
        self.rows[part, row.name] = row
        self.measured.setdefault((part, row.name), {}).setdefault(peer, []).append(measurement)


def summarise(results: Results) -> list[dict[str, Any]]:
    """A JSON object for each row: each peer's median and rounds, each family's best peer, and the targets."""
    return [_summarise_row(part, row, results.measured[part, name]) for (part, name), row in results.rows.items()]


def _summarise_row(part: str, row: Row, measured: Mapping[str, Sequence[Measurement]]) -> dict[str, Any]:
    peers = {name: _summarise_peer(rounds) for name, rounds in measured.items()}
    best: dict[str, str] = {}
    for name, peer in peers.items():
        family = BY_NAME[name].family
        if peer["median"] is None:
            continue
        if family not in best or row.times_as_good(peer["median"], peers[best[family]]["median"]) > 1:
            best[family] = name
    values = {name: peer["median"] for name, peer in peers.items() if peer["median"] is not None}
    values |= {family: peers[name]["median"] for family, name in best.items()}
    return {
        "part": part,
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "peers": peers,
        "best": best,
        "targets": [_judge(row, target, values) for target in row.targets_on(part)],
    }


def _summarise_peer(rounds: Sequence[Measurement]) -> dict[str, Any]:
    values = [m.value for m in rounds if math.isfinite(m.value)]
    details: dict[str, float] = {}
    for name in {name for m in rounds for name in m.detail}:
        details[name] = statistics.median(m.detail[name] for m in rounds if name in m.detail)
    return {
        "median": statistics.median(values) if values else None,
        "rounds": values,
        "detail": dict(sorted(details.items())),
        "faults": [fault for m in rounds for fault in m.faults],
    }


def _judge(row: Row, target: Target, values: Mapping[str, float]) -> dict[str, Any]:
    """`met` is None where something was not measured, or where the ratio is only stated."""
    own = values.get("headrace")
    if isinstance(target, AtMost):
        return {"at_most": target.value, "met": None if own is None else own <= target.value}
    others = [values.get(family, math.nan) for family in target.against.split("+")]
    other = None if any(map(math.isnan, others)) else sum(others)
    ratio = None if own is None or other is None else row.times_as_good(own, other)
    met = None if ratio is None or target.at_least is None else ratio >= target.at_least
    return {"against": target.against, "at_least": target.at_least, "other": other, "ratio": ratio, "met": met}


def faults_of(rows: Iterable[Mapping[str, Any]], family: str) -> list[str]:
    """What was found wrong with a family's answers, a line each."""
    return [
        f"{KIND_TITLES[row['part']]}, {row['name']}: {name}: {fault}"
        for row in rows
        for name, peer in row["peers"].items()
        if BY_NAME[name].family == family
        for fault in peer["faults"]
    ]


def number(value: float | None, unit: str = "") -> str:
    """At least three significant digits, thousands separated."""
    if value is None or math.isnan(value):  # what failed says so beside it
        return "-"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits):,.{digits}f} {unit}".replace("requests/s", "/s").strip()


def _cell(row: Mapping[str, Any], column: str) -> str:
    unit = row["unit"]
    if column == "headrace":
        return number(_median(row, "headrace"), unit) + "".join(
            f" (at most {target['at_most']:g}{_mark(target)})" for target in row["targets"] if "at_most" in target
        )
    targets = [t for t in row["targets"] if "against" in t and _column(t["against"]) == column]
    if not targets:
        return number(_median(row, column), unit) if column in row["best"] else ""
    target = targets[0]
    shown = number(target["other"], unit)
    if target["ratio"] is not None:
        shown += f": {_ratio(target['ratio'], column)}"
    if target["at_least"] is not None:
        shown += f" (target {_ratio(target['at_least'], column)}{_mark(target)})"
    return shown + _wrong(row, column)


def _column(against: str) -> str:
    return against if against in COLUMNS else "limit"


def _median(row: Mapping[str, Any], family: str) -> float | None:
    name = row["best"].get(family)
    median: float | None = row["peers"][name]["median"] if name else None
    return median


def _ratio(ratio: float, column: str) -> str:
    return f"{ratio:.0%}" if column == "limit" else f"{number(ratio)} x"


def _mark(target: Mapping[str, Any]) -> str:
    return "" if target["met"] is None else (", met" if target["met"] else ", MISSED")


def _wrong(row: Mapping[str, Any], column: str) -> str:
    """The gravest fault of the column's best peer, if it answered wrong."""
    name = row["best"].get(column)
    faults = sorted(row["peers"][name]["faults"], key=_gravity) if name else []
    return f"; {faults[-1]}" if faults else ""


def _gravity(fault: str) -> int:
    digits = "".join(character if character.isdigit() else " " for character in fault.split(" of ")[0]).split()
    return int(digits[-1]) if digits else 0


def table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Headings and lines; a line with one cell begins a part. A column with nothing in it is left out."""
    cells = [[_cell(row, column) for column in COLUMNS] for row in rows]
    kept = [i for i, column in enumerate(COLUMNS) if column == "headrace" or any(line[i] for line in cells)]
    lines = [["", *(HEADINGS[i] for i in kept)]]
    part = ""
    for row, line in zip(rows, cells, strict=True):
        if row["part"] != part:
            part = row["part"]
            lines.append([KIND_TITLES[part]])
        lines.append([row["title"], *(line[i] for i in kept)])
    return lines


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = table(rows)
    widths = [max(len(line[i]) for line in lines if len(line) > 1) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The table of docs/benchmarks.md, with the day and the machine."""
    lines = table(summary["rows"])
    width = len(lines[0])
    shown = ["| " + " | ".join(lines[0]) + " |", "|---" * width + "|"]
    for line in lines[1:]:
        cells = line if len(line) > 1 else [f"**{line[0]}**", *[""] * (width - 1)]
        shown.append("| " + " | ".join(cells) + " |")
    return "\n".join([*shown, "", _facts(summary)])


def _facts(summary: Mapping[str, Any]) -> str:
    machine, versions = summary["machine"], summary["versions"]
    programs = ", ".join(f"{FAMILIES[family]} {version}" for family, version in versions.items() if family != "raw")
    others = others_busy(summary["rows"])
    caveat = f" Other work kept {others:.1f} cores busy meanwhile: the ratios count." if others >= 0.1 else ""
    command = summary.get("command", "make bench")
    return (
        f"Measured on {summary['date'][:10]} at commit {summary['commit'][:8]} by `{command}`: "
        f"medians of {summary['rounds']} rounds, "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']:.0f} GB, "
        f"PostgreSQL {machine['postgresql']} on the same machine; {programs}.{caveat} "
        "What is measured and what the limits mean: docs/benchmarks.md."
    )


def others_busy(rows: Iterable[Mapping[str, Any]]) -> float:
    """The median of the cores that processes outside of the bench kept busy during the measurements."""
    shares = [p["detail"]["other_cores"] for row in rows for p in row["peers"].values() if "other_cores" in p["detail"]]
    return statistics.median(shares) if shares else 0.0


def replace_block(text: str, block: str, name: str = "bench") -> str:
    """Put the block between the markers of this name. Raises ValueError where a marker is missing."""
    first, last = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, start, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise ValueError(f"the markers {first} and {last} are missing")
    return f"{before}{first}\n{block}\n{last}{after}"
