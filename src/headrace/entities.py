"""What a tracking server keeps: runs and their data, in the names and the shape of MLflow's messages.

The structs encode straight to MLflow's JSON (mlflow/protos/service.proto and the `to_proto` of mlflow/entities): a
field with a default is left out when it holds it, one without a default is always written. Times are milliseconds
since the epoch.
"""

from __future__ import annotations

from math import inf

from msgspec import Raw, Struct

DEFAULT_WORKSPACE = "default"
WORKSPACES_FOLDER = "workspaces"  # the artifacts of the other workspaces, by name; those of the default lie beside it


_INFINITE: dict[float | str, float | str] = {inf: "Infinity", -inf: "-Infinity"}


def number(value: float | str) -> float | str:
    """As protobuf's JSON writes it. MLflow stores infinities as +-1.797e308; who else writes to its tables need not."""
    return _INFINITE.get(value, value) if value == value else "NaN"


class Metric(Struct, frozen=True, gc=False):
    """One logged value; `value` is what `number` makes of it."""

    key: str
    value: float | str
    timestamp: int
    step: int


class KeyValue(Struct, frozen=True, gc=False):
    """A param, a tag of a run, of an experiment or of an input."""

    key: str
    value: str


class RunInfo(Struct, omit_defaults=True, gc=False):
    """A run without its data. `run_uuid` and `run_id` are the same value; old clients read the former."""

    run_uuid: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    lifecycle_stage: str
    run_id: str
    run_name: str | None = None
    end_time: int | None = None
    artifact_uri: str | None = None


class RunData(Struct, omit_defaults=True):
    """The latest value of each metric, the params and the tags."""

    metrics: list[Metric] = []
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class Dataset(Struct, omit_defaults=True):
    """A dataset, as it was logged."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class DatasetInput(Struct, omit_defaults=True):
    """A dataset that went into a run, with the tags of that use of it."""

    dataset: Dataset
    tags: list[KeyValue] = []


class ModelInput(Struct):
    """A logged model that went into a run."""

    model_id: str


class ModelOutput(Struct):
    """A logged model that a run made, at a step."""

    model_id: str
    step: int


class RunInputs(Struct, omit_defaults=True):
    """What went into a run."""

    dataset_inputs: list[DatasetInput] = []
    model_inputs: list[ModelInput] = []


class RunOutputs(Struct, omit_defaults=True):
    """What a run made."""

    model_outputs: list[ModelOutput] = []


class Run(Struct, omit_defaults=True):
    """A whole run. `outputs` is None, and left out, in the answer to runs/create only."""

    info: RunInfo
    data: RunData
    inputs: RunInputs
    outputs: RunOutputs | None = None


class EncodedRun(Struct):
    """A run whose RunData is JSON already."""

    info: RunInfo
    data: Raw
    inputs: RunInputs
    outputs: RunOutputs


class RunMetric(Struct, frozen=True, gc=False):
    """`MetricWithRunId`: one logged value, and the run that it belongs to."""

    key: str
    value: float | str
    timestamp: int
    step: int
    run_id: str


class Experiment(Struct, omit_defaults=True):
    """An experiment with its tags."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    workspace: str
    last_update_time: int | None = None
    creation_time: int | None = None
    tags: list[KeyValue] = []


class DatasetSummary(Struct, omit_defaults=True, gc=False):
    """A dataset of an experiment, with the context that it was used in, if any."""

    experiment_id: str
    name: str
    digest: str
    context: str | None = None


class ModelVersion(Struct, omit_defaults=True):
    """A version of a registered model. `run_id`: the run that made it."""

    name: str
    version: str
    creation_timestamp: int
    status: str
    run_id: str
    last_updated_timestamp: int | None = None
    description: str | None = None
    user_id: str | None = None
    current_stage: str | None = None
    source: str | None = None
    run_link: str | None = None
    status_message: str | None = None
    tags: list[KeyValue] = []
