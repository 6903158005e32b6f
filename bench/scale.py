"""How searches go with the number of runs: Headrace alone on PostgreSQL, with 50,000 runs and copies of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from bench import api, load
from bench.databases import Database, Databases, fetch, run
from bench.dataset import RUN_EVERY, SEARCHED, Dataset, Size
from bench.fill import fill, settle, without_indexes
from bench.peers import BY_NAME
from bench.runner import say
from bench.search import PAGE, indexes, search_runs, timed

FIRST = 50_000
STAGES = (FIRST, 200_000, 1_000_000)
QUICK_STAGES = (FIRST // 10, 2 * FIRST // 10)
SECONDS = 3.0

# name -> (title, search, the same as SQL, at most so many times the first stage's time)
_ACTIVE = f"FROM runs r WHERE r.experiment_id = {SEARCHED} AND r.lifecycle_stage = 'active'"
SEARCHES: dict[str, tuple[str, dict[str, Any], str, float | None]] = {
    "newest-100": (
        "the newest 100",
        {"max_results": PAGE},
        f"SELECT r.run_uuid {_ACTIVE} ORDER BY r.start_time DESC LIMIT {PAGE}",
        2.0,
    ),
    "top-100": (
        "the top 100 by a metric",
        {"max_results": PAGE, "order_by": ["metrics.metric_3 DESC"]},
        "SELECT r.run_uuid FROM runs r JOIN latest_metrics m USING (run_uuid) WHERE m.key = 'metric_3'"
        f" AND r.experiment_id = {SEARCHED} ORDER BY m.value DESC LIMIT {PAGE}",
        2.0,
    ),
    "tagged-100": (
        "the newest 100 with a tag",
        {"max_results": PAGE, "filter": "tags.team = 'team-7'"},
        f"SELECT r.run_uuid {_ACTIVE} AND EXISTS (SELECT FROM tags t WHERE t.run_uuid = r.run_uuid"
        f" AND t.key = 'team' AND t.value = 'team-7') ORDER BY r.start_time DESC LIMIT {PAGE}",
        None,
    ),
}


def measure(databases: Databases, folder: Path, stages: Sequence[int]) -> list[dict[str, Any]]:
    """For each number of runs: {"runs", "ms": {search: median}, "bytes": {table or index: its size}, "faults"}."""
    database = databases.create("postgresql", "scale", migrated=True)
    say(f"{stages[0]:,} runs")
    dataset = Dataset(Size(runs=stages[0], experiments=4, points=1))
    fill(database, dataset, "stock")
    process = BY_NAME["headrace"].start(database, folder / "headrace")
    try:
        process.wait_ready()
        api.call(process.port, "GET", "experiments/get?experiment_id=0", patience=60)
        indexes(database, "build")
        results = []
        there = stages[0]
        for count in stages:
            if count > there:
                say(f"{count:,} runs")
                run(multiply(database.uri, there // stages[0], count // stages[0], stages[0]))
                there = count
            results.append(_stage(process.port, database, count))
            say(f"    {results[-1]['ms']}")
    finally:
        process.stop()
    return results


async def multiply(uri: str, begin: int, end: int, originals: int) -> None:
    """Copies number `begin` to `end` of the first runs: each a later one, with ids and metrics of its own."""
    connection = await asyncpg.connect(uri, command_timeout=1800)
    span = originals * RUN_EVERY
    new_id = "md5(o.run_uuid || ':' || n)"
    try:
        await connection.execute("SET synchronous_commit = off; SET session_replication_role = replica")
        originals_of = (
            f"SELECT run_uuid FROM runs WHERE experiment_id = {SEARCHED} ORDER BY start_time LIMIT {originals}"
        )
        await connection.execute(f"CREATE TEMPORARY TABLE original AS {originals_of}; ANALYZE original")
        number = f"generate_series({begin}, {end - 1}) n"
        async with without_indexes(connection):
            await connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,"
                " start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)"
                f" SELECT {new_id}, o.name || '-' || n, o.source_type, o.source_name, o.entry_point_name, o.user_id,"
                f" o.status, o.start_time + n * {span}::bigint, o.end_time + n * {span}::bigint, o.source_version,"
                f" o.lifecycle_stage, o.artifact_uri, o.experiment_id"
                f" FROM original JOIN runs o USING (run_uuid), {number}"
            )
            for table in ("params", "tags"):
                await connection.execute(
                    f"INSERT INTO {table} (key, value, run_uuid) SELECT o.key, o.value, {new_id}"
                    f" FROM original JOIN {table} o USING (run_uuid), {number}"
                )
            await connection.execute(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) SELECT o.key,"
                f" o.value * (1009 + n) - floor(o.value * (1009 + n)), o.timestamp, o.step, o.is_nan, {new_id}"
                f" FROM original JOIN latest_metrics o USING (run_uuid), {number}"
            )
        await settle(connection)
    finally:
        await connection.close()


def _stage(port: int, database: Database, count: int) -> dict[str, Any]:
    medians, faults = {}, []
    with api.Session(port) as session:
        for name, (title, search, sql, _) in SEARCHES.items():
            request = search_runs(**search)
            latencies, bodies = timed(lambda request=request: session.call(*request), SECONDS)  # type: ignore[misc]
            medians[name] = statistics.median(latencies) * 1000
            right = [row[0] for row in run(fetch(database.uri, sql))]
            answers = [json.loads(load.decode(body)) for body in set(bodies)]
            if any([found["info"]["run_id"] for found in answer["runs"]] != right for answer in answers):
                faults.append(f"{title}: other runs than those searched for")
    sizes = run(fetch(database.uri, _SIZES))
    return {"runs": count, "ms": medians, "bytes": dict(sizes), "faults": faults}


_SIZES = """
SELECT relname::text, pg_relation_size(oid) FROM pg_class
WHERE relname IN ('runs', 'latest_metrics', 'params', 'tags') OR relname LIKE 'headrace_%' ORDER BY relname
"""


def judge(stages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times as long as with the first number of runs the searches take with the last."""
    first, last = stages[0]["ms"], stages[-1]["ms"]
    targets = {name: search[3] for name, search in SEARCHES.items()}
    return [
        {
            "search": name,
            "ratio": last[name] / first[name],
            "at_most": most,
            "met": None if most is None else last[name] / first[name] <= most,
        }
        for name, most in targets.items()
    ]
