"""Traces without their spans, as stock's messages have them: TraceInfoV3 and, for older clients, TraceInfo.

The session, token usage and cost are columns, and metadata to clients; the name is a column, and a tag to them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Raw, Struct

from headrace.errors import Declined
from headrace.resources import proto_json
from headrace.resources.assessments.records import Assessment
from headrace.resources.traces.token_sums import COST_COLUMNS, TOKEN_COLUMNS

NAME = "mlflow.traceName"
SESSION, USAGE, COST = "mlflow.trace.session", "mlflow.trace.tokenUsage", "mlflow.trace.cost"
# metadata that are columns
PROMOTED = frozenset({SESSION, USAGE, COST})
STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")
V2_UNSPECIFIED = "TRACE_STATUS_UNSPECIFIED"
# mlflow/tracing/constant.py: what is shown of a key and a value
_SHOWN_KEY, _SHOWN_METADATA, _SHOWN_TAG = 250, 250, 4096


class TraceRow(Struct, gc=False):
    """A row of `trace_info`, as far as spans may change it."""

    request_id: str
    experiment_id: int
    timestamp_ms: int
    execution_time_ms: int | None
    status: str
    request_preview: str | None = None
    response_preview: str | None = None
    trace_name: str | None = None
    session_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation_input_tokens_above_1hr: int | None = None
    input_cost: float | None = None
    output_cost: float | None = None
    total_cost: float | None = None


class TraceInfo(TraceRow, gc=False):
    """The whole row, and what its trace has in other tables."""

    client_request_id: str | None = None
    tags: dict[str, str | None] = {}
    metadata: dict[str, str | None] = {}
    assessments: list[Assessment] = []


# the columns that are metadata to clients
_promoted = attrgetter("session_id", *TOKEN_COLUMNS, *COST_COLUMNS)
_NOTHING = _promoted(TraceInfo("", 0, 0, None, ""))
COLUMNS = ", ".join(TraceInfo.__struct_fields__[:-3])
WIDTH = len(TraceInfo.__struct_fields__) - 3


class TraceInfoV3(Struct, omit_defaults=True, gc=False):
    """A trace without its spans, as newer clients' message has it."""

    trace_id: str
    trace_location: Raw
    request_time: str
    state: str
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    execution_duration: str | None = None
    trace_metadata: dict[str, str] = {}
    assessments: list[Assessment] = []
    tags: dict[str, str] = {}


def v3(info: TraceInfo) -> TraceInfoV3:
    """TraceInfo.to_proto. Raises Declined for a row that stock can't render."""
    length = info.execution_time_ms
    return TraceInfoV3(
        info.request_id,
        _location(info.experiment_id),
        proto_json.timestamp(info.timestamp_ms),
        _state(info.status),
        info.client_request_id,
        info.request_preview,
        info.response_preview,
        None if length is None else proto_json.duration(length),
        _metadata(info),
        info.assessments,
        _tags(info),
    )


@lru_cache(100)
def _location(experiment_id: int) -> Raw:
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(experiment_id)}}
    return Raw(msgspec.json.encode(place))


def v2(info: TraceInfo) -> dict[str, Any]:
    """TraceInfoV2.to_proto. Raises as `v3`."""
    state = _state(info.status)
    said: dict[str, Any] = {
        "request_id": info.request_id,
        "experiment_id": str(info.experiment_id),
        "timestamp_ms": info.timestamp_ms,
        "execution_time_ms": info.execution_time_ms or 0,
        "status": V2_UNSPECIFIED if state == STATES[0] else state,
    }
    if metadata := _metadata(info):
        said["request_metadata"] = [{"key": key, "value": value} for key, value in metadata.items()]
    if tags := _tags(info):
        said["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
    return said


def _state(status: str) -> str:
    """Older clients could end a trace with a status that is none of a newer one's; stock fails at it."""
    if status in STATES:
        return status
    if status == V2_UNSPECIFIED:
        return STATES[0]
    raise Declined("a trace with a state of its own")


def _metadata(info: TraceInfo) -> dict[str, str]:
    given = info.metadata
    if not PROMOTED.isdisjoint(given):
        given = {key: value for key, value in given.items() if key not in PROMOTED}
    if (promoted := _promoted(info)) != _NOTHING:
        given = given | _of_columns(*promoted)
    return _shown(given, _SHOWN_METADATA) if given else {}


def _of_columns(session_id: str | None, *numbers: float | None) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    if session_id is not None:
        given[SESSION] = session_id
    tokens, costs = numbers[: len(TOKEN_COLUMNS)], numbers[len(TOKEN_COLUMNS) :]
    if usage := {key: count for key, count in zip(TOKEN_COLUMNS, tokens, strict=True) if count is not None}:
        given[USAGE] = json.dumps(usage)
    if cost := {key: value for key, value in zip(COST_COLUMNS, costs, strict=True) if value is not None}:
        given[COST] = json.dumps(cost)
    return given


def _tags(info: TraceInfo) -> dict[str, str]:
    given = info.tags
    if info.trace_name is not None:
        given = {**given, NAME: info.trace_name}
    elif NAME in given:
        given = {key: value for key, value in given.items() if key != NAME}
    return _shown(given, _SHOWN_TAG)


def _shown(given: dict[str, str | None], most: int) -> dict[str, str]:
    """What is shown of it: the same where nothing is cut, which is quicker than a second one."""
    for key, value in given.items():
        if value is None or len(value) > most or len(key) > _SHOWN_KEY:
            return {key[:_SHOWN_KEY]: "None" if value is None else value[:most] for key, value in given.items()}
    return given  # type: ignore[return-value]
