"""What gc costs: `python -m bench.gc` removes a deleted experiment of 1,000,000 metrics and 10,000 files while a server
takes log-metric, on PostgreSQL; printed are gc's time and the p99 of log-metric without it and beside it.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg

from bench import api, load
from bench.databases import Databases, run
from bench.machine import facts
from bench.process import ServerProcess, clean_environment, free_port

BIN = Path(sys.executable).parent
RUNS, METRICS, FILES = 1_000, 1_000, 10  # 1,000 metrics and 10 files a run
CONNECTIONS = 8
ROUND = 5.0  # seconds

FILL = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, last_update_time, workspace)
VALUES (999, 'deleted', 'mlflow-artifacts:/999', 'deleted', 1, 'default');
INSERT INTO runs (run_uuid, experiment_id, artifact_uri, status, source_type, lifecycle_stage, deleted_time)
SELECT md5(r::text), 999, 'mlflow-artifacts:/999/' || md5(r::text) || '/artifacts', 'FINISHED', 'LOCAL', 'deleted', 1
FROM generate_series(1, {runs}) r;
INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(r::text), 'loss', m, m, m, false FROM generate_series(1, {runs}) r, generate_series(1, {metrics}) m;
INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(r::text), 'loss', 1, 1, 1, false FROM generate_series(1, {runs}) r;
ANALYZE;
"""


async def fill(uri: str) -> list[str]:
    """The deleted experiment; the ids of its runs."""
    connection = await asyncpg.connect(uri)
    await connection.execute(FILL.format(runs=RUNS, metrics=METRICS))
    ids = [row[0] for row in await connection.fetch("SELECT run_uuid FROM runs")]
    await connection.close()
    return ids


def call(port: int, path: str, **message: Any) -> Any:
    outcome = load.run(port, [iter([(0, api.post(path, message))])], seconds=60)
    return json.loads(outcome.answers[0][1])


def log_metrics(run_id: str) -> Iterator[tuple[int, bytes]]:
    for number in itertools.count():
        yield number, api.post("runs/log-metric", {"run_id": run_id, "key": "k", "value": 1.0, "timestamp": number})


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        artifacts = folder / "artifacts"
        databases = Databases(folder / "databases", str(BIN / "mlflow"))
        database = databases.create("postgresql", "gc", migrated=True)
        for run_id, number in itertools.product(run(fill(database.uri)), range(FILES)):
            file = artifacts / "999" / run_id / "artifacts" / f"file {number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * 1000)
        stores = ["--backend-store-uri", database.uri, "--artifacts-destination", str(artifacts)]
        port = free_port()
        command = [str(BIN / "headrace"), "serve", *stores, "--port", str(port), "--stock", "never"]
        server = ServerProcess(command, port, folder, {})
        try:
            server.wait_ready("/ready")
            experiment = call(port, "experiments/create", name="live")
            run_id = call(port, "runs/create", **experiment)["run"]["info"]["run_id"]

            def p99() -> float:
                streams = [log_metrics(run_id) for _ in range(CONNECTIONS)]
                outcome = load.run(port, streams, ROUND, warm_up=1)
                outcome.check()
                return statistics.quantiles(outcome.latencies, n=100)[98] * 1000

            alone = statistics.median(p99() for _ in range(3))
            begin = time.monotonic()
            gc = subprocess.Popen(
                [str(BIN / "headrace"), "gc", *stores, "--json"], env=clean_environment({}), stdout=subprocess.PIPE
            )
            beside = []
            while gc.poll() is None:
                beside.append(p99())
            seconds = time.monotonic() - begin
            print(facts(folder))
            print(gc.communicate()[0].decode().strip())
            print(f"gc {seconds:.1f} s (up to {ROUND:.0f} s too many)")
            with_gc = statistics.median(beside)
            print(f"log-metric, {CONNECTIONS} connections, p99: {alone:.1f} ms alone, {with_gc:.1f} ms beside gc")
        finally:
            server.stop()
            databases.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
