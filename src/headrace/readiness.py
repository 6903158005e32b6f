"""`/ready`: whether this worker can take requests now. `/health` says only that it runs.

A load balancer sends requests to who is ready; who restarts what hangs asks /health. A database that is away makes no
worker better by a restart, so the two must not be one.
"""

from __future__ import annotations

import asyncio
import time

from headrace.db.database import Database, TableChanged
from headrace.db.query import Sql
from headrace.errors import HeadraceError, Unavailable

DATABASE_SECONDS = 2.0  # the database's longest answer; balancers wait 5 s and more for ours
_KEPT_SECONDS = 0.5  # for which an answer is given again: anybody may ask, and as often as they like
_ASK = Sql("SELECT version_num FROM alembic_version")


async def check_tables(database: Database) -> None:
    """Raises Unavailable unless MLflow's tables are in the database, as they were at the start."""
    try:
        if await database.rows(_ASK()):
            return
    except TableChanged:
        pass
    raise Unavailable(
        "MLflow's tables are not in the database: it is being restored, or another one is in its place. Send the "
        "request again in a moment."
    )


class Readiness:
    """`leaving`: the worker was told to stop, and is about to take no more connections."""

    def __init__(self) -> None:
        self.leaving = False
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")

    async def check(self, database: Database | None) -> None:
        """Return when requests can be answered. Raises Unavailable with the reason."""
        if self.leaving:
            raise Unavailable("This server is stopping. Another one takes the requests.")
        if database is None:  # stock alone has it
            return
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked_at > _KEPT_SECONDS):
            self._asking = asyncio.create_task(self._ask(database))
        await asyncio.shield(self._asking)

    async def _ask(self, database: Database) -> None:
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                await check_tables(database)
        except TimeoutError:
            raise Unavailable(f"The database has not answered within {DATABASE_SECONDS:g} s.") from None
        except Unavailable:
            raise
        except HeadraceError as error:
            raise Unavailable(f"The database answers, but not as it should: {error}") from None
        finally:
            self._asked_at = time.monotonic()
