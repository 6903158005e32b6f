"""Rows to entities: what both backends share when they answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.entities import (
    Dataset,
    DatasetInput,
    KeyValue,
    Metric,
    ModelInput,
    ModelOutput,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    number,
)
from headrace.errors import Declined
from headrace.resources.runs.log_plan import RUN_NAME_TAG

# Artifact locations to which stock's append_to_uri_path (mlflow/utils/uri.py) adds a path by plain concatenation.
# The same text is a regular expression for Python and for PostgreSQL.
PLAIN_LOCATION = r"^(/|file:///|[a-z][a-z0-9+.-]*:/{1,2}[^/?#;\\\s])[^?#;\\\s]*$"


def run_info(
    run_id: str,
    name: str | None,
    experiment_id: int,
    user_id: str,
    status: str,
    start_time: int,
    end_time: int | None,
    lifecycle_stage: str,
    artifact_uri: str | None,
) -> RunInfo:
    """A row of `runs` as stock renders it (RunInfo.to_proto leaves out an end_time of 0 and an empty artifact_uri)."""
    return RunInfo(
        run_uuid=run_id,
        experiment_id=str(experiment_id),
        user_id=user_id,
        status=status,
        start_time=start_time,
        lifecycle_stage=lifecycle_stage,
        run_id=run_id,
        run_name=name,
        end_time=end_time or None,
        artifact_uri=artifact_uri or None,
    )


def run_from_columns(row: Mapping[str, Any], inputs: RunInputs, outputs: RunOutputs) -> Run:
    """A run from its row and the array columns metric_*, param_* and tag_* (None where there is nothing).

    Raises Declined for rows of old or foreign servers that stock renders in its own way.
    """
    if row["start_time"] is None or row["user_id"] is None:
        raise Declined("the run has no start_time or user_id")
    name = row["name"]
    if not name and row["tag_keys"]:  # MLflow before 1.30 kept it in the tag alone
        name = dict(zip(row["tag_keys"], row["tag_values"], strict=True)).get(RUN_NAME_TAG) or name
    info = run_info(
        row["run_uuid"], name, row["experiment_id"], row["user_id"], row["status"], row["start_time"],
        row["end_time"], row["lifecycle_stage"], row["artifact_uri"],
    )  # fmt: skip
    data = RunData()
    if row["metric_keys"]:
        data.metrics = [
            Metric(key, number(value), timestamp, step)
            for key, value, timestamp, step in zip(
                row["metric_keys"],
                row["metric_values"],
                row["metric_timestamps"],
                row["metric_steps"],
                strict=True,
            )
        ]
    if row["param_keys"]:
        data.params = list(map(KeyValue, row["param_keys"], row["param_values"]))
    if row["tag_keys"]:
        if None in row["tag_values"]:
            raise Declined("the run has a tag without a value")
        data.tags = list(map(KeyValue, row["tag_keys"], row["tag_values"]))
    return Run(info, data, inputs, outputs)


def inputs_and_outputs(rows: Iterable[Mapping[str, Any]]) -> tuple[RunInputs, RunOutputs]:
    """Datasets with their tags (one row per tag) and logged models, as GET_LINKED names its columns."""
    inputs, outputs = RunInputs(), RunOutputs()
    datasets: dict[str, DatasetInput] = {}
    for row in rows:
        if row["kind"] == "RUN_INPUT":
            inputs.model_inputs.append(ModelInput(row["id"]))
        elif row["kind"] == "RUN_OUTPUT":
            outputs.model_outputs.append(ModelOutput(row["id"], row["step"]))
        else:
            if row["id"] not in datasets:
                dataset = Dataset(
                    row["name"], row["digest"], row["source_type"], row["source"],
                    row["schema"] or None, row["profile"] or None,
                )  # fmt: skip
                datasets[row["id"]] = DatasetInput(dataset)
            if row["tag_key"] is not None:
                datasets[row["id"]].tags.append(KeyValue(row["tag_key"], row["tag_value"]))
    inputs.dataset_inputs.extend(datasets.values())
    return inputs, outputs
