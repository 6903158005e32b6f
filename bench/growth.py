"""What rows cost: `python -m bench.growth [--rows 30000000]` logs and reads on a full table of metrics and an empty.

Two servers on one PostgreSQL, turn by turn; printed is, for one connection, the median of each and their ratio. The
goals are 1.3 times for writing and 1.5 times for reading. How far a run's points lie apart, and so what reading them
costs, depends on how many trainings wrote at the same time: the full table has a third of each.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from bench import api, load
from bench.databases import Databases, run
from bench.fill import settle, without_indexes
from bench.machine import facts
from bench.process import ServerProcess, free_port
from bench.search import indexes
from headrace.db import postgres_indexes
from headrace.db.indexes import HISTORIES, MLFLOWS_STEPS, Index

# how many runs were written at once, and which
Part: TypeAlias = tuple[int, range]
BIN = Path(sys.executable).parent
POINTS = 1_000  # a run
FEW = 10  # runs with points in the table that is called empty: what is read has to be there
ROUNDS, SECONDS = 5, 1.5
START = 1_700_000_000_000

AT_ONCE = (10, 100, 10_000)  # so many trainings write at the same time; each a part of the full table

RUNS = """
INSERT INTO runs (run_uuid, experiment_id, artifact_uri, status, source_type, lifecycle_stage, start_time)
SELECT md5(r::text), 0, 'mlflow-artifacts:/0/' || md5(r::text) || '/artifacts', 'FINISHED', 'LOCAL', 'active', r
FROM generate_series({first}, {last}) r;
INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(r::text), 'loss', 1, {start} + {points}, {points}, false FROM generate_series({first}, {last}) r;
"""
# point by point of all that run at once: the more they are, the more pages a run's points lie on
METRICS = """
INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT md5(({first} + i / {points} / {at_once} * {at_once} + i % {at_once})::text), 'loss', random(),
  {start} + i, i / {at_once} % {points} + 1, false
