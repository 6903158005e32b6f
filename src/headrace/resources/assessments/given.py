"""Assessments as clients give them -> rows of `assessments`: Assessment.from_proto, SqlAssessments.from_mlflow_entity.

Whoever writes assessments (these endpoints, traces/start) makes the rows here.
"""

from __future__ import annotations

import json
import math
import uuid
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from headrace.api.message import invalid
from headrace.clock import now_ms
from headrace.errors import Declined, InvalidParameter
from headrace.resources import proto_json
from headrace.resources import validation as valid
from headrace.resources.assessments.messages import (
    SOURCE_TYPES,
    Assessment,
    AssessmentError,
    Expectation,
    Feedback,
    Source,
)

# The run that made an assessment, among its metadata.
SOURCE_RUN = "mlflow.assessment.sourceRunId"
# the columns'
MAX_ID, MAX_NAME, MAX_SOURCE_ID, MAX_RUN_ID = 50, 250, 250, 32


class AssessmentRow(Struct, frozen=True, gc=False):
    """A new row of `assessments`; its trace says the experiment and the time. `valid` is true of every new one."""

    assessment_id: str
    trace_id: str
    name: str
    assessment_type: str
    value: str
    error: str | None
    created_timestamp: int
    last_updated_timestamp: int
    source_type: str
    source_id: str | None
    run_id: str | None
    span_id: str | None
    rationale: str | None
    overrides: str | None
    assessment_metadata: str | None
    aggregate_value: float | None
    is_numeric_value: bool


class Value(NamedTuple):
    """The columns that an assessment's value comes to."""

    value: str
    error: str | None
    aggregate_value: float | None
    is_numeric_value: bool


def row(trace_id: str, given: Assessment, path: str = "assessment") -> AssessmentRow:
    """The row of a new assessment. Raises InvalidParameter. `path`: how an error names it."""
    kind, value = _value(given, path)
    source = given.source or Source()
    now = now_ms()
    is_expectation = kind == "expectation"  # has no rationale, and overrides nothing
    return AssessmentRow(
        valid.text(given.assessment_id, MAX_ID, f"{path}.assessment_id") or f"a-{uuid.uuid4().hex}",
        trace_id,
        name(given, path),
        kind,
        *value[:2],
        _time(given.create_time, f"{path}.create_time") or now,
        _time(given.last_update_time, f"{path}.last_update_time") or now,
        _source_type(source.source_type, f"{path}.source.source_type"),
        valid.text(source.source_id, MAX_SOURCE_ID, f"{path}.source.source_id") or None,
        valid.text(given.metadata.get(SOURCE_RUN, ""), MAX_RUN_ID, SOURCE_RUN)
        if SOURCE_RUN in given.metadata
        else None,
        valid.text(given.span_id, MAX_ID, f"{path}.span_id") or None,
        None if is_expectation else valid.without_nul(given.rationale, f"{path}.rationale") or None,
        None if kind != "feedback" else valid.text(given.overrides, MAX_ID, f"{path}.overrides") or None,
        json.dumps(given.metadata) if given.metadata else None,
        *value[2:],
    )


def name(given: Assessment, path: str = "assessment") -> str:
    """Raises InvalidParameter for one that the column can't hold."""
    return valid.text(given.assessment_name, MAX_NAME, f"{path}.assessment_name")


def feedback(given: Feedback, path: str = "assessment.feedback") -> Value:
    """FeedbackValue.from_proto. Raises InvalidParameter."""
    value = _number_is_double(given.value, f"{path}.value")
    return Value(json.dumps(value), _error(given.error), *aggregate(value))


def expectation(given: Expectation, path: str = "assessment.expectation") -> Value:
    """ExpectationValue.from_proto. Raises InvalidParameter."""
    serialized = given.serialized_value
    if serialized is None:
        value = _number_is_double(given.value, f"{path}.value")
    else:
        if serialized.serialization_format != "JSON_FORMAT":
            raise InvalidParameter(
                f"Unknown serialization format: {serialized.serialization_format}. Only JSON_FORMAT is supported."
            )
        path = f"{path}.serialized_value.value"
        try:
            value = json.loads(serialized.value)
        except (ValueError, RecursionError):
            raise invalid(path, serialized.value, "It is not JSON.") from None
        if isinstance(value, int | float) or (isinstance(value, str) and not value.isascii()):
            _number_is_double(value, path)
    if value is None:
        raise InvalidParameter("The `value` field must be specified.")
    return Value(json.dumps(value), None, *aggregate(value))


def aggregate(value: Any) -> tuple[float | None, bool]:
    """The number that charts take of a value, and whether it is one (trace_analytics.assessment_aggregate)."""
    if isinstance(value, bool):
        return float(value), False
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None, False
        return (number, True) if math.isfinite(number) else (None, False)
    if isinstance(value, str) and (word := value.strip().lower()) in ("yes", "no"):
        return float(word == "yes"), False
    return None, False


def _value(given: Assessment, path: str) -> tuple[str, Value]:
    kinds = [kind for kind in ("feedback", "expectation", "issue") if getattr(given, kind) is not None]
    if len(kinds) > 1:
        raise InvalidParameter(f"'{path}' has more than one of `feedback`, `expectation` and `issue`.")
    if given.feedback is not None:
        return "feedback", feedback(given.feedback, f"{path}.feedback")
    if given.expectation is not None:
        return "expectation", expectation(given.expectation, f"{path}.expectation")
    if given.issue is not None:
        return "issue", Value(json.dumps({"issue_name": given.issue.issue_name}), None, None, False)
    raise InvalidParameter("Unknown assessment type: None")


def _number_is_double(value: Any, path: str) -> Any:
    """What google.protobuf.Value makes of it. Raises InvalidParameter for what that can't hold."""
    try:
        value = proto_json.value(value)
        msgspec.json.encode(value)  # half of a surrogate pair
    except (Declined, UnicodeEncodeError) as reason:
        raise invalid(path, value, f"It is no value: {reason}.") from None
    return value


def _error(given: AssessmentError | None) -> str | None:
    if given is None:
        return None
    said = {
        "error_code": given.error_code,
        "error_message": given.error_message or None,
        "stack_trace": given.stack_trace or None,
    }
    return json.dumps(said)


def _time(given: str | None, path: str) -> int:
    """0 where there is none."""
    return 0 if given is None else proto_json.milliseconds_of_timestamp(given, path)


def _source_type(given: Any, path: str) -> str:
    if given in SOURCE_TYPES:
        return str(given)
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(SOURCE_TYPES):
        return SOURCE_TYPES[given]
    raise invalid(path, given, f"It must be one of {', '.join(map(repr, SOURCE_TYPES))}.")
