"""The Store on SQLite: one connection that writes and a few that read, each in a thread of its own.

The journal is a write-ahead log with synchronous=FULL: a group is on the disk when its writes are answered. Stock
works on the same file at the same time; each waits for the other's transactions.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import isqrt
from typing import TypeVar

from headrace.api.search.ast import Condition, RunSearch
from headrace.db import change_sql, schema, search_sql, sqlite_json
from headrace.db import sqlite_sql as sql
from headrace.db.base import Change, CreateRun, DeleteTag, LogBatch, Outcome, UpdateRun, Write
from headrace.db.group_commit import GroupCommit
from headrace.db.indexes import INDEXES
from headrace.db.plan import RUN_NAME_TAG, LogPlan
from headrace.db.reads import STATEMENT_SECONDS, Reads, TooSlow
from headrace.db.records import PLAIN_LOCATION, inputs_and_outputs, run_from_columns, run_info, write_size
from headrace.db.run_rows import RunRows
from headrace.db.search_sql import Dialect, Query
from headrace.entities import EncodedRun, Run, RunInfo
from headrace.errors import Declined, Malformed, Unavailable

logger = logging.getLogger(__name__)

READERS = 4
GROUP_ROWS = 2000
# How long a transaction waits for stock's, which may hold the file for a migration or a big delete.
BUSY_SECONDS = 20
# SQLite's own are 2,000 KiB and 1,000 pages; with these a log-batch of 1,000 metrics takes 17 ms instead of 23, since a
# page of an index that many groups change is copied into the database once for all of them. A longer log than 16 MB
# saves no more and slows readers, who look in it first (runs/get: 121 us with 4 MB, 131 with 16, 196 with 64).
CACHE_KIB = 16_384
CHECKPOINT_PAGES = 4_000

T = TypeVar("T")


class SqliteStore(Reads):
    """See base.Store. `path` is the database file, which stock has initialised."""

    dialect = Dialect.SQLITE

    def __init__(self, path: str, *, queue_limit: int, artifact_root: str = "") -> None:
        self._artifact_root = artifact_root
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._commits: GroupCommit[Write, RunInfo | None] = GroupCommit(
            self._flush, limit=queue_limit, group_size=GROUP_ROWS, size=write_size
        )
        self._changed: dict[str, str] = {}

    async def connect(self) -> None:
        """Nothing: each thread opens its own connection."""

    async def start(self) -> None:
        await self._in(self._writer, lambda db: db.execute("PRAGMA journal_mode = WAL").fetchone())
        self._changed = schema.differences(await self._in(self._readers, _columns), schema.SQLITE_TYPES)
        self._writer.submit(self._build_indexes)

    async def close(self) -> None:
        await self._commits.close()
        self._writer.shutdown()
        self._readers.shutdown()
        while self._connections:
            self._connections.pop().close()

    @property
    def changed_tables(self) -> dict[str, str]:
        return self._changed

    async def write(self, write: Write) -> RunInfo | None:
        return await self._commits.submit(write)

    async def get_run(self, run_id: str) -> Run | None:
        return await self._in(self._readers, lambda db: _get_run(db, run_id))

    async def change(self, change: Change) -> int:
        queries = change_sql.statements(change, Dialect.SQLITE, self._artifact_root)
        try:
            return await self._in(self._writer, lambda db: _change(db, queries))
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise Declined(f"SQLite refused it: {error}") from error

    async def transact(self, queries: Sequence[Query]) -> list[list[sqlite3.Row]]:
        try:
            return await self._in(self._writer, lambda db: _transact(db, queries))
        except sqlite3.Error as error:
            raise Declined(f"SQLite refused it: {error}") from error

    def _build_indexes(self) -> None:
        """In the writer's thread, before the first write that is queued behind it."""
        try:
            for index in INDEXES:
                self._connection().execute(index.create())
        except sqlite3.Error as error:
            logger.warning("Headrace's indexes can't be built: %s. Searches work without them, more slowly.", error)

    async def rows(self, query: Query) -> list[sqlite3.Row]:
        return await self._in(self._readers, lambda db: _rows(db, query))

    async def rarest_condition(self, search: RunSearch) -> Condition | None:
        conditions = search_sql.indexed(search)
        if not conditions:
            return None
        # To look at runs in their order until the page is full takes, for a condition that `n` of all `runs` meet,
        # `max_results * runs / n` looks; to list those that meet it takes `n`.
        [(runs,)] = await self.rows(search_sql.how_many_runs(self.dialect))
        rarest, fewest = None, isqrt(search.max_results * runs)
        for condition in conditions:
            [(count,)] = await self.rows(search_sql.how_many(condition, fewest, self.dialect))
            if count < fewest:
                rarest, fewest = condition, count
        return rarest

    async def load_encoded(self, runs: RunRows) -> list[EncodedRun]:
        # all in one thread: several would pass Python's lock to one another for every row
        return await self._in(self._readers, lambda db: sqlite_json.load(lambda query: _rows(db, query), runs))

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with this thread's own connection. Raises Unavailable while the file is locked or away."""

        def run() -> T:
            return work(self._connection())

        try:
            return await asyncio.get_running_loop().run_in_executor(threads, run)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"SQLite can't be used now: {error}. Send the request again in a moment.") from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = _connect(self._path)
            self._connections.append(db)
        return db

    async def _flush(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        try:
            return await self._in(self._writer, lambda db: _apply(db, writes))
        except (sqlite3.Error, ValueError, OverflowError) as error:
            if len(writes) == 1:
                return [Malformed(f"SQLite refused it: {type(error).__name__}")]
            return [(await self._flush([write]))[0] for write in writes]


def _connect(path: str) -> sqlite3.Connection:
    # each in its own thread, and closed by the one that closes the store
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    db.execute("PRAGMA case_sensitive_like = ON")
    return db


def _execute(db: sqlite3.Connection, query: Query) -> sqlite3.Cursor:
    """A Query's ?1 is a name to Python's driver, which from 3.14 on takes no sequence for names."""
    return db.execute(query.text, {str(number): value for number, value in enumerate(query.values, 1)})


def _rows(db: sqlite3.Connection, query: Query) -> list[sqlite3.Row]:
    deadline = time.monotonic() + STATEMENT_SECONDS
    db.set_progress_handler(lambda: time.monotonic() > deadline, 1_000_000)
    try:
        return _execute(db, query).fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            raise TooSlow from error
        raise
    finally:
        db.set_progress_handler(None, 0)


def _columns(db: sqlite3.Connection) -> schema.Columns:
    return {
        table: {row["name"]: (row["type"].split("(")[0].upper(), row["pk"]) for row in rows}
        for table in schema.TABLES
        if (rows := db.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,)).fetchall())
    }


