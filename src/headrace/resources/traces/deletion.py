"""Traces are deleted in portions, each a short transaction: nobody who writes spans waits for long.

Stock deletes all that is meant in one. What is archived is left to stock, whose files go with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from headrace.db.database import Database
from headrace.errors import Declined
from headrace.resources.traces import change_sql as sql

# A portion of traces of ten spans takes PostgreSQL 40 ms.
AT_ONCE = 200
ALL = 2**62


async def delete(
    db: Database, experiment_id: int, *, ids: Sequence[str] = (), before: int | None = None, most: int | None = None
) -> int:
    """Delete traces by their ids, or the oldest until `before`; how many there were.

    Raises Declined, and then nothing was done, where stock has archived one of them.
    """
    if before is None:
        which = sql.SELECT_BY_ID(experiment_id=experiment_id, trace_ids=list(ids))
    else:
        which = sql.SELECT_BY_AGE(experiment_id=experiment_id, most=before, limit=ALL if most is None else most)
    selected = await db.rows(which)
    if any(archived for _, archived in selected):
        raise Declined("a trace that is archived")
    deleted = 0
    for begin in range(0, len(selected), AT_ONCE):
        deleted += await delete_these(db, [trace_id for trace_id, _ in selected[begin : begin + AT_ONCE]])
    return deleted


async def portions(db: Database, experiment_id: int, before: int) -> AsyncIterator[int]:
    """Delete all until `before`; how many went, portion by portion, with a rest after each for as long as it took.

    Raises Declined where stock has archived one of the next.
    """
    portion = AT_ONCE
    while portion:
        begin = time.monotonic()
        portion = await delete(db, experiment_id, before=before, most=AT_ONCE)
        yield portion
        await asyncio.sleep(time.monotonic() - begin)


async def delete_these(db: Database, trace_ids: Sequence[str]) -> int:
    """A portion, in one transaction."""
    ids = list(trace_ids)
    _, deleted, _ = await db.transact(
        [sql.LOCK(trace_ids=ids), sql.DELETE(trace_ids=ids), sql.DELETE_REVIEWS(trace_ids=ids)]
    )
    return len(deleted)
