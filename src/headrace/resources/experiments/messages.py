"""The messages of experiments/*, as mlflow/protos/service.proto names them."""

from __future__ import annotations

from headrace.api.message import Message, ViewType
from headrace.resources.runs.messages import KeyValue


class GetExperiment(Message):
    """`GetExperiment`, `DeleteExperiment`, `RestoreExperiment`."""

    experiment_id: str


class GetExperimentByName(Message):
    """`GetExperimentByName`."""

    experiment_name: str


class CreateExperiment(Message):
    """`CreateExperiment`."""

    name: str
    artifact_location: str = ""
    tags: list[KeyValue] = []


class SetExperimentTag(Message):
    """`SetExperimentTag`."""

    experiment_id: str
    key: str
    value: str = ""


class DeleteExperimentTag(Message):
    """`DeleteExperimentTag`."""

    experiment_id: str
    key: str


class UpdateExperiment(Message):
    """`UpdateExperiment`."""

    experiment_id: str
    new_name: str


class SearchExperiments(Message):
    """`SearchExperiments`. Without max_results it is an error."""

    max_results: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: list[str] = []
    view_type: ViewType = "ACTIVE_ONLY"


class SearchDatasets(Message):
    """`SearchDatasets`."""

    experiment_ids: list[str] = []
