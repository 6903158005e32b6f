"""New assessments on their way into the database: `Database.submit` makes those of many requests in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.db.database import Write
from headrace.db.query import Dialect, Sql, columns
from headrace.errors import AlreadyExists, HeadraceError, NotFound
from headrace.resources.assessments import sql
from headrace.resources.assessments.given import AssessmentRow

if TYPE_CHECKING:
    import sqlite3

    from headrace.db.postgres import Session

# None, or the exception that its caller shall see
Outcome = HeadraceError | None
_COLUMNS = (*AssessmentRow.__struct_fields__, "workspace")
_OF_WRITE = attrgetter(*(f"row.{name}" for name in AssessmentRow.__struct_fields__), "workspace")


class CreateAssessment(Write, frozen=True, gc=False):
    """A new assessment of a trace in this workspace; it may override another one of that trace.

    `is_ours`: its id was made here, so that a row with it is of this request, which was sent again.
    """

    row: AssessmentRow
    workspace: str
    is_ours: bool

    rank = 20
    one_statement = True
    of_traces = True

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[CreateAssessment]) -> Sequence[Outcome]:
        query = sql.CREATE.query(columns(_COLUMNS, [_OF_WRITE(write) for write in writes]), Dialect.POSTGRESQL)
        made = {row[0] for row in await session.fetch(query.text, *query.values)}
        outcomes: list[Outcome] = []
        for write in writes:
            if write.row.assessment_id in made:
                made.discard(write.row.assessment_id)  # of two with the same id, the first
                outcomes.append(None)
                continue
            why = sql.WHY.query(_question(write), Dialect.POSTGRESQL)
            outcomes.append(_refusal(write, await session.fetch(why.text, *why.values), session.again))
        return outcomes

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[CreateAssessment]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for write in writes:
            values = {**msgspec.structs.asdict(write.row), "workspace": write.workspace}
            if connection.execute(sql.CREATE_ONE, values).fetchone():
                if write.row.overrides:
                    connection.execute(sql.OVERRIDE_ONE, values)
                outcomes.append(None)
                continue
            outcomes.append(_refusal(write, _run(connection, sql.WHY, _question(write)), again=False))
        return outcomes


def _run(connection: sqlite3.Connection, statement: Sql, values: dict[str, Any]) -> list[Any]:
    query = statement.query(values, Dialect.SQLITE)
    return connection.execute(query.text, query.numbered).fetchall()


def _question(write: CreateAssessment) -> dict[str, Any]:
    row = write.row
    return {
        "trace_id": row.trace_id,
        "assessment_id": row.assessment_id,
        "overrides": row.overrides or "",
        "workspace": write.workspace,
    }


def _refusal(write: CreateAssessment, found: Sequence[Sequence[Any]], again: bool) -> Outcome:
    """SqlAlchemyStore.create_assessment's words."""
    row = write.row
    if not found:
        return NotFound(f"Trace with ID '{row.trace_id}' not found.")
    _, overrides_one, is_there = found[0]
    if is_there and (write.is_ours or again):
        return None
    if row.overrides and not overrides_one:
        return NotFound(f"Assessment with ID '{row.overrides}' not found for trace '{row.trace_id}'")
    return AlreadyExists(f"Failed to create assessment for trace '{row.trace_id}' due to a constraint violation.")
