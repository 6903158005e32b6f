"""What PostgreSQL itself allows: the rows of a request, without a server in front (asyncpg, prepared statements)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import asyncpg

from bench.databases import Database, run

Point = tuple[str, str, float, int, int]  # run id, key, value, timestamp, step

INSERT_METRICS = """
INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT $1, m.key, m.value, m.timestamp, m.step, false
FROM unnest($2::text[], $3::float8[], $4::int8[], $5::int8[]) AS m (key, value, timestamp, step)
"""
INSERT_LATEST = """
INSERT INTO latest_metrics AS latest (run_uuid, key, value, timestamp, step, is_nan)
SELECT $1, m.key, m.value, m.timestamp, m.step, false
FROM unnest($2::text[], $3::float8[], $4::int8[], $5::int8[]) AS m (key, value, timestamp, step)
ON CONFLICT (key, run_uuid) DO UPDATE
SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
WHERE (excluded.step, excluded.timestamp, excluded.value) > (latest.step, latest.timestamp, latest.value)
"""


def one_row_commits(database: Database, seconds: float) -> list[float]:
    """The seconds of each commit of one row into `metrics`, one after the other."""

    async def measure() -> list[float]:
        connection = await asyncpg.connect(database.uri)
        try:
            run_id = await _new_run(connection)
            statement = await connection.prepare(
                "INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES ($1, $2, $3, $4, $5, false)"
            )
            latencies = []
            end = time.perf_counter() + seconds
            step = 0
            while (started := time.perf_counter()) < end:
                step += 1
                await statement.fetch(run_id, "loss", 0.5, 1_700_000_000_000 + step, step)
                latencies.append(time.perf_counter() - started)
            return latencies
        finally:
            await connection.close()

    return run(measure())


def raw_inserts(database: Database, batches: Iterator[list[Point]], seconds: float) -> list[float]:
    """The seconds of each transaction that writes one batch's rows of `metrics` and `latest_metrics`.

    The arrays are made before the clock starts; the points' run is replaced by a new one.
    """

    async def measure() -> list[float]:
        connection = await asyncpg.connect(database.uri)
        try:
            run_id = await _new_run(connection)
            metrics = await connection.prepare(INSERT_METRICS)
            latest = await connection.prepare(INSERT_LATEST)
            latencies = []
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                points = next(batches)
                # a later point of the same key replaces the earlier one: batches are in the order of their steps
                newest = list({point[1]: point for point in points}.values())
                arrays, newest_arrays = _columns(points), _columns(newest)
                started = time.perf_counter()
                async with connection.transaction():
                    await metrics.fetch(run_id, *arrays)
                    await latest.fetch(run_id, *newest_arrays)
                latencies.append(time.perf_counter() - started)
            return latencies
        finally:
            await connection.close()

    return run(measure())


INSERT_PARAMS = "INSERT INTO params (run_uuid, key, value) SELECT $1, p.* FROM unnest($2::text[], $3::text[]) AS p"
INSERT_TAGS = "INSERT INTO tags (run_uuid, key, value) SELECT $1, t.* FROM unnest($2::text[], $3::text[]) AS t"


def raw_new_runs(
    database: Database, points: list[Point], params: dict[str, str], tags: dict[str, str], seconds: float
) -> list[float]:
    """The seconds of each transaction that gives a new run these metrics (a key once), params and tags."""

    async def measure() -> list[float]:
        connection = await asyncpg.connect(database.uri)
        try:
            metrics = await connection.prepare(INSERT_METRICS)
            latest = await connection.prepare(INSERT_LATEST)
            given = await connection.prepare(INSERT_PARAMS)
            tagged = await connection.prepare(INSERT_TAGS)
            columns = _columns(points)
            pairs = [[list(values), list(values.values())] for values in (params, tags)]
            latencies = []
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                run_id = await _new_run(connection)
                started = time.perf_counter()
                async with connection.transaction():
                    await metrics.fetch(run_id, *columns)
                    await latest.fetch(run_id, *columns)
                    await given.fetch(run_id, *pairs[0])
                    await tagged.fetch(run_id, *pairs[1])
                latencies.append(time.perf_counter() - started)
            return latencies
        finally:
            await connection.close()

    return run(measure())


def _columns(points: list[Point]) -> list[list[Any]]:
    return [list(column) for column in list(zip(*points, strict=True))[1:]]


async def _new_run(connection: Any) -> str:
    run_id = uuid.uuid4().hex
    experiment = await connection.fetchval(
        "INSERT INTO experiments (name, lifecycle_stage) VALUES ($1, 'active') RETURNING experiment_id", run_id
    )
    await connection.execute(
        "INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage) VALUES ($1, $2, 'RUNNING', 'active')",
        run_id,
        experiment,
    )
    return run_id
