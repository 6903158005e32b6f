"""What rows cost: `python -m bench.growth [--rows 10000000]` logs and reads on a full table of metrics and an empty.

Two servers on one PostgreSQL, turn by turn; printed is, for one connection, the median of each and their ratio. The
goals are 1.3 times for writing and 1.5 times for reading.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg

from bench import api, load
from bench.databases import Databases, run
from bench.fill import settle, without_indexes
from bench.machine import facts
from bench.process import ServerProcess, free_port
from bench.search import indexes

BIN = Path(sys.executable).parent
POINTS = 1_000  # a run
FEW = 10  # runs with points in the table that is called empty: what is read has to be there
ROUNDS, SECONDS = 5, 1.5
START = 1_700_000_000_000

RUNS = """
INSERT INTO runs (run_uuid, experiment_id, artifact_uri, status, source_type, lifecycle_stage, start_time)
SELECT md5(r::text), 0, 'mlflow-artifacts:/0/' || md5(r::text) || '/artifacts', 'FINISHED', 'LOCAL', 'active', r
FROM generate_series(1, {runs}) r;
INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(r::text), 'loss', 1, {start} + {points}, {points}, false FROM generate_series(1, {runs}) r;
"""
# as trainings at the same time write them, which is the worst for reading: a run's points each on another page
METRICS = """
INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(r::text), 'loss', random(), {start} + r * 1000 + m, m, false
FROM generate_series(1, {runs}) r, generate_series(1, {points}) m
"""


async def fill(uri: str, runs: int) -> int:
    """Runs with their points; the bytes of the table of metrics with its indexes."""
    connection = await asyncpg.connect(uri, command_timeout=3600)
    values = {"runs": runs, "points": POINTS, "start": START}
    try:
        await connection.execute("SET synchronous_commit = off; SET session_replication_role = replica")
        async with without_indexes(connection):
            await connection.execute(RUNS.format(**values))
            await connection.execute(METRICS.format(**values))
        await settle(connection)
        size: int = await connection.fetchval("SELECT pg_total_relation_size('metrics')")
        return size
    finally:
        await connection.close()


class Side:
    """A server on a database with so many runs of 1,000 points."""

    def __init__(self, databases: Databases, folder: Path, name: str, runs: int) -> None:
        database = databases.create("postgresql", name, migrated=True)
        began = time.monotonic()
        self.size = run(fill(database.uri, runs))
        print(
            f"{name}: {runs * POINTS:,} points, {self.size / 1e9:.2f} GB, in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        indexes(database, "build")  # else the server does, beside what is measured
        port = free_port()
        stores = ["--backend-store-uri", database.uri, "--artifacts-destination", str(folder / name)]
        self.server = ServerProcess(
            [str(BIN / "headrace"), "serve", *stores, "--port", str(port), "--stock", "never"], port, folder, {}
        )
        self.server.wait_ready("/ready")
        self._chance, self._steps = random.Random(1), itertools.count(10 * POINTS)
        self._ids: list[str] = [row[0] for row in run(_ids(database.uri))]

    def seconds(self, request: Callable[[Side], bytes]) -> float:
        """The median of one kind of request, one after the other."""

        def stream() -> Iterator[tuple[int, bytes]]:
            for number in itertools.count():
                yield number, request(self)

        outcome = load.run(self.server.port, [stream()], SECONDS, warm_up=0.3)
        if outcome.failures:
            raise RuntimeError(f"{len(outcome.failures)} failed: {outcome.failures[0]}")
        return statistics.median(outcome.latencies)

    def any_run(self) -> str:
        return self._chance.choice(self._ids)

    def point(self) -> dict[str, Any]:
        step = next(self._steps)
        return {"key": "loss", "value": 0.5, "timestamp": START + 10**9 + step, "step": step}


async def _ids(uri: str) -> list[Any]:
    connection = await asyncpg.connect(uri)
    rows: list[Any] = await connection.fetch("SELECT run_uuid FROM runs")
    await connection.close()
    return rows


def _log_metric(side: Side) -> bytes:
    return api.post("runs/log-metric", {"run_id": side.any_run(), **side.point()})


def _log_batch(side: Side) -> bytes:
    return api.post("runs/log-batch", {"run_id": side.any_run(), "metrics": [side.point() for _ in range(1_000)]})


def _history(side: Side) -> bytes:
    asked = f"metric_key=loss&max_results={POINTS}"
    return api.request("GET", f"metrics/get-history?run_id={side.any_run()}&{asked}")


def _chart(side: Side) -> bytes:
    runs = "&".join(f"run_ids={side.any_run()}" for _ in range(10))
    return api.request("GET", f"metrics/get-history-bulk-interval?metric_key=loss&max_results=320&{runs}")


# reads first: what is written makes histories longer
KINDS = {
    "get-history of 1,000": (_history, 1.5),
    "chart of 10 runs": (_chart, 1.5),
    "log-metric": (_log_metric, 1.3),
    "log-batch of 1,000": (_log_batch, 1.3),
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.growth", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--json", action="store_true", help="print JSON, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        databases = Databases(folder / "databases", str(BIN / "mlflow"))
        sides: list[Side] = []
        try:
            for side, runs in (("empty", FEW), ("full", options.rows // POINTS)):
                sides.append(Side(databases, folder, side, runs))
            print(facts(folder))
            found = {}
            for kind, (request, goal) in KINDS.items():
                rounds = [[side.seconds(request) * 1000 for side in sides] for _ in range(ROUNDS)]
                empty, full = (statistics.median(values) for values in zip(*rounds, strict=True))
                ratio = statistics.median(full / empty for empty, full in rounds)
                found[kind] = {"empty_ms": empty, "full_ms": full, "ratio": ratio}
                print(
                    f"{kind}: {empty:.2f} ms, {full:.2f} ms with {options.rows:,} rows, {ratio:.2f} x (goal {goal} x)"
                )
            if options.json:
                print(json.dumps(found))
        finally:
            for each in sides:
                each.server.stop()
            databases.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
