"""The limit of ingestion: the rows that a trace is stored as, inserted by the same driver without a server.

Each of some connections inserts a trace after the other, each in a transaction of its own, a table at a time.
"""

from __future__ import annotations

import asyncio
import os
import time

import asyncpg

from bench.databases import Database, run

# what a trace is stored as, and the column that has its id
TABLES = {"trace_info": "request_id", "trace_tags": "request_id", "spans": "trace_id"}
# of the copies' ids
PREFIX = "raw-"
_COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = current_schema AND table_name = $1 AND is_generated = 'NEVER'
"""


class Copier:
    """Makes copies of a stored trace."""

    def __init__(self, trace_id: str) -> None:
        self._trace_id = trace_id
        self._tables: list[tuple[str, list[list[object]]]] = []

    async def read(self, connection: asyncpg.Connection) -> None:
        """Read the rows that there are of the trace."""
        for table, key in TABLES.items():
            columns = ", ".join(row[0] for row in await connection.fetch(_COLUMNS, table))
            rows = await connection.fetch(f"SELECT {columns} FROM {table} WHERE {key} = $1", self._trace_id)
            values = ", ".join(f"${number}" for number in range(1, len(rows[0]) + 1))
            insert = f"INSERT INTO {table} ({columns}) VALUES ({values})"
            self._tables.append((insert, [list(row) for row in rows]))

    async def write(self, connection: asyncpg.Connection) -> None:
        """Insert them under another id."""
        trace_id = f"{PREFIX}{os.urandom(16).hex()}"
        async with connection.transaction():
            for insert, rows in self._tables:
                copies = [[trace_id if value == self._trace_id else value for value in row] for row in rows]
                await connection.executemany(insert, copies)


def rate(database: Database, trace_id: str, connections: int, seconds: float) -> float:
    """Traces a second."""
    return run(_rate(database.uri, trace_id, connections, seconds))


async def _rate(uri: str, trace_id: str, connections: int, seconds: float) -> float:
    opened = [await asyncpg.connect(uri) for _ in range(connections)]
    copier = Copier(trace_id)
    await copier.read(opened[0])
    began = time.perf_counter()

    async def work(connection: asyncpg.Connection) -> int:
        done = 0
        while time.perf_counter() - began < seconds:
            await copier.write(connection)
            done += 1
        return done

    done = sum(await asyncio.gather(*map(work, opened)))
    taken = time.perf_counter() - began
    for connection in opened:
        await connection.close()
    return done / taken
