"""The messages of datasets/*, as mlflow/protos/service.proto names them. Tags and records are JSON in a text."""

from __future__ import annotations

from headrace.api.message import Int32, Message


class CreateDataset(Message):
    """`CreateDataset`. What stock leaves unread of it is left unread here, too."""

    name: str
    experiment_ids: list[str] = []
    source_type: str | int | None = None
    source: str = ""
    schema: str = ""
    profile: str = ""
    created_by: str = ""
    tags: str = ""


class DatasetOnly(Message):
    """`GetDataset`, `DeleteDataset`, `GetDatasetExperimentIds`."""

    dataset_id: str
    page_token: str = ""


class SearchEvaluationDatasets(Message):
    """`SearchEvaluationDatasets`."""

    experiment_ids: list[str] = []
    filter_string: str = ""
    max_results: Int32 = 1000
    order_by: list[str] = []
    page_token: str = ""


class SetDatasetTags(Message):
    """`SetDatasetTags`. `tags`: a JSON object."""

    dataset_id: str
    tags: str


class DeleteDatasetTag(Message):
    """`DeleteDatasetTag`."""

    dataset_id: str
    key: str


class UpsertDatasetRecords(Message):
    """`UpsertDatasetRecords`. `records`: a JSON list."""

    dataset_id: str
    records: str
    updated_by: str = ""


class GetDatasetRecords(Message):
    """`GetDatasetRecords`."""

    dataset_id: str
    max_results: Int32 = 1000
    page_token: str = ""


class DeleteDatasetRecords(Message):
    """`DeleteDatasetRecords`."""

    dataset_id: str
    dataset_record_ids: list[str] = []


class DatasetExperiments(Message):
    """`AddDatasetToExperiments`, `RemoveDatasetFromExperiments`."""

    dataset_id: str
    experiment_ids: list[str] = []
