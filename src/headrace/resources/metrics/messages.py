"""The messages of metrics/*, as mlflow/protos/service.proto names them."""

from __future__ import annotations

from headrace.api.message import Int64, Message


class GetMetricHistory(Message):
    """`GetMetricHistory`."""

    metric_key: str
    run_id: str = ""
    run_uuid: str = ""
    max_results: int | None = None
    page_token: str = ""


class GetMetricHistoryBulk(Message):
    """The query of metrics/get-history-bulk, which is no message of protobuf's."""

    run_id: list[str] = []
    metric_key: str | None = None
    max_results: int = 25_000


class GetMetricHistoryBulkInterval(Message):
    """`GetMetricHistoryBulkInterval`."""

    run_ids: list[str]
    metric_key: str
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    max_results: int | None = None
