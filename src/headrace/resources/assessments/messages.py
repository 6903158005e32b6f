"""The messages of assessments, as mlflow/protos/assessments.proto and service.proto name them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from headrace.api.message import Message

# in the order of protobuf's numbers, from 0
SOURCE_TYPES = ("SOURCE_TYPE_UNSPECIFIED", "HUMAN", "LLM_JUDGE", "CODE")


class Source(Struct, forbid_unknown_fields=True, gc=False):
    """`AssessmentSource`. `source_type`: one of SOURCE_TYPES, or its number (given.py looks)."""

    source_type: Any = "SOURCE_TYPE_UNSPECIFIED"
    source_id: str = ""


class AssessmentError(Struct, forbid_unknown_fields=True, gc=False):
    """`AssessmentError`."""

    error_code: str = ""
    error_message: str = ""
    stack_trace: str = ""


class Feedback(Struct, forbid_unknown_fields=True):
    """`Feedback`."""

    value: Any = None
    error: AssessmentError | None = None


class SerializedValue(Struct, forbid_unknown_fields=True, gc=False):
    """`Expectation.SerializedValue`."""

    serialization_format: str = ""
    value: str = ""


class Expectation(Struct, forbid_unknown_fields=True):
    """`Expectation`."""

    value: Any = None
    serialized_value: SerializedValue | None = None


class IssueReference(Struct, forbid_unknown_fields=True, gc=False):
    """`IssueReference`."""

    issue_name: str = ""


class Assessment(Struct, forbid_unknown_fields=True):
    """`Assessment`. `error` is what older clients had instead of the feedback's; stock does not look at it."""

    assessment_id: str = ""
    assessment_name: str = ""
    trace_id: str = ""
    span_id: str = ""
    source: Source | None = None
    create_time: str | None = None
    last_update_time: str | None = None
    feedback: Feedback | None = None
    expectation: Expectation | None = None
    issue: IssueReference | None = None
    rationale: str = ""
    error: AssessmentError | None = None
    metadata: dict[str, str] = {}
    overrides: str = ""
    valid: bool = True


class CreateAssessment(Message):
    """`CreateAssessment`."""

    assessment: Assessment
    trace_id: str = ""


class AssessmentOnly(Message):
    """`GetAssessmentRequest`, `DeleteAssessment`."""

    trace_id: str = ""
    assessment_id: str = ""


class UpdateAssessment(Message):
    """`UpdateAssessment`. The mask: names of fields, in camel case, with commas between them."""

    assessment: Assessment
    update_mask: str
    trace_id: str = ""
    assessment_id: str = ""
