"""`python -m headrace.copy.server FILE`: what an MLflow server answers, as rows of a SQLite file.

It is read by MLflow's own client. Standard input says, as JSON, where (`source`), which experiments are wanted
(`experiments`, none for all) and which runs the target has that have ended (`known`): of these no more is read than
that they are. The environment has the client's credentials (MLFLOW_TRACKING_TOKEN, ...). A server that is older than
an API (logged models, traces) has nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headrace.clock import now_ms
from headrace.copy.reading import PAGE, PROMPTS, links, pages, registered_models, tags_of, versions
from headrace.copy.stage import Point, Run, Stage, finite, same_id

AT_ONCE = 8  # requests


def main(file: str) -> None:
    """Make the database. Raises MlflowException."""
    from mlflow import MlflowClient

    asked = json.load(sys.stdin)
    url = asked["source"]
    with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database:
        Server(MlflowClient(url, url), Stage(file, database), set(asked["known"])).all(set(asked["experiments"]))


class Server:
    """What it has, to be put into the stage. MLflow's own store takes with their ids: traces."""

    def __init__(self, client: Any, stage: Stage, known: set[str]) -> None:
        self._client, self._stage, self._known = client, stage, known
        self._database, self._store, self._insert = stage.database, stage.store, stage.insert
        self._threads = ThreadPoolExecutor(AT_ONCE)

    def all(self, names: set[str]) -> None:
        """Experiments of these names, or all; the registry."""
        from mlflow.entities import ViewType

        found = [
            each
            for each in pages(lambda token: self._client.search_experiments(ViewType.ALL, 1000, page_token=token))
            if not names or each.name in names
        ]
        for experiment in found:
            self._experiment(experiment)
            for run in self._runs(experiment.experiment_id):
                self._run(run)
        for experiment in found:
            self._models(experiment.experiment_id)
            if self._traces(experiment.experiment_id):
                self._links(experiment.experiment_id)
            if experiment.lifecycle_stage == "deleted":
                self._database.execute(
                    "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = ?",
                    (experiment.experiment_id,),
                )
        for prompts in ("", PROMPTS):
            for model in registered_models(self._client, prompts):
                self._registered(model, prompts)

    def _runs(self, experiment_id: str) -> Iterator[Any]:
        from mlflow.entities import ViewType

        search, order = self._client.search_runs, ["attribute.start_time"]
        return pages(lambda token: search([experiment_id], "", ViewType.ALL, PAGE, order, token))

    def _experiment(self, experiment: Any) -> None:
        number = int(experiment.experiment_id)
        times = experiment.creation_time, experiment.last_update_time
        self._stage.experiment(number, experiment.name, experiment.artifact_location, *times)
        tags = experiment.tags.items()
        self._insert("experiment_tags", *({"experiment_id": number, "key": k, "value": v} for k, v in tags))

    def _run(self, run: Any) -> None:
        info, data, run_id = run.info, run.data, run.info.run_id
        known = run_id in self._known
        keys = () if known else data.metrics
        histories = list(self._threads.map(lambda key: self._client.get_metric_history(run_id, key), keys))
        row = Run(
            run_id,
            int(info.experiment_id),
            info.run_name,
            info.user_id,
            info.status,
            info.start_time,
            info.end_time,
            info.artifact_uri,
            info.lifecycle_stage,
            *(() if known else (data.params, data.tags)),
        )
        with self._stage.run(row):
            if known:
                return
            for history in histories:
                points = (Point(metric.key, metric.value, metric.timestamp, metric.step or 0) for metric in history)
                self._stage.points(run_id, points)
            self._stage.latest(run_id)
            self._inputs(run)

    def _inputs(self, run: Any) -> None:
        run_id, number = run.info.run_id, int(run.info.experiment_id)
        for given in run.inputs.dataset_inputs if run.inputs else ():
            dataset = given.dataset
            which, link = same_id(number, dataset.name, dataset.digest), same_id(run_id, dataset.name, dataset.digest)
            self._insert("datasets", {
                "dataset_uuid": which, "experiment_id": number, "name": dataset.name, "digest": dataset.digest,
                "dataset_source_type": dataset.source_type, "dataset_source": dataset.source,
                "dataset_schema": dataset.schema, "dataset_profile": dataset.profile,
            })  # fmt: skip
            self._link(link, "DATASET", which, "RUN", run_id)
            self._insert("input_tags", *({"input_uuid": link, "name": t.key, "value": t.value} for t in given.tags))
        for model in run.inputs.model_inputs if run.inputs else ():
            self._link(same_id(run_id, "in", model.model_id), "RUN_INPUT", run_id, "MODEL_INPUT", model.model_id)
        for model in run.outputs.model_outputs if run.outputs else ():
            link = same_id(run_id, "out", model.model_id)
            self._link(link, "RUN_OUTPUT", run_id, "MODEL_OUTPUT", model.model_id, model.step)

    def _link(self, link: str, kind: str, source: str, to_kind: str, to: str, step: int = 0) -> None:
        self._insert("inputs", {
            "input_uuid": link, "source_type": kind, "source_id": source, "destination_type": to_kind,
            "destination_id": to, "step": step,
        })  # fmt: skip

    def _models(self, experiment_id: str) -> None:
        search = self._client.search_logged_models
        for model in _there(lambda token: search([experiment_id], max_results=50, page_token=token)):
            own = {"model_id": model.model_id, "experiment_id": int(experiment_id)}
            self._insert("logged_models", own | {
                "name": model.name, "artifact_location": model.artifact_location,
                "creation_timestamp_ms": model.creation_timestamp,
                "last_updated_timestamp_ms": model.last_updated_timestamp, "status": model.status.to_int(),
                "lifecycle_stage": "active", "model_type": model.model_type or None,
                "source_run_id": model.source_run_id or None, "status_message": model.status_message or None,
            })  # fmt: skip
            self._insert(
                "logged_model_params", *(own | {"param_key": k, "param_value": v} for k, v in model.params.items())
            )
            self._insert("logged_model_tags", *(own | {"tag_key": k, "tag_value": v} for k, v in model.tags.items()))
            for metric in model.metrics or ():
                name, digest = metric.dataset_name, metric.dataset_digest
                dataset = same_id(int(experiment_id), name, digest) if name else None
                self._insert("logged_model_metrics", own | {
                    "metric_name": metric.key, "metric_timestamp_ms": metric.timestamp, "metric_step": metric.step,
                    "metric_value": finite(metric.value), "run_id": metric.run_id, "dataset_name": name,
                    "dataset_digest": digest, "dataset_uuid": dataset,
                })  # fmt: skip

    def _traces(self, experiment_id: str) -> bool:
        """Whether there are any."""
        any_ = False
        search = self._client.search_traces
        for trace in _there(lambda token: search(locations=[experiment_id], max_results=PAGE, page_token=token)):
            any_ = True
            place = trace.info.tags.pop("mlflow.artifactLocation", None)  # the store adds its own
            if trace.data.spans:
                self._store.log_spans(experiment_id, trace.data.spans)
            self._store.start_trace(trace.info)  # last: spans set the time that the trace took, in whole milliseconds
            if place:
                self._database.execute(
                    "UPDATE trace_tags SET value = ? WHERE key = 'mlflow.artifactLocation' AND request_id = ?",
                    (place, trace.info.trace_id),
                )
        return any_

    def _links(self, experiment_id: str) -> None:
        runs = self._database.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment_id,)).fetchall()
        run_ids = [row[0] for row in runs]
        for run_id, trace_ids in links(self._client, experiment_id, run_ids):
            self._insert("entity_associations", *({
                "association_id": same_id(trace_id, run_id), "source_type": "trace", "source_id": trace_id,
                "destination_type": "run", "destination_id": run_id, "created_time": now_ms(),
            } for trace_id in trace_ids))  # fmt: skip

    def _registered(self, model: Any, prompts: str) -> None:
        own = {"name": model.name, "workspace": "default"}
        self._insert("registered_models", own | {
            "creation_time": model.creation_timestamp, "last_updated_time": model.last_updated_timestamp,
            "description": model.description or None,
        })  # fmt: skip
        tags = tags_of(model, prompts).items()
        self._insert("registered_model_tags", *(own | {"key": k, "value": v} for k, v in tags))
        download = self._client.get_model_version_download_uri
        for version in versions(self._client, model.name, prompts):
            number = int(version.version)
            self._insert("model_versions", own | {
                "version": number, "creation_time": version.creation_timestamp, "user_id": version.user_id or None,
                "last_updated_time": version.last_updated_timestamp, "description": version.description or None,
                "current_stage": version.current_stage, "source": version.source, "run_id": version.run_id or None,
                "status": version.status, "status_message": version.status_message or None,
                "storage_location": version.source if prompts else download(model.name, version.version),
                "run_link": version.run_link or None,
            })  # fmt: skip
            named = ({"version": number, "key": k, "value": v} for k, v in version.tags.items())
            self._insert("model_version_tags", *(own | each for each in named))
        named = ({"alias": alias, "version": int(version)} for alias, version in model.aliases.items())
        self._insert("registered_model_aliases", *(own | each for each in named))


def _there(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Nothing where the server does not know the API."""
    from mlflow.exceptions import MlflowException

    try:
        yield from pages(search)
    except MlflowException as error:
        if error.error_code not in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"):
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])
