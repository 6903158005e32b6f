"""The messages of logged-models/*, as mlflow/protos/service.proto names them."""

from __future__ import annotations

from msgspec import Struct

from headrace.api.message import LoggedModelStatus, Message
from headrace.resources.runs.messages import KeyValue


class CreateLoggedModel(Message):
    """`CreateLoggedModel`."""

    experiment_id: str
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class GetLoggedModel(Message):
    """`GetLoggedModel`. `allow_deleted`: "true", in any case, is yes; all else no."""

    model_id: str
    allow_deleted: str = ""


class DeleteLoggedModel(Message):
    """`DeleteLoggedModel`."""

    model_id: str


class FinalizeLoggedModel(Message):
    """`FinalizeLoggedModel`."""

    model_id: str
    status: LoggedModelStatus


class SetLoggedModelTags(Message):
    """`SetLoggedModelTags`."""

    model_id: str
    tags: list[KeyValue] = []


class DeleteLoggedModelTag(Message):
    """`DeleteLoggedModelTag`."""

    model_id: str
    tag_key: str


class LogLoggedModelParams(Message):
    """`LogLoggedModelParamsRequest`."""

    model_id: str
    params: list[KeyValue] = []


class Dataset(Struct, forbid_unknown_fields=True):
    """`SearchLoggedModels.Dataset`."""

    dataset_name: str = ""
    dataset_digest: str = ""


class OrderBy(Struct, forbid_unknown_fields=True):
    """`SearchLoggedModels.OrderBy`."""

    field_name: str = ""
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


class SearchLoggedModels(Message):
    """`SearchLoggedModels`."""

    experiment_ids: list[str]
    filter: str = ""
    datasets: list[Dataset] = []
    max_results: int = 50
    order_by: list[OrderBy] = []
    page_token: str = ""