FROM generate_series(0, ({last} - {first} + 1)::bigint * {points} - 1) i
"""


async def fill(uri: str, parts: Sequence[Part]) -> int:
    """Runs with their points; the bytes of the table of metrics with its indexes."""
    connection = await asyncpg.connect(uri, command_timeout=3600)
    try:
        await connection.execute("SET synchronous_commit = off; SET session_replication_role = replica")
        async with without_indexes(connection):
            for at_once, runs in parts:
                values = {
                    "first": runs.start,
                    "last": runs.stop - 1,
                    "at_once": min(at_once, len(runs)),
                    "points": POINTS,
                    "start": START,
                }
                await connection.execute(RUNS.format(**values))
                await connection.execute(METRICS.format(**values))
        await settle(connection)
        size: int = await connection.fetchval("SELECT pg_total_relation_size('metrics')")
        return size
    finally:
        await connection.close()


def serve(uri: str, folder: Path) -> ServerProcess:
    """A server of ours on a database, which has answered; stock never starts."""
    port = free_port()
    own = folder / str(port)
    stores = ["--backend-store-uri", uri, "--artifacts-destination", str(own / "artifacts")]
    command = [str(BIN / "headrace"), "serve", *stores, "--port", str(port), "--stock", "never"]
    server = ServerProcess(command, port, own, {})
    server.wait_ready("/ready")
    return server


class Side:
    """A server on a database with runs of 1,000 points; `part` is the one whose runs are asked for."""

    def __init__(self, databases: Databases, folder: Path, name: str, parts: Sequence[Part]) -> None:
        database = databases.create("postgresql", name, migrated=True)
        self.uri, self.parts, self.part = database.uri, parts, parts[0]
        began = time.monotonic()
        size = run(fill(database.uri, parts))
        points = sum(len(runs) for _, runs in parts) * POINTS
        print(f"{name}: {points:,} points, {size / 1e9:.2f} GB, in {time.monotonic() - began:.0f} s", flush=True)
        indexes(database, "build")  # else the server does, beside what is measured
        self.server = serve(database.uri, folder)
        self._chance, self._steps = random.Random(1), itertools.count(10 * POINTS)

    def seconds(self, request: Callable[[Side], bytes]) -> float:
        """The median of one kind of request, one after the other."""

        def stream() -> Iterator[tuple[int, bytes]]:
            for number in itertools.count():
                yield number, request(self)

        for seconds in (SECONDS, 20 * SECONDS):  # a disk that is still busy with what was loaded can take seconds
            outcome = load.run(self.server.port, [stream()], seconds, warm_up=0.3)
            outcome.check()
            if outcome.latencies:
                break
        return statistics.median(outcome.latencies)

    def any_run(self, among: int | None = None) -> str:
        """One of so many runs of the part."""
        return hashlib.md5(str(self._chance.choice(self.part[1][:among])).encode()).hexdigest()

    def point(self) -> dict[str, Any]:
        step = next(self._steps)
        return {"key": "loss", "value": 0.5, "timestamp": START + 10**9 + step, "step": step}


def _log_metric(side: Side, among: int | None) -> bytes:
    return api.post("runs/log-metric", {"run_id": side.any_run(among), **side.point()})


def _log_batch(side: Side, among: int | None) -> bytes:
    return api.post("runs/log-batch", {"run_id": side.any_run(among), "metrics": [side.point() for _ in range(1_000)]})


def _history(side: Side) -> bytes:
    asked = f"metric_key=loss&max_results={POINTS}"
    return api.request("GET", f"metrics/get-history?run_id={side.any_run()}&{asked}")


def _chart(side: Side) -> bytes:
    runs = "&".join(f"run_ids={side.any_run()}" for _ in range(10))
    return api.request("GET", f"metrics/get-history-bulk-interval?metric_key=loss&max_results=320&{runs}")


READS = {"get-history of 1,000": _history, "chart of 10 runs": _chart}
# what is at work now, as on the small table, and runs of all times: their pages may have to come from the disk
WRITES = {
    f"{name}, into {'any run' if among is None else f'{among} runs'}": partial(log, among=among)
    for name, log in (("log-metric", _log_metric), ("log-batch of 1,000", _log_batch))
    for among in (FEW, None)
}


def compare(name: str, request: Callable[[Side], bytes], goal: float, sides: Sequence[Side]) -> None:
    """Print how long a kind of request takes on the empty side and on the full one, in turns."""
    rounds = [[side.seconds(request) * 1000 for side in sides] for _ in range(ROUNDS)]
    empty, full = (statistics.median(values) for values in zip(*rounds, strict=True))
    ratio = statistics.median(full / empty for empty, full in rounds)
    print(f"| {name} | {empty:.2f} ms | {full:.2f} ms | {ratio:.2f} x | {goal} x |", flush=True)


def reads(sides: Sequence[Side]) -> None:
    for part in sides[1].parts:
        sides[1].part = part
        for name, request in READS.items():
            compare(f"{name}, {part[0]:,} at once", request, 1.5, sides)


def cold_reads(databases: Databases, full: Side) -> None:
    """The same after the system has forgotten the table, which is in its cache otherwise, where there is room."""
    for part in full.parts:
        full.part = part
        for name, request in READS.items():
            databases.postgres.forget()
            cold = full.seconds(request) * 1000
            print(f"| {name}, {part[0]:,} at once, at first from the disk | | {cold:.2f} ms | | |", flush=True)


def writes(sides: Sequence[Side]) -> None:
    for name, request in WRITES.items():
        compare(name, request, 1.3, sides)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.growth", description=__doc__)
    parser.add_argument("--rows", type=int, default=30_000_000)
    parser.add_argument("--shared-buffers", default="128MB", help="PostgreSQL's memory")
    parser.add_argument("--mlflows", action="store_true", help="once more with MLflow's index of steps")
    options = parser.parse_args(arguments)
    runs = options.rows // POINTS // len(AT_ONCE)
    full = [(at_once, range(number * runs, (number + 1) * runs)) for number, at_once in enumerate(AT_ONCE)]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        settings = {"shared_buffers": options.shared_buffers, "max_wal_size": "4GB"}
        databases = Databases(folder / "databases", str(BIN / "mlflow"), settings=settings)
        sides: list[Side] = []
        try:
            for side, parts in (("empty", [(FEW, range(FEW))]), ("full", full)):
                sides.append(Side(databases, folder, side, parts))
            print(facts(folder))
            if options.mlflows:
                replace_index(sides, MLFLOWS_STEPS)
                reads(sides)
                cold_reads(databases, sides[1])
                replace_index(sides, HISTORIES)
            reads(sides)
            cold_reads(databases, sides[1])
            writes(sides)  # last: what is written makes histories longer
            if options.mlflows:
                replace_index(sides, MLFLOWS_STEPS)
                writes(sides)
        finally:
            for each in sides:
                each.server.stop()
            databases.stop()
    return 0


def replace_index(sides: Sequence[Side], index: Index) -> None:
    """Have the index of steps as it should be, or as MLflow makes it."""
    for side in sides:
        run(_replace_index(side.uri, index))


async def _replace_index(uri: str, index: Index) -> None:
    connection = await asyncpg.connect(uri, command_timeout=3600)
    try:
        began = time.monotonic()
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await postgres_indexes.exchange(connection, index)
        took = time.monotonic() - began
        await settle(connection)
        size = await connection.fetchval(f"SELECT pg_relation_size('{index.name}')")
        print(f"{index.name} ON {index}: {size / 1e9:.2f} GB, in {took:.0f} s", flush=True)
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
