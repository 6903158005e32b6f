"""Traces without their spans, as stock's messages have them: TraceInfoV3 and, for older clients, TraceInfo.

The session, token usage and cost are columns, and metadata to clients; the name is a column, and a tag to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from msgspec import Struct

from headrace.errors import Declined
from headrace.resources import proto_json
from headrace.resources.traces.token_sums import COST_COLUMNS, TOKEN_COLUMNS

NAME = "mlflow.traceName"
SESSION, USAGE, COST = "mlflow.trace.session", "mlflow.trace.tokenUsage", "mlflow.trace.cost"
# metadata that are columns
PROMOTED = frozenset({SESSION, USAGE, COST})
STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")
V2_UNSPECIFIED = "TRACE_STATUS_UNSPECIFIED"
# mlflow/tracing/constant.py: what is shown of a key and a value
_SHOWN_KEY, _SHOWN_METADATA, _SHOWN_TAG = 250, 250, 4096


class TraceInfo(Struct, gc=False):
    """A row of `trace_info`, and what its trace has in other tables."""

    request_id: str
    experiment_id: int
    timestamp_ms: int
    execution_time_ms: int | None
    status: str
    client_request_id: str | None = None
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
    tags: dict[str, str | None] = {}
    metadata: dict[str, str | None] = {}
    assessments: list[dict[str, Any]] = []


_tokens, _costs = attrgetter(*TOKEN_COLUMNS), attrgetter(*COST_COLUMNS)
COLUMNS = ", ".join(TraceInfo.__struct_fields__[:-3])
WIDTH = len(TraceInfo.__struct_fields__) - 3


def v3(info: TraceInfo) -> dict[str, Any]:
    """TraceInfo.to_proto. Raises Declined for a row that stock can't render."""
    said: dict[str, Any] = {"trace_id": info.request_id}
    if info.client_request_id is not None:
        said["client_request_id"] = info.client_request_id
    said["trace_location"] = {
        "type": "MLFLOW_EXPERIMENT",
        "mlflow_experiment": {"experiment_id": str(info.experiment_id)},
    }
    if info.request_preview is not None:
        said["request_preview"] = info.request_preview
    if info.response_preview is not None:
        said["response_preview"] = info.response_preview
    said["request_time"] = proto_json.timestamp(info.timestamp_ms)
    if info.execution_time_ms is not None:
        said["execution_duration"] = proto_json.duration(info.execution_time_ms)
    said["state"] = _state(info.status)
    if metadata := _metadata(info):
        said["trace_metadata"] = metadata
    if info.assessments:
        said["assessments"] = info.assessments
    if tags := _tags(info):
        said["tags"] = tags
    return said


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
    if status == V2_UNSPECIFIED:
        return STATES[0]
    if status not in STATES:
        raise Declined("a trace with a state of its own")
    return status


def _metadata(info: TraceInfo) -> dict[str, str]:
    given = {key: value for key, value in info.metadata.items() if key not in PROMOTED}
    if info.session_id is not None:
        given[SESSION] = info.session_id
    if usage := {key: count for key, count in zip(TOKEN_COLUMNS, _tokens(info), strict=True) if count is not None}:
        given[USAGE] = json.dumps(usage)
    if cost := {key: value for key, value in zip(COST_COLUMNS, _costs(info), strict=True) if value is not None}:
        given[COST] = json.dumps(cost)
    return _shown(given, _SHOWN_METADATA)


def _tags(info: TraceInfo) -> dict[str, str]:
    given = {key: value for key, value in info.tags.items() if key != NAME}
    if info.trace_name is not None:
        given[NAME] = info.trace_name
    return _shown(given, _SHOWN_TAG)


def _shown(given: Mapping[str, str | None], most: int) -> dict[str, str]:
    return {key[:_SHOWN_KEY]: str(value)[:most] for key, value in given.items()}
