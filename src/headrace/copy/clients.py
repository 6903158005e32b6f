"""To an MLflow server: from whatever MLflow's own client reads to what it writes.

A server makes the ids of runs and models itself. What is copied has the tag TAG with the id that it had, once it is
there whole; what has BEGUN instead is gone on with. Traces keep their ids.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headrace.copy.options import Options
from headrace.copy.reading import PAGE, PROMPTS, links, pages, registered_models, tags_of, versions
from headrace.copy.report import Report
from headrace.errors import Unavailable
from headrace.uri import redact

TAG, BEGUN = "headrace.copied_from", "headrace.copy_of"
_PARENT = "mlflow.parentRunId"
_EXPERIMENTS = "_mlflow_experiment_ids"  # the tag of a prompt: ",1,2,"
_SERVED = "mlflow-artifacts:/"
POINTS, PAIRS = 1_000, 100  # the most of a request
ACTIVE, ALL = 1, 3  # MLflow's ViewType
_QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


class Clients:
    """From the store at one URL to the server at another. `told` hears of each run and experiment."""

    def __init__(self, source: str, target: str, options: Options, told: Callable[[Report], None]) -> None:
        for variable, value in _QUIET.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.tracking._model_registry.client import ModelRegistryClient

        self._source_uri, self._options = source, options
        self._source, self._target = MlflowClient(source, source), MlflowClient(target, target)
        self._registry = ModelRegistryClient(target, target)  # MlflowClient's own way refuses prompts
        self._dry, self._told = options.dry, told
        self._experiments: dict[str, str] = {}  # id at the source -> at the target
        self._runs: dict[str, str] = {}
        self._models: dict[str, str] = {}
        self._nans: set[tuple[Any, ...]] = set()  # points, which a model's metric has as 0
        self.report = Report()

    def copy(self) -> Report:
        """The experiments that are asked for, with their versions of models; with all of them the whole registry.

        Raises Unavailable where one of the two does not answer, or refuses something.
        """
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            self._all()
        except (MlflowException, RequestException) as error:
            words = " ".join(str(error).split())[:500].rstrip(".")
            raise Unavailable(f"{redact(words)}. Start the same command again: it goes on where it was.") from error
        return self.report

    def _all(self) -> None:
        names = self._options.experiments
        for experiment in pages(lambda token: self._source.search_experiments(max_results=1000, page_token=token)):
            if not names or experiment.name in names:
                self._experiment(experiment, self._options.into or experiment.name)
        for prompts in ("", PROMPTS):
            for model in registered_models(self._source, prompts):
                self._registered(model, prompts, only=bool(names))

    # ---- an experiment ---------------------------------------------------------------------------------------------

    def _experiment(self, experiment: Any, name: str) -> None:
        there = self._target.get_experiment_by_name(name)
        if there is not None and there.lifecycle_stage == "deleted":
            self.report.leave(
                "experiment", experiment.name, f"{name} is deleted at the target. Restore it, or name another --into"
            )
            return
        if there is None:
            self.report.experiments += 1
            number = "" if self._dry else self._target.create_experiment(name, tags=experiment.tags)
        else:
            number = there.experiment_id
        if number and number != experiment.experiment_id:
            self.report.map("experiment", experiment.experiment_id, number)
        self._experiments[experiment.experiment_id] = number
        done = self._known_runs(number)
        runs = list(
            pages(lambda token: self._source.search_runs([experiment.experiment_id], "", ACTIVE, PAGE, None, token))
        )
        for run in runs:
            if run.info.run_id not in done:
                self._run(run, number)
        for run in runs:
            parent = self._runs.get(run.data.tags.get(_PARENT, ""))
            if parent is not None and run.info.run_id not in done and not self._dry:
                self._target.set_tag(self._runs[run.info.run_id], _PARENT, parent)
        self._logged_models(experiment.experiment_id, number)
        for run in runs:
            if run.info.run_id not in done and not self._dry:
                self._finish(run)
        if self._traces(experiment.experiment_id, number) and not self._dry:
            self._link(experiment.experiment_id, [run.info.run_id for run in runs if run.info.run_id in self._runs])
        self._told(self.report)

    def _known_runs(self, number: str) -> set[str]:
        """Those that are there whole; of the others it remembers what was begun."""
        done = set()
        for run in (
            pages(lambda token: self._target.search_runs([number], "", ALL, PAGE, None, token)) if number else ()
        ):
            which = run.data.tags.get(TAG) or run.data.tags.get(BEGUN)
            if which:
                self._runs[which] = run.info.run_id
            if TAG in run.data.tags:
                done.add(which)
        return done

    def _run(self, run: Any, number: str) -> None:
        from mlflow.entities import Metric, Param

        info, data = run.info, run.data
        self.report.runs += 1
        histories = {key: self._source.get_metric_history(info.run_id, key) for key in data.metrics}
        self.report.metrics += sum(map(len, histories.values()))
        self._nans |= {_point(info.run_id, m) for history in histories.values() for m in history if math.isnan(m.value)}
        if self._dry:
            return
        new = self._runs.get(info.run_id)
        if new is None:
            tags = {key: value for key, value in data.tags.items() if key != _PARENT} | {BEGUN: info.run_id}
            made = self._target.create_run(number, info.start_time, tags, info.run_name)
            new = self._runs[info.run_id] = made.info.run_id
            self.report.map("run", info.run_id, new)
        params = [Param(key, value) for key, value in data.params.items()]
        for begin in range(0, len(params), PAIRS):
            self._target.log_batch(new, params=params[begin : begin + PAIRS])
        points = [Metric(m.key, m.value, m.timestamp, m.step) for history in histories.values() for m in history]
        for begin in range(0, len(points), POINTS):
            self._target.log_batch(new, metrics=points[begin : begin + POINTS])
        if run.inputs and run.inputs.dataset_inputs:
            self._target.log_inputs(new, run.inputs.dataset_inputs)
        self._files("run", info.run_id, info.artifact_uri, lambda folder: self._target.log_artifacts(new, folder))
        self._told(self.report)

    def _finish(self, run: Any) -> None:
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        new = self._runs[run.info.run_id]
        given = [m for m in (run.inputs.model_inputs if run.inputs else ()) if m.model_id in self._models]
        made = [m for m in (run.outputs.model_outputs if run.outputs else ()) if m.model_id in self._models]
        if given:
            self._target.log_inputs(new, models=[LoggedModelInput(self._models[m.model_id]) for m in given])
        if made:
            self._target.log_outputs(new, [LoggedModelOutput(self._models[m.model_id], m.step) for m in made])
        if run.info.status not in ("RUNNING", "SCHEDULED"):
            self._target.set_terminated(new, run.info.status, run.info.end_time)
            self._target.set_tag(new, TAG, run.info.run_id)
            self._target.delete_tag(new, BEGUN)

    # ---- logged models, traces -------------------------------------------------------------------------------------

    def _logged_models(self, experiment_id: str, number: str) -> None:
        done = set()
        search = self._target.search_logged_models
        for model in pages(lambda token: search([number], max_results=50, page_token=token)) if number else ():
            which = model.tags.get(TAG) or model.tags.get(BEGUN)
            if which:
                self._models[which] = model.model_id
            if TAG in model.tags:
                done.add(which)
        read = self._source.search_logged_models
        for model in pages(lambda token: read([experiment_id], max_results=50, page_token=token)):
            if model.model_id not in done:
                self.report.logged_models += 1
                if not self._dry:
                    self._logged_model(model, number)

    def _logged_model(self, model: Any, number: str) -> None:
        from mlflow.entities import LoggedModelStatus, Metric

        new = self._models.get(model.model_id)
        if new is None:
            run = self._runs.get(model.source_run_id or "")
            tags = model.tags | {BEGUN: model.model_id}
            made = self._target.create_logged_model(
                number, model.name, run, tags, model.params, model.model_type or None
            )
            new = self._models[model.model_id] = made.model_id
            self.report.map("logged model", model.model_id, new)
        for m in model.metrics or ():
            if m.run_id in self._runs:
                value = math.nan if _point(m.run_id, m) in self._nans else m.value
                dataset = m.dataset_name or None, m.dataset_digest or None
                self._target.log_batch(
                    self._runs[m.run_id], metrics=[Metric(m.key, value, m.timestamp, m.step, new, *dataset)]
                )
        self._files(
            "logged model", model.model_id, model.artifact_location,
            lambda folder: self._target.log_model_artifacts(new, folder),
        )  # fmt: skip
        if LoggedModelStatus.is_finalized(model.status):
            self._target.finalize_logged_model(new, model.status)
        self._target.set_logged_model_tags(new, {TAG: model.model_id})
        self._target.delete_logged_model_tag(new, BEGUN)

    def _link(self, experiment_id: str, run_ids: list[str]) -> None:
        for run_id, trace_ids in links(self._source, experiment_id, run_ids):
            for start in range(0, len(trace_ids), PAGE):
                self._target.link_traces_to_run(trace_ids[start : start + PAGE], self._runs[run_id])

    def _traces(self, experiment_id: str, number: str) -> bool:
        """Whether there are any."""
        from mlflow.entities.trace_location import TraceLocation

        there, read = self._target.search_traces, self._source.search_traces
        known: dict[str, Any] = {}
        if number:
            found = pages(
                lambda token: there(locations=[number], max_results=PAGE, page_token=token, include_spans=False)
            )
            known = {trace.info.trace_id: trace.info for trace in found}
        store, any_ = self._target._tracing_client.store, False
        for trace in pages(lambda token: read(locations=[experiment_id], max_results=PAGE, page_token=token)):
            info, any_ = trace.info, True
            if info.trace_id in known and _is_whole(known[info.trace_id], info):
                continue
            self.report.traces += 1
            if self._dry:
                continue
            info.trace_location = TraceLocation.from_experiment_id(number)
            info.tags.pop("mlflow.artifactLocation", None)
            if (run := info.trace_metadata.get("mlflow.sourceRun")) in self._runs:
                info.trace_metadata["mlflow.sourceRun"] = self._runs[run]
            if trace.data.spans:
                store.log_spans(number, trace.data.spans)
            store.start_trace(info)
        return any_

    # ---- the registry ----------------------------------------------------------------------------------------------

    def _registered(self, model: Any, prompts: str, only: bool) -> None:
        """`only`: no more than versions of what was copied."""
        from mlflow.exceptions import MlflowException

        wanted = versions(self._source, model.name, prompts)
        if only:
            wanted = [v for v in wanted if v.run_id in self._runs or self._source_of(v) != v.source]
        if only and not wanted:
            return
        try:
            there = self._registry.get_registered_model(model.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            there = None
        done = {v.tags[TAG]: v.version for v in versions(self._target, model.name, prompts) if TAG in v.tags}
        if there is None:
            self.report.registered_models += 1
            if not self._dry:
                tags = tags_of(model, prompts)
                if _EXPERIMENTS in tags:
                    ids = (self._experiments.get(each) for each in tags[_EXPERIMENTS].split(","))
                    tags[_EXPERIMENTS] = f",{','.join(filter(None, ids))},"
                self._registry.create_registered_model(model.name, tags, model.description or None)
        for version in wanted:
            if str(version.version) not in done:
                self.report.model_versions += 1
                if not self._dry:
                    done[str(version.version)] = self._version(version)
        if self._dry:
            return
        taken = there.aliases if there is not None else {}
        for alias, at in model.aliases.items():
            if str(at) not in done:
                continue
            if alias not in taken:
                self._registry.set_registered_model_alias(model.name, alias, done[str(at)])
            elif str(taken[alias]) != str(done[str(at)]):
                self.report.leave(f"alias of {model.name}", alias, f"it is of version {taken[alias]} at the target")

    def _version(self, version: Any) -> str:
        source = self._source_of(version)
        made = self._registry.create_model_version(
            version.name, source, self._runs.get(version.run_id or ""),
            version.tags | {TAG: str(version.version)}, version.run_link or None, version.description or None,
            await_creation_for=0,
            model_id=next((new for new in self._models.values() if source.startswith(f"models:/{new}")), None),
        )  # fmt: skip
        if version.current_stage not in (None, "None"):
            self._registry.transition_model_version_stage(version.name, made.version, version.current_stage)
        if str(made.version) != str(version.version):
            self.report.map(f"version of {version.name}", version.version, made.version)
        return str(made.version)

    def _source_of(self, version: Any) -> str:
        """With the ids that runs and models have at the target."""
        ids = self._runs | self._models
        text: str = re.sub(r"(m-)?[0-9a-f]{32}", lambda found: ids.get(found[0], found[0]), version.source or "")
        return text

    # ---- files -----------------------------------------------------------------------------------------------------

    def _files(self, kind: str, which: str, uri: str | None, send: Callable[[str], None]) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        served = self._options.source_artifacts
        if not self._options.artifacts or not uri:
            return
        if uri.startswith(_SERVED) and served is not None:
            uri = f"{served.rstrip('/')}/{uri.removeprefix(_SERVED)}"
        with tempfile.TemporaryDirectory(prefix="headrace-copy-") as folder:
            try:
                repository = get_artifact_repository(uri, tracking_uri=self._source_uri)
                if not repository.list_artifacts():
                    return
                unread = download(repository, folder)
            except (MlflowException, OSError) as error:
                self.report.leave(f"files of {kind}", which, f"they stay at {uri}: {' '.join(str(error).split())}")
                return
            for path, why in unread.items():
                self.report.leave(f"file of {which}", path, f"it can't be read: {why}")
            found = [file for file in Path(folder).rglob("*") if file.is_file()]
            if found:
                send(folder)
            self.report.files += len(found)
            self.report.bytes += sum(file.stat().st_size for file in found)


def _is_whole(there: Any, info: Any) -> bool:
    """Whether it had more than its spans when its copy was broken off: the rest comes at once, after them."""
    metadata: bool = info.trace_metadata.keys() <= there.trace_metadata.keys()
    return metadata and len(info.assessments) <= len(there.assessments)


def download(repository: Any, folder: str) -> dict[str, str]:
    """All files of a store; where MLflow's client fails at one, those that it can get. Why it can't get the others."""
    from mlflow.exceptions import MlflowException

    unread = {}
    try:
        repository.download_artifacts("", folder)
    except (MlflowException, OSError):
        shutil.rmtree(folder)
        Path(folder).mkdir()
        for path in _files_below(repository, None):
            try:
                repository.download_artifacts(path, folder)
            except (MlflowException, OSError) as error:
                Path(folder, path).unlink(missing_ok=True)  # a half of it
                unread[path] = " ".join(str(error).split())
    return unread


def _files_below(repository: Any, path: str | None) -> Iterator[str]:
    for each in repository.list_artifacts(path):
        if each.is_dir:
            yield from _files_below(repository, each.path)
        else:
            yield each.path


def _point(run_id: str, metric: Any) -> tuple[Any, ...]:
    return run_id, metric.key, metric.timestamp, metric.step
