"""Assessments as stock's messages have them: rows of `assessments` -> JSON."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from headrace.errors import Declined
from headrace.resources import proto_json
from headrace.resources.assessments.messages import SOURCE_TYPES

COLUMNS = (
    "assessment_id, trace_id, name, assessment_type, value, error, created_timestamp, last_updated_timestamp, "
    "source_type, source_id, span_id, rationale, overrides, valid, assessment_metadata"
)
_MOST_OF_A_STACK_TRACE = 10_000
# characters of a value that is kept
_SHORT = 50
_CUT = "[Stack trace is truncated]\n...\n"


class Source(Struct, omit_defaults=True, gc=False):
    """Who has said it."""

    source_type: str
    source_id: str | None = None


class Feedback(Struct, omit_defaults=True, gc=False):
    """`value` is JSON of any kind, None among it."""

    value: Any
    error: dict[str, str] | None = None


class Assessment(Struct, omit_defaults=True, gc=False):
    """An assessment, as its message has it."""

    assessment_id: str
    assessment_name: str
    trace_id: str
    source: Source
    create_time: str
    last_update_time: str
    valid: bool
    span_id: str | None = None
    feedback: Feedback | None = None
    expectation: dict[str, Any] | None = None
    issue: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    rationale: str | None = None
    overrides: str | None = None


def assessment(
    assessment_id: str, trace_id: str, name: str, kind: str, value: str, error: str | None, created: int, updated: int,
    source_type: str, source_id: str | None, span_id: str | None, rationale: str | None, overrides: str | None,
    valid: bool | int, metadata: str | None,
) -> Assessment:  # fmt: skip
    """SqlAssessments.to_mlflow_entity, then Assessment.to_proto. Raises Declined for a row that stock can't render."""
    created_text = proto_json.timestamp(created)
    try:
        is_short = error is None and len(value) <= _SHORT
        feedback, expectation, issue = (_often if is_short else _given)(kind, value, error)
        pairs = json.loads(metadata) if metadata is not None else None
        shown = {_text(key): str(item) for key, item in pairs.items()} if pairs else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Declined("an assessment that can't be read") from None
    return Assessment(
        assessment_id,
        name,
        trace_id,
        _source(source_type, source_id),
        created_text,
        created_text if updated == created else proto_json.timestamp(updated),
        bool(valid),
        span_id,
        feedback,
        expectation,
        issue,
        shown,
        rationale,
        overrides or None,
    )


def _given(
    kind: str, value: str, error: str | None
) -> tuple[Feedback | None, dict[str, Any] | None, dict[str, str] | None]:
    """What was said, in the field of its kind: feedback, expectation, issue."""
    given = _loaded(value)
    if kind == "feedback":
        return _feedback(given, error), None, None
    if kind == "expectation":
        return None, _expectation(given), None
    if kind == "issue":
        return None, None, {"issue_name": _text(given["issue_name"])}
    raise Declined("an assessment of an unknown kind")


# of a page of assessments most say the same as others: true, false, a number
_often = lru_cache(500)(_given)


def _loaded(value: str) -> Any:
    """Raises ValueError."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeEncodeError):  # NaN, half of a surrogate pair: Python's reader takes more
        return json.loads(value)


@lru_cache(100)
def _source(source_type: str, source_id: str | None) -> Source:
    source_type = source_type.upper()
    if source_type == "AI_JUDGE":
        source_type = "LLM_JUDGE"
    if source_type not in SOURCE_TYPES:
        raise Declined("an assessment of an unknown source")
    return Source(source_type, source_id)


def _feedback(given: Any, error: str | None) -> Feedback:
    value = proto_json.value(given)
    if error is None:
        return Feedback(value)
    found = json.loads(error)
    said = {"error_code": _text(found["error_code"])}
    if message := found.get("error_message"):
        said["error_message"] = _text(message)
    if trace := found.get("stack_trace"):
        if len(_text(trace)) > _MOST_OF_A_STACK_TRACE:
            trace = _CUT + trace[len(_CUT) - _MOST_OF_A_STACK_TRACE :]
        said["stack_trace"] = trace
    return Feedback(value, said)


def _expectation(given: Any) -> dict[str, Any]:
    if given is None:
        raise Declined("an expectation of nothing")
    if isinstance(given, str | int | float):
        return {"value": proto_json.value(given)}
    return {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": json.dumps(given)}}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
