"""Records on their way into a dataset: read, merged and written in one transaction, while its row is locked."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.db.database import Write
from headrace.db.query import Bound, Dialect
from headrace.errors import HeadraceError
from headrace.resources.evaluation_datasets import sql
from headrace.resources.evaluation_datasets.entities import digest, unknown
from headrace.resources.evaluation_datasets.records import Given, Plan, schema

if TYPE_CHECKING:
    import sqlite3

    from headrace.db.postgres import Session

# (inserted, updated), or the exception that its caller shall see
Outcome = tuple[int, int] | HeadraceError
# What is run next, answered with its rows, up to the outcome.
Steps = Generator[Bound, Sequence[Any], Outcome]


class UpsertRecords(Write, frozen=True, gc=False):
    """The records of a request. Sent again, those that it made the first time still count as made."""

    workspace: str
    dataset_id: str
    records: tuple[Given, ...]
    now: int

    rank = 30

    def weight(self) -> int:
        return max(1, len(self.records))

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[UpsertRecords]) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {}
        # one order of locks
        for place in sorted(range(len(writes)), key=lambda place: writes[place].dataset_id):
            steps = _steps(writes[place])
            statement = next(steps)
            while True:
                query = statement.render(Dialect.POSTGRESQL)
                rows = await session.fetch(query.text, *query.values)
                try:
                    statement = steps.send(rows)
                except StopIteration as end:
                    outcomes[place] = end.value
                    break
        return [outcomes[place] for place in range(len(writes))]

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[UpsertRecords]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for write in writes:
            steps = _steps(write)
            statement = next(steps)
            while True:
                query = statement.render(Dialect.SQLITE)
                rows = connection.execute(query.text, query.numbered).fetchall()
                try:
                    statement = steps.send(rows)
                except StopIteration as end:
                    outcomes.append(end.value)
                    break
        return outcomes


def _steps(write: UpsertRecords) -> Steps:
    """SqlAlchemyStore.upsert_dataset_records."""
    place = {"workspace": write.workspace, "dataset_id": write.dataset_id}
    found = yield sql.LOCK(**place)
    if not found:
        return unknown(write.dataset_id)
    name, stored_schema = found[0]
    hashes = sorted({record.input_hash for record in write.records})
    plan = Plan(write.records, (yield sql.SAME_INPUTS(dataset_id=write.dataset_id, hashes=hashes)))
    if plan.new:
        yield sql.ADD_RECORDS(dataset_id=write.dataset_id, now=write.now, rows=_json(plan.new))
    if plan.changed:
        yield sql.CHANGE_RECORDS(now=write.now, rows=_json(plan.changed))
    users = [record.user for record in write.records if record.user is not None]
    yield sql.RECORDS_CHANGED(
        now=write.now,
        user=users[-1] if users else None,
        digest=digest(name, write.now),
        schema=schema(stored_schema, write.records),
        **place,
    )
    return plan.inserted, plan.updated


def _json(rows: Sequence[Any]) -> str:
    return msgspec.json.encode(rows).decode()
