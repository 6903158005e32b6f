"""The messages of runs/*, as mlflow/protos/service.proto names them."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from headrace.api.message import Double, Int64, Message, RunStatus, ViewType


class KeyValue(Struct, forbid_unknown_fields=True, gc=False):
    """`Param`, `RunTag`."""

    key: str = ""
    value: str = ""


class Metric(Struct, forbid_unknown_fields=True, gc=False):
    """`Metric`."""

    key: str
    value: Double
    timestamp: Int64
    step: Int64 = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""
    run_id: str = ""


class OfRun(Message):
    """A message with the id of a run, which older clients send as run_uuid."""

    run_id: str = ""
    run_uuid: str = ""


class LogMetric(Message):
    """`LogMetric`."""

    key: str
    value: Double
    timestamp: Int64
    step: Int64 = 0
    run_id: str = ""
    run_uuid: str = ""
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class LogParam(Message):
    """`LogParam`."""

    key: str
    value: str = ""
    run_id: str = ""
    run_uuid: str = ""


class SetTag(LogParam):
    """`SetTag`."""


class DeleteTag(Message):
    """`DeleteTag`."""

    run_id: str
    key: str


class LogBatch(Message):
    """`LogBatch`."""

    run_id: str
    metrics: list[Metric] = []
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class CreateRun(Message):
    """`CreateRun`."""

    experiment_id: str
    user_id: str = ""
    run_name: str = ""
    start_time: Int64 = 0
    tags: list[KeyValue] = []


class UpdateRun(Message):
    """`UpdateRun`."""

    run_id: str = ""
    run_uuid: str = ""
    status: RunStatus | None = None
    end_time: Int64 | None = None
    run_name: str | None = None


class GetRun(OfRun):
    """`GetRun`."""


class SearchRuns(Message):
    """`SearchRuns`."""

    experiment_ids: list[str] = []
    filter: str = ""
    run_view_type: ViewType = "ACTIVE_ONLY"
    max_results: int = 1000
    order_by: list[str] = []
    page_token: str = ""


class RunOnly(Message):
    """`DeleteRun`, `RestoreRun`."""

    run_id: str


class Dataset(Struct, forbid_unknown_fields=True):
    """`Dataset`."""

    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str | UnsetType = UNSET
    profile: str | UnsetType = UNSET


class DatasetInput(Struct, forbid_unknown_fields=True):
    """`DatasetInput`."""

    dataset: Dataset
    tags: list[KeyValue] = []


class ModelInput(Struct, forbid_unknown_fields=True):
    """`ModelInput`."""

    model_id: str = ""


class LogInputs(Message):
    """`LogInputs`."""

    run_id: str
    datasets: list[DatasetInput] = []
    models: list[ModelInput] = []


class ModelOutput(Struct, forbid_unknown_fields=True):
    """`ModelOutput`."""

    model_id: str = ""
    step: Int64 = 0


class LogOutputs(Message):
    """`LogOutputs`."""

    run_id: str
    models: list[ModelOutput]


class LogModel(Message):
    """`LogModel`."""

    run_id: str
    model_json: str
