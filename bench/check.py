"""Were the answers right? Every acknowledged metric is stored once, and the latest values are the latest."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from bench import api
from bench.databases import Database

Point = tuple[str, str, float, int, int]  # run id, key, value, timestamp, step


def metrics(database: Database, port: int, acknowledged: Iterable[Point], sent: Iterable[Point] = ()) -> list[str]:
    """Compare what the server acknowledged with the table `metrics` and with runs/get; return the faults.

    `sent`: points that were sent without being acknowledged (they may be there or not). Acknowledged points are
    distinct, but a client may have sent one twice: it is stored once.
    """
    points = set(acknowledged)
    allowed = points | set(sent)
    by_run: dict[str, set[Point]] = defaultdict(set)
    for point in points:
        by_run[point[0]].add(point)
    rows = database.rows("run_uuid, key, value, timestamp, step", "metrics", list(by_run))
    stored: dict[str, Counter[Point]] = defaultdict(Counter)
    for row in rows:
        point = (row[0], row[1], float(row[2]), int(row[3]), int(row[4]))
        stored[point[0]][point] += 1
    wrong: Counter[str] = Counter()
    for run_id, expected in by_run.items():
        found = stored[run_id]
        wrong["acknowledged metrics missing"] += any(point not in found for point in expected)
        wrong["metrics stored twice"] += any(count > 1 for count in found.values())
        wrong["metrics stored that nobody sent"] += any(point not in allowed for point in found)
        wrong["latest values wrong"] += latest_values(api.get_run(port, run_id)) != newest(found)
    return [f"{fault} in {count} of {len(by_run)} runs" for fault, count in wrong.items() if count]


def newest(points: Iterable[Point]) -> dict[str, tuple[float, int, int]]:
    """key -> (value, timestamp, step) of the point that MLflow takes as the latest: by step, timestamp, value."""
    latest: dict[str, tuple[int, int, float]] = {}
    for _, key, value, timestamp, step in points:
        latest[key] = max(latest.get(key, (step, timestamp, value)), (step, timestamp, value))
    return {key: (value, timestamp, step) for key, (step, timestamp, value) in latest.items()}


def latest_values(run: dict[str, Any]) -> dict[str, tuple[float, int, int]]:
    """The same from the `run` of runs/get."""
    listed = run["data"].get("metrics", [])
    latest = {m["key"]: (float(m["value"]), int(m["timestamp"]), int(m.get("step", 0))) for m in listed}
    return latest if len(latest) == len(listed) else {}


def parameters_and_tags(port: int, expected: dict[str, tuple[dict[str, str], dict[str, str]]]) -> list[str]:
    """Compare runs/get with the params and tags that each run was given."""
    wrong: Counter[str] = Counter()
    for run_id, (params, tags) in expected.items():
        data = api.get_run(port, run_id)["data"]
        wrong["params wrong"] += pairs(data, "params") != params
        wrong["tags wrong"] += not tags.items() <= pairs(data, "tags").items()
    return [f"{fault} in {count} of {len(expected)} runs" for fault, count in wrong.items() if count]


def pairs(data: dict[str, Any], name: str) -> dict[str, str]:
    return {item["key"]: item["value"] for item in data.get(name, [])}


def created_runs(database: Database, names: dict[bytes, str]) -> list[str]:
    """`names`: the answer of each runs/create -> the run's name. Every run is stored, under its own name."""
    by_id = {json.loads(answer)["run"]["info"]["run_id"]: name for answer, name in names.items()}
    stored = dict(database.rows("run_uuid, name", "runs", list(by_id)))
    missing = sum(stored.get(run_id) != name for run_id, name in by_id.items())
    faults = [f"{missing} of {len(by_id)} acknowledged runs missing or misnamed"] if missing else []
    if len(by_id) != len(names):
        faults.append("one run id was given to several runs")
    return faults
