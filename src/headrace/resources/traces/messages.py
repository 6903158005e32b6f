"""The messages of traces."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from headrace.api.message import Double, Int32, Int64, Message
from headrace.resources.runs.messages import KeyValue

State = Literal["STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS"]


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


class TraceInfoV3(Message):
    """`TraceInfoV3`."""

    trace_id: str = ""
    client_request_id: str | None = None
    trace_location: TraceLocation = field(default_factory=TraceLocation)
    request: str = ""
    response: str = ""
    request_preview: str | None = None
    response_preview: str | None = None
    request_time: str = "1970-01-01T00:00:00Z"
    execution_duration: str | None = None
    state: State = "STATE_UNSPECIFIED"
    trace_metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    assessments: list[Any] = []


class Trace(Message):
    """`Trace`. Its spans come by POST /v1/traces: stock does not look at these."""

    trace_info: TraceInfoV3 = field(default_factory=TraceInfoV3)
    spans: list[Any] = []


class StartTrace(Message):
    """`StartTraceV3`."""

    trace: Trace


class StartTraceV2(Message):
    """`StartTrace`."""

    experiment_id: str = ""
    timestamp_ms: Int64 = 0
    request_metadata: list[KeyValue] = []
    tags: list[KeyValue] = []


class EndTraceV2(Message):
    """`EndTrace`."""

    request_id: str
    status: Literal["TRACE_STATUS_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS"]
    timestamp_ms: Int64 = 0
    request_metadata: list[KeyValue] = []
    tags: list[KeyValue] = []


class SetTraceTag(Message):
    """`SetTraceTagV3`."""

    trace_id: str
    key: str
    value: str = ""


class SetTraceTagV2(Message):
    """`SetTraceTag`."""

    request_id: str
    key: str
    value: str = ""


class DeleteTraceTag(Message):
    """`DeleteTraceTagV3`."""

    trace_id: str
    key: str


class DeleteTraceTagV2(Message):
    """`DeleteTraceTag`."""

    request_id: str
    key: str


class LinkTracesToRun(Message):
    """`LinkTracesToRun`."""

    trace_ids: list[str]
    run_id: str


class PromptVersion(Message):
    """`LinkPromptsToTrace.PromptVersionRef`."""

    name: str = ""
    version: str = ""


class LinkPrompts(Message):
    """`LinkPromptsToTrace`."""

    trace_id: str
    prompt_versions: list[PromptVersion]


class DeleteTraces(Message):
    """`DeleteTraces`. None: it is not there, and says nothing."""

    experiment_id: str
    max_timestamp_millis: Int64 | None = None
    max_traces: Int32 | None = None
    request_ids: list[str] = []


class GetTraceArtifact(Message):
    """The query of get-trace-artifact."""

    request_id: str = ""
    path: str = ""


class CorrelateFilters(Message):
    """`CalculateTraceFilterCorrelation`."""

    experiment_ids: list[str]
    filter_string1: str
    filter_string2: str
    base_filter: str = ""


class MetricAggregation(Message):
    """`MetricAggregation`."""

    aggregation_type: Literal["COUNT", "SUM", "AVG", "PERCENTILE", "MIN", "MAX"] = "COUNT"
    percentile_value: Double | None = None


class QueryTraceMetrics(Message):
    """`QueryTraceMetrics`. Stock gives no second page."""

    experiment_ids: list[str]
    view_type: Literal["TRACES", "SPANS", "ASSESSMENTS"]
    metric_name: str
    aggregations: list[MetricAggregation]
    dimensions: list[str] = []
    filters: list[str] = []
    time_interval_seconds: Int64 | None = None
    start_time_ms: Int64 | None = None
    end_time_ms: Int64 | None = None
    max_results: Int32 = 1000
    page_token: str = ""
