"""The messages of traces."""

from __future__ import annotations

from typing import Literal

from headrace.api.message import Int32, Message


class ExportTraces(Message):
    """`POST /v1/traces`: all but the body comes from headers. None: the header is not there."""

    experiment_id: str | None = None
    run_id: str = ""
    content_type: str | None = None
    content_encoding: str = ""
    body: bytes = b""


class MlflowExperimentLocation(Message):
    """`TraceLocation.MlflowExperimentLocation`."""

    experiment_id: str = ""


class InferenceTableLocation(Message):
    """`TraceLocation.InferenceTableLocation`: of Databricks."""

    full_table_name: str = ""


class TraceLocation(Message):
    """`TraceLocation`."""

    type: Literal["TRACE_LOCATION_TYPE_UNSPECIFIED", "MLFLOW_EXPERIMENT", "INFERENCE_TABLE"] = (
        "TRACE_LOCATION_TYPE_UNSPECIFIED"
    )
    mlflow_experiment: MlflowExperimentLocation | None = None
    inference_table: InferenceTableLocation | None = None


class GetTrace(Message):
    """`GetTrace`."""

    trace_id: str
    allow_partial: bool = False


class GetTraceInfo(Message):
    """`GetTraceInfoV3`."""

    trace_id: str


class GetTraceInfoV2(Message):
    """`GetTraceInfo`."""

    request_id: str


class BatchGet(Message):
    """`BatchGetTraces`, `BatchGetTraceInfos`. experiment_ids: None is not an empty list."""

    trace_ids: list[str]
    experiment_ids: list[str] | None = None


class SearchTraces(Message):
    """`SearchTracesV3`."""

    locations: list[TraceLocation]
    filter: str = ""
    max_results: Int32 = 100
    order_by: list[str] = []
    page_token: str = ""


class SearchTracesV2(Message):
    """`SearchTraces`."""

    experiment_ids: list[str]
    filter: str = ""
    max_results: Int32 = 100
    order_by: list[str] = []
    page_token: str = ""
