"""What a worker does beside its requests, from its start to its end: it connects to its database, and sweeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine

from headrace.artifacts.locations import Locations
from headrace.db.database import Database
from headrace.errors import Unavailable
from headrace.events import background as deliveries
from headrace.events.notes import Events
from headrace.gc import background as gc
from headrace.quotas import Quotas
from headrace.resources.traces import retention
from headrace.settings import Settings

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0


class Background:
    """The tasks of a worker. `leave_to_stock` is told which tables are not as Headrace's SQL expects them."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        events: Events,
        quotas: Quotas | None,
        leave_to_stock: Callable[[Collection[str]], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._events = events
        self._quotas = quotas
        self._leave_to_stock = leave_to_stock
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect to the database, and begin what goes on beside the requests; where it is away, as soon as it is
        there. Raises HeadraceError for a database that can't be served."""
        try:
            await self._connect()
        except Unavailable as error:
            logger.warning("%s Trying again every %g s.", error, RECONNECT_SECONDS)
            self._begin(self._keep_connecting())

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _keep_connecting(self) -> None:
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            try:
                await self._connect()
            except Unavailable:
                continue
            logger.info("the database is back")
            return

    async def _connect(self) -> None:
        """Start the database, and leave to stock whatever works on tables that are not as they were."""
        await self._database.start()
        changed = self._database.changed_tables
        for table, difference in changed.items():
            logger.warning("table %s is not as Headrace knows it (%s): stock answers what needs it", table, difference)
        self._leave_to_stock(changed.keys())
        await self._events.begin(self._database)
        self._begin(self._events.keep())
        if self._quotas is not None:
            self._begin(self._quotas.keep())
        if self._settings.builds_indexes:  # one worker does
            self._sweep(frozenset(changed))

    def _sweep(self, changed: frozenset[str]) -> None:
        database, settings = self._database, self._settings
        self._begin(deliveries.keep(database, settings, self._events))
        if self._quotas is not None:
            self._begin(self._quotas.keep_counting())
        if settings.trace_retention and changed.isdisjoint(retention.TABLES):
            self._begin(retention.keep(database, settings.trace_retention))
        if settings.gc_after and changed.isdisjoint(gc.TABLES):
            self._begin(gc.keep(database, Locations(settings), settings.gc_after))
