"""What every log_model sends, as values: `Database.submit` does them together with others of the moment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.db.database import Write
from headrace.errors import Declined
from headrace.resources.logged_models import sql
from headrace.resources.runs.records import PLAIN_LOCATION

if TYPE_CHECKING:
    import sqlite3

    from headrace.db.postgres import Session

Pairs = tuple[tuple[str, str], ...]


class CreateModel(Write, frozen=True, gc=False):
    """A new model in an active experiment, pending; params and tags with distinct keys. Answered by where its
    artifacts go.

    Declined, and nothing left behind, where the experiment is unknown or deleted, or its location not plain.
    """

    rank: ClassVar[int] = 0
    one_statement: ClassVar[bool] = True

    model_id: str
    experiment_id: int
    workspace: str
    name: str
    model_type: str
    source_run_id: str
    now: int
    params: Pairs
    tags: Pairs

    def weight(self) -> int:
        return 1 + len(self.params) + len(self.tags)

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[CreateModel]) -> Sequence[str | Declined]:
        rows = await session.fetch(
            sql.CREATE_POSTGRES,
            [write.model_id for write in writes],
            [write.experiment_id for write in writes],
            [write.workspace for write in writes],
            [write.name for write in writes],
            [write.model_type for write in writes],
            [write.source_run_id for write in writes],
            [write.now for write in writes],
            *_columns([(write.model_id, *pair) for write in writes for pair in write.params]),
            *_columns([(write.model_id, *pair) for write in writes for pair in write.tags]),
            PLAIN_LOCATION,
        )
        locations = {row[0]: row[1] for row in rows}
        return [locations.get(write.model_id) or _no_place() for write in writes]

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[CreateModel]) -> Sequence[str | Declined]:
        return [_create(connection, write) for write in writes]


class FinalizeModel(Write, frozen=True, gc=False):
    """A model's new status. Answered by its row (sql.SELECT; SQLite: None); declined where it is unknown."""

    rank: ClassVar[int] = 2
    one_statement: ClassVar[bool] = True

    model_id: str
    status: int
    now: int

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[FinalizeModel]) -> Sequence[Any]:
        last = {write.model_id: write for write in writes}
        rows = await session.fetch(
            sql.FINALIZE_POSTGRES,
            list(last),
            [write.status for write in last.values()],
            [write.now for write in last.values()],
        )
        found = {row[0]: row for row in rows}
        return [found.get(write.model_id) or _no_model() for write in writes]

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[FinalizeModel]) -> Sequence[Declined | None]:
        return [
            None
            if connection.execute(sql.FINALIZE_SQLITE, (write.status, write.now, write.model_id)).rowcount
            else _no_model()
            for write in writes
        ]


def _columns(rows: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    return [[row[column] for row in rows] for column in range(3)]


def _no_place() -> Declined:
    return Declined("the experiment is unknown, deleted, or has an artifact location that stock must read")


def _no_model() -> Declined:
    return Declined("the logged model is unknown")


def _create(db: sqlite3.Connection, write: CreateModel) -> str | Declined:
    row = db.execute(sql.LOCATION_OF_EXPERIMENT_SQLITE, (write.experiment_id, write.workspace)).fetchone()
    if row is None or not re.match(PLAIN_LOCATION, row[0] or ""):
        return _no_place()
    location = f"{row[0]}{'' if row[0].endswith('/') else '/'}models/{write.model_id}/artifacts"
    its = (write.model_id, write.experiment_id)
    db.execute(
        sql.CREATE_SQLITE,
        (*its, write.name, location, write.now, write.now, write.model_type, write.source_run_id),
    )
    db.executemany(sql.PARAM_SQLITE, ((*its, *pair) for pair in write.params))
    db.executemany(sql.TAG_SQLITE, ((*its, *pair) for pair in write.tags))
    return location