def _get_run(db: sqlite3.Connection, run_id: str) -> Run | None:
    row = db.execute(sql.GET_RUN, (run_id,)).fetchone()
    if row is None:
        return None
    metrics = db.execute(sql.GET_METRICS, (run_id,)).fetchall()
    params = db.execute(sql.GET_PARAMS, (run_id,)).fetchall()
    tags = db.execute(sql.GET_TAGS, (run_id,)).fetchall()
    columns = {
        **dict(row),
        "metric_keys": [m["key"] for m in metrics],
        "metric_values": [float("nan") if m["is_nan"] else m["value"] for m in metrics],
        "metric_timestamps": [m["timestamp"] for m in metrics],
        "metric_steps": [m["step"] for m in metrics],
        "param_keys": [p["key"] for p in params],
        "param_values": [p["value"] for p in params],
        "tag_keys": [t["key"] for t in tags],
        "tag_values": [t["value"] for t in tags],
    }
    return run_from_columns(columns, *inputs_and_outputs(db.execute(sql.GET_LINKED, (run_id, run_id))))


def _transact(db: sqlite3.Connection, queries: Sequence[Query]) -> list[list[sqlite3.Row]]:
    with _transaction(db):
        return [_execute(db, query).fetchall() for query in queries]


def _change(db: sqlite3.Connection, queries: Sequence[Query]) -> int:
    guard, *rest = queries
    with _transaction(db):
        found = _execute(db, guard).fetchall()
        if found:
            for query in rest:
                _execute(db, query)
    if not found:
        raise Declined("what is changed is not there, or not in that state")
    answer: int = found[0][0]
    return answer


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """What is in the block is on the disk, all of it, when this ends; nothing of it where it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _apply(db: sqlite3.Connection, writes: Sequence[Write]) -> Sequence[Outcome]:
    """Do a group in one transaction, which is on the disk when this returns."""
    with _transaction(db):
        outcomes: dict[int, Outcome] = {}
        for i, write in enumerate(writes):
            if isinstance(write, CreateRun):
                outcomes[i] = _create_run(db, write)
        logs = {i: write for i, write in enumerate(writes) if isinstance(write, LogBatch)}
        outcomes.update(zip(logs, _log(db, list(logs.values())), strict=True))
        for i, write in enumerate(writes):
            if isinstance(write, UpdateRun):
                outcomes[i] = _update_run(db, write)
            elif isinstance(write, DeleteTag):
                outcomes[i] = _delete_tag(db, write)
    return [outcomes[i] for i in range(len(writes))]


def _log(db: sqlite3.Connection, writes: Sequence[LogBatch]) -> Sequence[Outcome]:
    outcomes: list[Outcome] = [_refusal(db, write) for write in writes]
    good = [i for i, outcome in enumerate(outcomes) if outcome is None]
    plan = LogPlan([writes[i] for i in good])
    for index in plan.postponed:
        outcomes[good[index]] = Declined("another write of this moment gives the param another value")
    rows = [(r.key, r.value, r.timestamp, r.step, r.is_nan, run_id) for run_id, r in plan.metrics]
    db.executemany(sql.LOG_METRIC, rows)
    db.executemany(sql.SET_LATEST, (rows[index] for index in plan.latest.values()))
    db.executemany(sql.LOG_PARAM, _key_values(plan.params.items()))
    db.executemany(sql.SET_TAG, _key_values(plan.tags.items()))
    db.executemany(sql.SET_NAME, ((name, run_id) for run_id, name in plan.names.items()))
    return outcomes


def _key_values(items: Iterable[tuple[tuple[str, str], str]]) -> Iterable[tuple[str, str, str]]:
    return ((key, value, run_id) for (run_id, key), value in items)


def _refusal(db: sqlite3.Connection, write: LogBatch) -> Declined | None:
    """Why stock must answer; nobody else can write before this transaction ends."""
    if not _is_active(db, write.run_id):
        return Declined("the run is unknown or deleted")
    for key, value in write.params:
        row = db.execute(sql.GET_PARAM, (write.run_id, key)).fetchone()
        if row is not None and row["value"] != value:
            return Declined("it changes a param")
    return None


def _is_active(db: sqlite3.Connection, run_id: str) -> bool:
    row = db.execute(sql.GET_STAGE, (run_id,)).fetchone()
    return row is not None and row["lifecycle_stage"] == "active"


def _create_run(db: sqlite3.Connection, write: CreateRun) -> Outcome:
    row = db.execute(sql.GET_LOCATION, (write.experiment_id,)).fetchone()
    if row is None or not re.match(PLAIN_LOCATION, row["artifact_location"] or ""):
        return Declined("the experiment is unknown, deleted, or has an artifact location that stock must read")
    location = row["artifact_location"]
    artifact_uri = f"{location}{'' if location.endswith('/') else '/'}{write.run_id}/artifacts"
    db.execute(
        sql.CREATE_RUN,
        (write.run_id, write.name, write.user_id, write.start_time, artifact_uri, write.experiment_id),
    )
    db.executemany(sql.SET_TAG, ((key, value, write.run_id) for key, value in write.tags))
    return run_info(
        write.run_id, write.name, write.experiment_id, write.user_id, "RUNNING", write.start_time, None, "active",
        artifact_uri,
    )  # fmt: skip


def _update_run(db: sqlite3.Connection, write: UpdateRun) -> Outcome:
    row = db.execute(sql.UPDATE_RUN, (write.status, write.end_time, write.name, write.run_id, write.name)).fetchone()
    if row is None:
        return Declined("the run is unknown, deleted, or has no name")
    if write.name:
        db.execute(sql.SET_TAG, (RUN_NAME_TAG, write.name, write.run_id))
    return run_info(*row)


def _delete_tag(db: sqlite3.Connection, write: DeleteTag) -> Outcome:
    if _is_active(db, write.run_id) and db.execute(sql.DELETE_TAG, (write.run_id, write.key)).rowcount:
        return None
    return Declined("the run or its tag is not there")
