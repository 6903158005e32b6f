"""The Store on PostgreSQL. The only importer of asyncpg.

Reads take a connection from a pool; writes go through one connection of their own, a group at a time. A group that
only logs is one statement, and so one round trip and one commit. Everything in it may be done twice without harm:
after a deadlock or a lost connection the group is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Any

import asyncpg

from headrace.db import change_sql, postgres_indexes, postgres_json, schema
from headrace.db import postgres_sql as sql
from headrace.db.base import Change, CreateRun, DeleteTag, LogBatch, Outcome, UpdateRun, Write
from headrace.db.group_commit import GroupCommit
from headrace.db.plan import RUN_NAME_TAG, LogPlan
from headrace.db.reads import STATEMENT_SECONDS, Reads, TooSlow
from headrace.db.records import inputs_and_outputs, run_from_columns, run_info, write_size
from headrace.db.run_rows import RunRows
from headrace.db.search_sql import Dialect, Query
from headrace.entities import EncodedRun, Run, RunInfo
from headrace.errors import Declined, Malformed, Unavailable

logger = logging.getLogger(__name__)

READERS = 8
GROUP_ROWS = 2000
# After a group with a metric that was there, so many groups are inserted with a look for such metrics.
REPEATS_AHEAD = 100
# A foreign transaction that sits on a row must not stop everybody's logging for ever.
LOCK_TIMEOUT_SECONDS = 10
# How long a group waits for a database that went away before its callers are told to come back.
RECONNECT_SECONDS = 10.0

_LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # "another operation is in progress": the server's last word came in between
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)
_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class PostgresStore(Reads):
    """See base.Store. `dsn` is a postgresql:// URL without a driver name; libpq's query parameters work."""

    dialect = Dialect.POSTGRESQL

    def __init__(self, dsn: str, *, queue_limit: int, artifact_root: str = "") -> None:
        self._artifact_root = artifact_root
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None
        self._writer: asyncpg.Connection | None = None
        self._commits: GroupCommit[Write, RunInfo | None] = GroupCommit(
            self._flush, limit=queue_limit, group_size=GROUP_ROWS, size=write_size
        )
        self._changed: dict[str, str] = {}
        self._repeats = 0  # groups to come that may hold metrics which are there already
        self._indexing: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._pool = await asyncpg.create_pool(
            self._dsn, min_size=0, max_size=READERS, reset=_keep_session, server_settings=_READING
        )

    async def start(self) -> None:
        try:
            if self._pool is None:  # else a start that failed has made it
                await self.connect()
            self._changed = schema.differences(await self._columns(), schema.POSTGRES_TYPES)
            self._indexing = asyncio.create_task(postgres_indexes.build(self._dsn))
        except (*_LOST, asyncpg.PostgresError) as error:
            raise Unavailable(f"PostgreSQL can't be reached: {error}") from error

    async def close(self) -> None:
        if self._indexing is not None:
            self._indexing.cancel()
        await self._commits.close()
        if self._writer is not None:
            await self._writer.close()
        if self._pool is not None:
            await self._pool.close()

    @property
    def changed_tables(self) -> dict[str, str]:
        return self._changed

    async def write(self, write: Write) -> RunInfo | None:
        return await self._commits.submit(write)

    async def get_run(self, run_id: str) -> Run | None:
        row = await self._fetchrow(sql.GET_RUN, run_id)
        if row is None:
            return None
        linked = await self._fetch(sql.GET_LINKED, run_id) if row["linked"] else []
        return run_from_columns(row, *inputs_and_outputs(linked))

    async def rows(self, query: Query) -> list[Any]:
        try:
            return await self._fetch(query.text, *query.values, replanned=query.replanned)
        except asyncpg.QueryCanceledError as error:
            raise TooSlow from error
        except (asyncpg.PostgresError, asyncpg.DataError) as error:
            raise Declined(f"PostgreSQL refused it: {error}") from error

    async def load_encoded(self, runs: RunRows) -> list[EncodedRun]:
        return await postgres_json.load(self, runs)

    async def change(self, change: Change) -> int:
        guard, *rest = change_sql.statements(change, self.dialect, self._artifact_root)
        if self._pool is None:
            raise Unavailable("PostgreSQL is not connected yet. Send the request again in a moment.")
        try:
            async with self._pool.acquire(timeout=RECONNECT_SECONDS) as connection, connection.transaction():
                answer: int | None = await connection.fetchval(guard.text, *guard.values)
                if answer is None:
                    raise Declined("what is changed is not there, or not in that state")
                for query in rest:
                    await connection.execute(query.text, *query.values)
                return answer
        except (*_LOST, *_AGAIN, TimeoutError, asyncpg.LockNotAvailableError) as error:
            raise Unavailable("PostgreSQL can't do it now. Send the request again in a moment.") from error
        except (asyncpg.PostgresError, asyncpg.DataError) as error:
            raise Declined(f"PostgreSQL refused it: {error}") from error

    async def transact(self, queries: Sequence[Query]) -> list[list[Any]]:
        if self._pool is None:
            raise Unavailable("PostgreSQL is not connected yet. Send the request again in a moment.")
        try:
            async with self._pool.acquire(timeout=RECONNECT_SECONDS) as connection, connection.transaction():
                return [await connection.fetch(query.text, *query.values) for query in queries]
        except (*_LOST, *_AGAIN, TimeoutError, asyncpg.LockNotAvailableError) as error:
            raise Unavailable("PostgreSQL can't do it now. Send the request again in a moment.") from error
        except (asyncpg.PostgresError, asyncpg.DataError) as error:
            raise Declined(f"PostgreSQL refused it: {error}") from error

    async def _columns(self) -> schema.Columns:
        columns: schema.Columns = {}
        for row in await self._fetch(sql.COLUMNS, list(schema.TABLES)):
            columns.setdefault(row["table_name"], {})[row["column_name"]] = (
                row["data_type"],
                row["key_position"],
            )
        return columns

    async def _fetch(self, query: str, *args: Any, replanned: bool = False) -> list[Any]:
        rows: list[Any] = await self._read(_fetch_replanned if replanned else asyncpg.Connection.fetch, query, *args)
        return rows

    async def _fetchrow(self, query: str, *args: Any) -> Any:
        return await self._read(asyncpg.Connection.fetchrow, query, *args)

    async def _read(self, method: Callable[..., Awaitable[Any]], query: str, *args: Any) -> Any:
        """Run a query on a pooled connection; once more where the connection turned out to be dead."""
        if self._pool is None:
            raise Unavailable("PostgreSQL is not connected yet. Send the request again in a moment.")
        for last in (False, True):
            try:
                async with self._pool.acquire(timeout=RECONNECT_SECONDS) as connection:
                    return await method(connection, query, *args)
            except (*_LOST, TimeoutError) as error:
                if last:
                    raise Unavailable("PostgreSQL is away. Send the request again in a moment.") from error
        raise AssertionError("unreachable")

    # Writing

    async def _flush(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        deadline = time.monotonic() + RECONNECT_SECONDS
        pause = 0.05
        again = False
        while True:
            try:
                return await self._apply(await self._writing(), writes, again)
            except _AGAIN:
                logger.info("deadlock or serialization failure: the group of %d writes is sent again", len(writes))
            except (*_LOST, TimeoutError) as error:
                self._drop_writer()
                if time.monotonic() + pause > deadline:
                    raise Unavailable("PostgreSQL is away. Send the request again in a moment.") from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
            except (asyncpg.PostgresError, asyncpg.DataError, ValueError) as error:
                return await self._one_by_one(writes, error)
            again = True

    async def _one_by_one(self, writes: Sequence[Write], error: Exception) -> Sequence[Outcome]:
        """The database refused a group: let only the write at fault pay for it."""
        if len(writes) == 1:
            if isinstance(error, asyncpg.LockNotAvailableError):
                return [Unavailable("Another transaction holds the run's rows. Send the request again in a moment.")]
            return [Malformed(f"PostgreSQL refused it: {type(error).__name__}")]
        logger.info("PostgreSQL refused a group (%s): its %d writes go one by one", error, len(writes))
        return [(await self._flush([write]))[0] for write in writes]

    async def _writing(self) -> asyncpg.Connection:
        if self._writer is None or self._writer.is_closed():
            self._writer = await asyncpg.connect(self._dsn, server_settings=_WRITING, timeout=RECONNECT_SECONDS)
        return self._writer

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.terminate()
            self._writer = None

    async def _apply(self, connection: asyncpg.Connection, writes: Sequence[Write], again: bool) -> Sequence[Outcome]:
        """Do a group; `again` says that it may have been committed already."""
        logs = [write for write in writes if isinstance(write, LogBatch)]
        if len(logs) == len(writes):
            return await self._log(connection, logs)
        creates = [write for write in writes if isinstance(write, CreateRun)]
        if len(creates) == len(writes):
            return await self._create_runs(connection, creates)
        outcomes: dict[int, Outcome] = {}
        async with connection.transaction():
            if creates:
                indexes = [i for i, write in enumerate(writes) if isinstance(write, CreateRun)]
                outcomes.update(zip(indexes, await self._create_runs(connection, creates), strict=True))
            if logs:
                indexes = [i for i, write in enumerate(writes) if isinstance(write, LogBatch)]
                outcomes.update(zip(indexes, await self._log(connection, logs), strict=True))
            for i, write in sorted(enumerate(writes), key=lambda item: item[1].run_id):
                if isinstance(write, UpdateRun):
                    outcomes[i] = await self._update_run(connection, write)
                elif isinstance(write, DeleteTag):
                    outcomes[i] = await self._delete_tag(connection, write, again)
        return [outcomes[i] for i in range(len(writes))]

    async def _log(self, connection: asyncpg.Connection, writes: Sequence[LogBatch]) -> Sequence[Outcome]:
        plan = LogPlan(writes)
        try:
            if len(writes) == len(plan.metrics) == 1 and not plan.params and not plan.tags:
                [(run_id, row)] = plan.metrics
                active = await connection.fetch(
                    sql.LOG_METRIC, run_id, row.key, sql.value(row), row.timestamp, row.step, row.is_nan
                )
            else:
                active = await self._log_plan(connection, plan)
        except asyncpg.NotNullViolationError:
            return await self._log_without_changed_params(connection, writes, plan)
        known = {row[0] for row in active}
        outcomes: list[Outcome] = [
            None if write.run_id in known else Declined("the run is unknown or deleted") for write in writes
        ]
        for index in plan.postponed:
            outcomes[index] = Declined("another write of this moment gives the param another value")
        return outcomes

    async def _log_plan(self, connection: asyncpg.Connection, plan: LogPlan) -> list[Any]:
        """The ids of the plan's active runs, with the plan's rows inserted."""
        look_first = self._repeats > 0
        self._repeats = max(0, self._repeats - 1)
        statements = sql.log_statements(plan, look_first)
        batch = bool(plan.params or plan.tags)
        statement = statements.batch if batch else statements.metrics
        try:
            # a statement that fails may not end the transaction that it is a part of
            async with connection.transaction() if connection.is_in_transaction() else nullcontext():
                rows: list[Any] = await connection.fetch(statement, *sql.log_columns(plan, batch))
                return rows
        except asyncpg.UniqueViolationError:
            if look_first:
                raise
            self._repeats = REPEATS_AHEAD
            return await self._log_plan(connection, plan)

    async def _log_without_changed_params(
        self, connection: asyncpg.Connection, writes: Sequence[LogBatch], plan: LogPlan
    ) -> Sequence[Outcome]:
        """A batch statement refuses a group that changes a param; find the writes at fault and log the others."""
        rows = await connection.fetch(sql.CHANGED_PARAMS, *sql.split_keys(plan.params))
        changed = {(row[0], row[1]) for row in rows}
        outcomes: list[Outcome] = [Declined("it changes a param")] * len(writes)
        good = [
            i for i, write in enumerate(writes) if not any((write.run_id, key) in changed for key, _ in write.params)
        ]
        if len(good) == len(writes):
            raise asyncpg.SerializationError("a param changed between two statements")
        if good:
            done = await self._log(connection, [writes[i] for i in good])
            for i, outcome in zip(good, done, strict=True):
                outcomes[i] = outcome
        return outcomes

    async def _create_runs(self, connection: asyncpg.Connection, writes: Sequence[CreateRun]) -> Sequence[Outcome]:
        rows = await connection.fetch(sql.CREATE_RUNS, *sql.create_columns(writes))
        locations = {row[0]: row[1] for row in rows}
        return [
            run_info(
                write.run_id, write.name, write.experiment_id, write.user_id, "RUNNING", write.start_time, None,
                "active", locations[write.run_id],
            )
            if write.run_id in locations
            else Declined("the experiment is unknown, deleted, or has an artifact location that stock must read")
            for write in writes
        ]  # fmt: skip

    async def _update_run(self, connection: asyncpg.Connection, write: UpdateRun) -> Outcome:
        row = await connection.fetchrow(sql.UPDATE_RUN, write.run_id, write.status, write.end_time, write.name)
        if row is None:
            return Declined("the run is unknown, deleted, or has no name")
        if write.name:
            await connection.execute(sql.SET_TAG, write.run_id, RUN_NAME_TAG, write.name)
        return run_info(*row)

    async def _delete_tag(self, connection: asyncpg.Connection, write: DeleteTag, again: bool) -> Outcome:
        deleted = await connection.fetchval(sql.DELETE_TAG, write.run_id, write.key)
        return None if deleted or again else Declined("the run or its tag is not there")


# Sessions keep nothing that must be reset between uses; asyncpg's default would cost a round trip each time.
async def _keep_session(connection: asyncpg.Connection) -> None:
    pass


async def _fetch_replanned(connection: asyncpg.Connection, query: str, *args: Any) -> list[Any]:
    """As Connection.fetch, which keeps statements: from its sixth use on one has a plan for any parameters.

    For a search it can be a hundred times slower than the plan for these.
    """
    statement = await connection.prepare(query, name="")
    rows: list[Any] = await statement.fetch(*args)
    return rows


_SESSION = {
    "application_name": "headrace",
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
    # JIT costs more than it saves on statements of this size.
    "jit": "off",
}
# Writes find their rows by key. A plan that was made when a table was small would read all of it for each, and is kept
# until autovacuum has analyzed the table (runs/create after 30,000 runs: 780/s instead of 2,900/s).
_WRITING = _SESSION | {"enable_seqscan": "off"}
# PostgreSQL's own default, which postgres_json needs: floats as text in full.
_READING = _SESSION | {"statement_timeout": f"{STATEMENT_SECONDS}s", "extra_float_digits": "1"}
