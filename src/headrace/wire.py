"""MLflow's JSON in: a struct for each message, named as mlflow/protos/service.proto names it.

Strict on purpose. An unknown field, another type, `null`, a number that protobuf would have to convert: all of that is
declined, and stock, which reads with protobuf, decides what it means.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from headrace.errors import Malformed

# protobuf writes 64-bit integers as strings, MLflow's own clients as numbers
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(pattern="^-?(0|[1-9][0-9]{0,18})$")]
Double = float | Literal["NaN", "Infinity", "-Infinity"]
ExperimentId = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,8})$")]
ViewType = Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]
MaxResults = Annotated[int, Meta(ge=1, le=50_000)]
RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]


class Message(Struct, forbid_unknown_fields=True, gc=False):
    """A request body."""


class KeyValue(Message):
    """`Param`, `RunTag`."""

    key: str
    value: str = ""


class Metric(Message):
    """`Metric`. With a model_id it belongs to a logged model, too, which is stock's to store."""

    key: str
    value: Double
    timestamp: Int64
    step: Int64 = 0
    model_id: Literal[""] = ""
    dataset_name: str = ""
    dataset_digest: str = ""
    run_id: str = ""


class LogMetric(Message):
    """`LogMetric`."""

    run_id: str
    key: str
    value: Double
    timestamp: Int64
    step: Int64 = 0
    run_uuid: str = ""
    model_id: Literal[""] = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class LogParam(Message):
    """`LogParam`."""

    run_id: str
    key: str
    value: str = ""
    run_uuid: str = ""


class SetTag(Message):
    """`SetTag`."""

    run_id: str
    key: str
    value: str = ""
    run_uuid: str = ""


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

    run_id: str
    run_uuid: str = ""
    status: RunStatus | None = None
    end_time: Int64 | None = None
    run_name: str | None = None


class SearchRuns(Message):
    """`SearchRuns`."""

    experiment_ids: list[ExperimentId] = []
    filter: str = ""
    run_view_type: ViewType = "ACTIVE_ONLY"
    max_results: MaxResults = 1000
    order_by: list[str] = []
    page_token: str = ""


class SearchExperiments(Message):
    """`SearchExperiments`. Without max_results it is an error, which is stock's to word."""

    max_results: MaxResults
    page_token: str = ""
    filter: str = ""
    order_by: list[str] = []
    view_type: ViewType = "ACTIVE_ONLY"


class SearchDatasets(Message):
    """`SearchDatasets`."""

    experiment_ids: Annotated[list[ExperimentId], Meta(min_length=1, max_length=20)]


class CreateExperiment(Message):
    """`CreateExperiment`. An artifact location of the client's own is stock's to judge."""

    name: str
    artifact_location: Literal[""] = ""
    tags: list[KeyValue] = []


class SetExperimentTag(Message):
    """`SetExperimentTag`."""

    experiment_id: ExperimentId
    key: str
    value: str = ""


class DeleteExperimentTag(Message):
    """`DeleteExperimentTag`."""

    experiment_id: ExperimentId
    key: str


class UpdateExperiment(Message):
    """`UpdateExperiment`."""

    experiment_id: ExperimentId
    new_name: str


class ExperimentOnly(Message):
    """`DeleteExperiment`, `RestoreExperiment`."""

    experiment_id: ExperimentId


class RunOnly(Message):
    """`DeleteRun`, `RestoreRun`."""

    run_id: str


class Dataset(Message):
    """`Dataset`."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | msgspec.UnsetType = msgspec.UNSET
    profile: str | msgspec.UnsetType = msgspec.UNSET


class DatasetInput(Message):
    """`DatasetInput`."""

    dataset: Dataset
    tags: list[KeyValue] = []


class ModelInput(Message):
    """`ModelInput`."""

    model_id: str


class LogInputs(Message):
    """`LogInputs`."""

    run_id: str
    datasets: list[DatasetInput] = []
    models: list[ModelInput] = []


class ModelOutput(Message):
    """`ModelOutput`."""

    model_id: str
    step: Int64 = 0


class LogOutputs(Message):
    """`LogOutputs`. Without models it is an error, which is stock's to word."""

    run_id: str
    models: Annotated[list[ModelOutput], Meta(min_length=1)]


class LogModel(Message):
    """`LogModel`."""

    run_id: str
    model_json: str


class GraphQL(Message, rename="camel"):
    """A query of GraphQL, as Apollo sends it."""

    query: str
    variables: dict[str, msgspec.Raw]
    operation_name: str | None = None


class GraphQLGetExperimentInput(Message, rename="camel"):
    """`MlflowGetExperimentInput`."""

    experiment_id: str


class GraphQLGetRunInput(Message, rename="camel"):
    """`MlflowGetRunInput`."""

    run_id: str


class GraphQLSearchRunsInput(Message, rename="camel"):
    """`MlflowSearchRunsInput`."""

    experiment_ids: list[ExperimentId]
    filter: str = ""


M = TypeVar("M")


def decoder(message: type[M]) -> msgspec.json.Decoder[M]:
    """A decoder for `decode`."""
    return msgspec.json.Decoder(message)


def decode(decoder: msgspec.json.Decoder[M], body: bytes | msgspec.Raw) -> M:
    """The message of a body. Raises Declined where it is not one that Headrace is sure to understand."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error) or "the body is nested too deeply") from None


def convert(fields: dict[str, object], message: type[M]) -> M:
    """The message of a query's fields. Raises Declined as `decode` does."""
    try:
        return msgspec.convert(fields, message)
    except msgspec.ValidationError as error:
        raise Malformed(f"in the query: {error}") from None


encode = msgspec.json.Encoder().encode
to_builtins = msgspec.to_builtins
Raw = msgspec.Raw
