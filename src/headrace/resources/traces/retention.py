"""--trace-retention: old traces are deleted, in portions, by one worker of each server.

Between two portions the worker rests for as long as the portion took, so that it is deleting for half of the time at
most; who ingests waits for a portion's transaction at the worst. Servers beside each other do no harm: a trace that
another has deleted is not found.
"""

from __future__ import annotations

import logging
import time

from headrace.db.database import Database
from headrace.db.query import Sql
from headrace.errors import Declined
from headrace.resources.traces.deletion import portions
from headrace.sweeps import again_and_again

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
TABLES = ("experiments", "trace_info", "review_queue_items")
WITH_OLD_TRACES = Sql("""
SELECT e.experiment_id FROM experiments e WHERE EXISTS (
  SELECT 1 FROM trace_info t WHERE t.experiment_id = e.experiment_id AND t.timestamp_ms <= :before)
ORDER BY e.experiment_id
""")


async def keep(db: Database, seconds: float) -> None:
    """Delete what is older than `seconds`, now and every SWEEP_SECONDS, until it is cancelled."""
    await again_and_again(
        lambda: sweep(db, int((time.time() - seconds) * 1000)),
        SWEEP_SECONDS,
        "traces beyond their retention were not all deleted",
    )


async def sweep(db: Database, before: int) -> int:
    """Delete all traces that began at `before` (ms since 1970) or earlier; how many there were. Says so in the log."""
    total = 0
    for (experiment_id,) in await db.rows(WITH_OLD_TRACES(before=before)):
        began, deleted = time.monotonic(), 0
        try:
            async for portion in portions(db, experiment_id, before):
                deleted += portion
        except Declined as reason:
            logger.warning("experiment %s: traces beyond their retention stay: %s", experiment_id, reason)
        if deleted:
            seconds = time.monotonic() - began
            logger.info(
                "experiment %s: %d traces beyond their retention deleted, %.1f s", experiment_id, deleted, seconds
            )
        total += deleted
    return total
