"""What SQLite itself allows: the rows of a request, without a server in front (sqlite3's executemany), durably.

As limits.py does it on PostgreSQL. The session is Headrace's: WAL, synchronous=FULL, foreign keys, a larger cache.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing

from bench.databases import Database
from bench.limits import Point

INSERT_METRIC = "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, false, ?)"
INSERT_LATEST = """
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, false, ?)
ON CONFLICT (key, run_uuid) DO UPDATE
SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)
"""
INSERT_PARAM = "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)"
INSERT_TAG = "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)"

Rows = Sequence[tuple[object, ...]]


def one_row_commits(database: Database, seconds: float) -> list[float]:
    """The seconds of each commit of one row into `metrics`, one after the other."""

    def transactions(run_id: str) -> Iterator[list[tuple[str, Rows]]]:
        step = 0
        while True:
            step += 1
            yield [(INSERT_METRIC, [("loss", 0.5, 1_700_000_000_000 + step, step, run_id)])]

    with closing(_connect(database)) as db:
        return _measure(db, transactions(_new_run(db)), seconds)


def raw_inserts(database: Database, batches: Iterator[list[Point]], seconds: float) -> list[float]:
    """The seconds of each transaction that writes one batch's rows of `metrics` and `latest_metrics`."""

    def transactions(run_id: str) -> Iterator[list[tuple[str, Rows]]]:
        for points in batches:
            newest = {point[1]: point for point in points}
            yield [(INSERT_METRIC, _rows(points, run_id)), (INSERT_LATEST, _rows(list(newest.values()), run_id))]

    with closing(_connect(database)) as db:
        return _measure(db, transactions(_new_run(db)), seconds)


def raw_new_runs(
    database: Database, points: list[Point], params: dict[str, str], tags: dict[str, str], seconds: float
) -> list[float]:
    """The seconds of each transaction that gives a new run these metrics (a key once), params and tags."""

    def transactions(db: sqlite3.Connection) -> Iterator[list[tuple[str, Rows]]]:
        while True:
            run_id = _new_run(db)
            rows = _rows(points, run_id)
            pairs = [[(key, value, run_id) for key, value in given.items()] for given in (params, tags)]
            yield [(INSERT_METRIC, rows), (INSERT_LATEST, rows), (INSERT_PARAM, pairs[0]), (INSERT_TAG, pairs[1])]

    with closing(_connect(database)) as db:
        return _measure(db, transactions(db), seconds)


def _measure(db: sqlite3.Connection, transactions: Iterator[list[tuple[str, Rows]]], seconds: float) -> list[float]:
    latencies = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        statements = next(transactions)
        started = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        for statement, rows in statements:
            db.executemany(statement, rows)
        db.execute("COMMIT")
        latencies.append(time.perf_counter() - started)
    return latencies


def _rows(points: list[Point], run_id: str) -> Rows:
    # by key, so that the rows' places in the index lie side by side
    return sorted((*point[1:], run_id) for point in points)


def _connect(database: Database) -> sqlite3.Connection:
    db = sqlite3.connect(database.uri.removeprefix("sqlite:///"), isolation_level=None, timeout=20)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "cache_size = -16384",
        "wal_autocheckpoint = 4000",
    ):
        db.execute(f"PRAGMA {pragma}")
    return db


def _new_run(db: sqlite3.Connection) -> str:
    run_id = uuid.uuid4().hex
    [experiment] = db.execute(
        "INSERT INTO experiments (name, lifecycle_stage) VALUES (?, 'active') RETURNING experiment_id", (run_id,)
    ).fetchone()
    db.execute(
        "INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage) VALUES (?, ?, 'RUNNING', 'active')",
        (run_id, experiment),
    )
    return run_id
