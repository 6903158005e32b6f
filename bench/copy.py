"""What a copy costs: `python -m bench.copy [RUNS]` copies so many runs (1,000) of 50 metrics with 100 points each from
one database to another, and looks once more for what is missing: PostgreSQL and SQLite.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from bench.databases import Database, Databases, run
from bench.machine import facts
from bench.process import clean_environment

BIN = Path(sys.executable).parent
METRICS, POINTS = 50, 100
WAYS = (("postgresql", "postgresql"), ("sqlite", "postgresql"), ("postgresql", "sqlite"))

FILL = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, last_update_time, workspace)
VALUES (1, 'copied', 'mlflow-artifacts:/1', 'active', 1, 'default');
INSERT INTO runs (run_uuid, experiment_id, artifact_uri, status, source_type, lifecycle_stage)
SELECT md5(r::text), 1, 'mlflow-artifacts:/1/' || md5(r::text) || '/artifacts', 'FINISHED', 'LOCAL', 'active'
FROM generate_series(1, {runs}) r;
INSERT INTO params (run_uuid, key, value) SELECT md5(r::text), 'param ' || p, p FROM generate_series(1, {runs}) r,
  generate_series(1, 20) p;
INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(r::text), 'metric ' || m, random(), 1700000000000 + p * 1000, p, false
FROM generate_series(1, {runs}) r, generate_series(1, {metrics}) m, generate_series(1, {points}) p;
INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(r::text), 'metric ' || m, 1, 1700000000000 + {points} * 1000, {points}, false
FROM generate_series(1, {runs}) r, generate_series(1, {metrics}) m;
ANALYZE;
"""


async def fill(uri: str, runs: int) -> None:
    connection = await asyncpg.connect(uri)
    await connection.execute(FILL.format(runs=runs, metrics=METRICS, points=POINTS))
    await connection.close()


def copy(source: Database, target: Database) -> tuple[float, int]:
    """Seconds, points."""
    begin = time.monotonic()
    done = subprocess.run(
        [BIN / "headrace", "copy", source.uri, target.uri, "--without-artifacts", "--json"],
        env=clean_environment({}), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return time.monotonic() - begin, json.loads(done.stdout)["metrics"]


def main(runs: int) -> int:
    """Print a line for each way."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        databases = Databases(folder / "databases", str(BIN / "mlflow"))
        try:
            made = {"postgresql": databases.create("postgresql", "filled", migrated=True)}
            run(fill(made["postgresql"].uri, runs))
            print(facts(folder), flush=True)
            for source, target in WAYS:
                if source not in made:
                    made[source] = databases.create(source, "filled", migrated=True)
                    copy(made["postgresql"], made[source])
                there = databases.create(target, f"from_{source}", migrated=True)
                seconds, points = copy(made[source], there)
                again, more = copy(made[source], there)
                if (points, more) != (runs * METRICS * POINTS, 0):
                    raise RuntimeError(f"{points} points were copied, then {more}")
                print(
                    f"{source} to {target}: {points:,} points in {seconds:.1f} s ({points / seconds:,.0f}/s); "
                    f"looking again {again:.1f} s",
                    flush=True,
                )
        finally:
            databases.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
