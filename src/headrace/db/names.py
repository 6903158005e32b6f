"""What people call what is known by its id."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.db.database import Database
from headrace.db.query import Sql

_EXPERIMENTS = Sql("SELECT experiment_id, name FROM experiments WHERE experiment_id IN :ids")


async def names_of_experiments(db: Database, ids: Iterable[int | str]) -> dict[int, str]:
    """The name of each of them that there is; none has an id of more than 32 bits."""
    numbers = sorted({number for number in map(int, ids) if number < 1 << 31})
    return {row[0]: row[1] for row in await db.rows(_EXPERIMENTS(ids=numbers))} if numbers else {}
