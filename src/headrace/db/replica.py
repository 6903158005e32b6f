"""A read replica: a standby of PostgreSQL's own replication, which answers searches and histories.

Whoever has written reads it back, wherever that was: a request first asks the primary how far its log (WAL) is on the
disk, and the connection to the replica that answers it must have replayed as much. One that is behind, away, of another
cluster or no standby any more answers nothing: the primary does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.database_url import PostgresURL
from headrace.db import connections
from headrace.db.connection_errors import explain
from headrace.db.connections import READING, Connector
from headrace.db.database import Database, Load, Write
from headrace.db.group_commit import Group
from headrace.db.pool import Pool
from headrace.db.query import Dialect, Query, Runnable

if TYPE_CHECKING:
    from headrace.db.postgres import PostgresDatabase

logger = logging.getLogger(__name__)

# A request waits so long for a replica that is behind; the next ones don't wait, until it is as far as this one asked.
BEHIND_SECONDS = 0.2
LOOK_SECONDS = 1.0  # between two looks at the replica
ANSWER_SECONDS = 2.0  # of the replica, to a question that takes no time

POSITION = Query("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint", [])
_SYSTEM = "SELECT system_identifier FROM pg_control_system()"
_STATE = f"SELECT ({_SYSTEM}), {connections.REPLAYED}"


class Replica:
    """The connections to it, and whether it can be used now."""

    def __init__(self, url: PostgresURL, primary: PostgresDatabase, most: int) -> None:
        # a replica takes no writes, whatever the primary's variables ask for
        self._url = msgspec.structs.replace(url, parameters=url.parameters | {"target_session_attrs": "any"})
        self._primary = primary
        self._connector = Connector(self._url, READING)
        self._pool = Pool(self._connector.connect, most)
        self._watching: asyncio.Task[None] | None = None
        self._system = 0  # the primary's cluster
        self._problem: str | None = ""  # None while it can be used
        self._missed = 0  # a position that it had not reached in time

    async def start(self) -> None:
        """Begin to look at it; a replica that is away keeps nobody from starting."""
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Disconnect."""
        if self._watching is not None:
            self._watching.cancel()
        await self._pool.close()

    async def reads(self) -> Database:
        """Where a request that begins now reads."""
        if self._problem is not None or self._missed:
            return self._primary
        [(position,)] = await self._primary.rows(POSITION)
        return ReplicaReads(self, self._primary, position)

    async def rows(self, statement: Runnable, position: int) -> Sequence[Any] | None:
        """Those of the replica, which has replayed the log up to `position`; None where the primary is to be asked.

        Raises Declined and TooSlow, as Database.rows.
        """
        from headrace.db.postgres import Again, fetch, translate
        from headrace.errors import Unavailable

        if self._problem is not None or position <= self._missed:
            return None
        connection = None
        try:
            async with self._pool.use(ANSWER_SECONDS) as connection:
                if await connection.has_replayed(position, BEHIND_SECONDS, ANSWER_SECONDS):
                    return await fetch(connection, statement)
        except Exception as error:
            if connection is None and isinstance(error, TimeoutError):  # all are busy, or _look finds out
                return None
            meaning = translate(error)
            if not isinstance(meaning, Unavailable):
                raise meaning from error
            if not isinstance(meaning, Again):  # else it was in the way of what is replayed
                self._set_problem(str(explain(error, self._url)))
            return None
        self._missed = max(self._missed, position)
        return None

    async def _watch(self) -> None:
        while True:
            self._set_problem(await self._look())
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> str | None:
        """What is wrong with it, or None."""
        try:
            if not self._system:
                [(self._system,)] = await self._primary.rows(Query(_SYSTEM, []))
            async with self._pool.use(ANSWER_SECONDS) as connection:
                system, replayed = await connection.fetchrow(_STATE, timeout=ANSWER_SECONDS)
        except Exception as error:
            return str(explain(error, self._url))
        if system != self._system:
            return f"{self._url.shown} is of another cluster than --backend-store-uri"
        if replayed is None:
            return f"{self._url.shown} is no standby that says how far it is"
        if replayed >= self._missed:
            self._missed = 0
        return None

    def _set_problem(self, problem: str | None) -> None:
        if (problem is None) != (self._problem is None) or self._problem == "":
            if problem is None:
                logger.info("a read replica answers searches and histories: %s", self._url.shown)
            else:
                logger.warning("the primary answers searches and histories: %s", problem)
        self._problem = problem
        if problem is not None:  # what is true of a connection is true of the others
            self._connector.give_up()


class ReplicaReads(Database):
    """What one request reads from; all else is the primary's."""

    dialect = Dialect.POSTGRESQL

    def __init__(self, replica: Replica, primary: PostgresDatabase, position: int) -> None:
        self._replica, self._primary, self._position = replica, primary, position

    async def rows(self, statement: Runnable) -> Sequence[Any]:
        rows = await self._replica.rows(statement, self._position)
        return await self._primary.rows(statement) if rows is None else rows

    async def rows_of(self, *statements: Runnable) -> list[Sequence[Any]]:
        return list(await asyncio.gather(*map(self.rows, statements)))

    def load(self) -> Load:
        return self._primary.load()

    def observe_groups(self, callback: Callable[[Group], None]) -> None:
        self._primary.observe_groups(callback)

    @property
    def changed_tables(self) -> dict[str, str]:
        return self._primary.changed_tables

    async def connect(self) -> None:
        await self._primary.connect()

    async def start(self) -> None:
        await self._primary.start()

    async def close(self) -> None:
        await self._primary.close()

    async def transact(self, statements: Sequence[Runnable]) -> list[Sequence[Any]]:
        return await self._primary.transact(statements)

    async def change(self, guard: Runnable, *rest: Runnable) -> Sequence[Any]:
        return await self._primary.change(guard, *rest)

    async def submit(self, write: Write) -> Any:
        return await self._primary.submit(write)
