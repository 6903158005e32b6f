"""Endpoints of assessments: feedback, expectations and references to issues, of a trace or one of its spans."""

from __future__ import annotations

import json
import re
from operator import attrgetter
from typing import Any

from headrace.api.endpoint import Call, endpoint
from headrace.auth.objects import Trace
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.query import Query, Statement
from headrace.errors import InvalidParameter, NotFound, Unavailable
from headrace.resources import validation as valid
from headrace.resources.assessments import given, messages, records, sql
from headrace.resources.assessments.writes import CreateAssessment

PATH = "3.0/mlflow/traces/{trace_id}/assessments"
TRACE = Trace("trace_id")
TABLES = ("assessments", "trace_info", "experiments")
# all columns of records.COLUMNS but `valid`, the last but one
_OF_ROW = attrgetter(*(name for name in records.COLUMNS.split(", ") if name != "valid"))
# How often an update is tried while others change the same metadata.
_TRIES = 20


@endpoint("POST", PATH, Right.EDIT, TRACE, *TABLES, audited="often")
async def create_assessment(call: Call, message: messages.CreateAssessment) -> object:
    """SqlAlchemyStore.create_assessment."""
    row = given.row(valid.without_nul(message.trace_id, "trace_id"), message.assessment)
    await call.db.submit(CreateAssessment(row, call.workspace, not message.assessment.assessment_id))
    *columns, metadata = _OF_ROW(row)
    return {"assessment": records.assessment(*[*columns, True, metadata])}


@endpoint("GET", f"{PATH}/{{assessment_id}}", Right.READ, TRACE, *TABLES)
async def get_assessment(call: Call, message: messages.AssessmentOnly) -> object:
    """SqlAlchemyStore.get_assessment."""
    return {"assessment": records.assessment(*await _row(call, message))}


@endpoint("PATCH", f"{PATH}/{{assessment_id}}", Right.EDIT, TRACE, *TABLES)
async def update_assessment(call: Call, message: messages.UpdateAssessment) -> object:
    """SqlAlchemyStore.update_assessment: what the mask names; metadata are merged."""
    fields = _mask(message.update_mask)
    for _ in range(_TRIES):
        row = await _row(call, message)
        (changed,) = await call.db.transact([_update(call, message, fields, row)])
        if changed:
            return {"assessment": records.assessment(*changed[0])}
    raise Unavailable("Others change this assessment all the time. Try again.")


@endpoint("DELETE", f"{PATH}/{{assessment_id}}", Right.EDIT, TRACE, *TABLES)
async def delete_assessment(call: Call, message: messages.AssessmentOnly) -> None:
    """SqlAlchemyStore.delete_assessment; one that is not there is no error. What it overrode counts again."""
    place = _place(message)
    await call.db.transact([sql.RESTORE_OVERRIDDEN(**place), sql.DELETE(**place)])


async def _row(call: Call, message: messages.AssessmentOnly | messages.UpdateAssessment) -> Any:
    """A row of records.COLUMNS. Raises NotFound."""
    place = _place(message)
    rows = await call.db.rows(sql.GET(**place))
    if rows:
        return rows[0]
    trace_id, assessment_id = place.values()
    if await call.db.rows(sql.TRACE(trace_id=trace_id)):
        raise NotFound(f"Assessment with ID '{assessment_id}' not found for trace '{trace_id}'")
    raise NotFound(f"Trace with request_id '{trace_id}' not found")


def _place(message: messages.AssessmentOnly | messages.UpdateAssessment) -> dict[str, str]:
    return {
        "trace_id": valid.without_nul(message.trace_id, "trace_id"),
        "assessment_id": valid.without_nul(message.assessment_id, "assessment_id"),
    }


def _mask(text: str) -> set[str]:
    """FieldMask.FromJsonString; names that are none of an assessment's count as little as in stock."""
    return {re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name.strip()) for name in text.split(",")}


def _update(call: Call, message: messages.UpdateAssessment, fields: set[str], row: Any) -> Query:
    """Raises InvalidParameter."""
    kind, metadata = row["assessment_type"], row["assessment_metadata"]
    new = message.assessment
    columns: dict[str, Any] = {"last_updated_timestamp": now_ms()}
    if "valid" in fields:
        raise InvalidParameter("`valid` can't be updated: override the assessment with another one.")
    if "expectation" in fields and "feedback" in fields:
        raise InvalidParameter("Cannot specify both `expectation` and `feedback` parameters.")
    for field, words in (
        ("expectation", "Cannot update expectation value on a Feedback assessment."),
        ("feedback", "Cannot update feedback value on an Expectation assessment."),
    ):
        if field in fields:
            value = getattr(given, field)(getattr(new, field) or getattr(messages, field.capitalize())())
            if kind != field:
                raise InvalidParameter(words)
            columns |= value._asdict()
    if kind == "issue":
        raise InvalidParameter("A reference to an issue can't be updated. Delete it and make another one.")
    if "assessment_name" in fields:
        columns["name"] = given.name(new)
    if "rationale" in fields and kind == "feedback":
        columns["rationale"] = valid.without_nul(new.rationale, "assessment.rationale")
    if "metadata" in fields and new.metadata:
        columns["assessment_metadata"] = json.dumps(json.loads(metadata or "{}") | new.metadata)
    statement = Statement(call.db.dialect)
    assignments = ", ".join(f"{column} = {statement.bind(value)}" for column, value in columns.items())
    where = f"trace_id = {statement.bind(row['trace_id'])} AND assessment_id = {statement.bind(row['assessment_id'])}"
    if "assessment_metadata" in columns:  # nobody has changed them meanwhile
        where += f" AND coalesce(assessment_metadata, '') = {statement.text(metadata or '')}"
    text = f"UPDATE assessments SET {assignments} WHERE {where} RETURNING {records.COLUMNS}"  # noqa: S608
    return statement.query(text)
