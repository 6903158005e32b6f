"""The Store contract: what Headrace asks of a database. postgres.py and sqlite.py keep it, tests/contract proves it.

Writes are values. They are handed to `Store.write`, which answers when they are durable: not before. A write that the
store can't do exactly as stock would (an unknown or deleted run, a param with another value, a tag that is not there)
raises `Declined` and leaves nothing behind, so that stock gives the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from headrace.api.search.ast import ExperimentSearch, KeyValue, RunSearch
from headrace.entities import (
    DatasetInput,
    DatasetSummary,
    EncodedRun,
    Experiment,
    Metric,
    ModelVersion,
    Run,
    RunInfo,
    RunMetric,
)


class MetricRow(Struct, frozen=True, gc=False):
    """A row of `metrics`, in the form that MLflow stores: NaN is 0 with `is_nan`, infinities are +-1.797e308.

    Source: SqlAlchemyStore.sanitize_metric_value.
    """

    key: str
    value: float
    timestamp: int
    step: int
    is_nan: bool = False


class LogBatch(Struct, frozen=True, gc=False):
    """Metrics, params and tags for one active run; all of it or nothing.

    Params have distinct keys, tags too (the last value of a repeated tag counts). A tag mlflow.runName renames the run.
    """

    run_id: str
    metrics: tuple[MetricRow, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()


class CreateRun(Struct, frozen=True, gc=False):
    """A new run in an active experiment. `tags` holds mlflow.runName and has distinct keys. Answered by `RunInfo`."""

    run_id: str
    experiment_id: int
    name: str
    user_id: str
    start_time: int
    tags: tuple[tuple[str, str], ...]


class UpdateRun(Struct, frozen=True, gc=False):
    """New status, end time or name of an active run; None leaves a field as it is. Answered by `RunInfo`."""

    run_id: str
    status: str | None
    end_time: int | None
    name: str | None


class DeleteTag(Struct, frozen=True, gc=False):
    """Remove a tag that an active run has."""

    run_id: str
    key: str


class CreateExperiment(Struct, frozen=True, gc=False):
    """A new experiment below the store's artifact root; its tags have distinct keys. Answered by its id."""

    name: str
    tags: tuple[tuple[str, str], ...]
    now: int


class SetExperimentTag(Struct, frozen=True, gc=False):
    """A tag of an active experiment, new or changed."""

    experiment_id: int
    key: str
    value: str


class DeleteExperimentTag(Struct, frozen=True, gc=False):
    """Remove a tag that an active experiment has."""

    experiment_id: int
    key: str


class RenameExperiment(Struct, frozen=True, gc=False):
    """A name that no other experiment has, for an active one."""

    experiment_id: int
    name: str
    now: int


class DeleteExperiment(Struct, frozen=True, gc=False):
    """Mark an active experiment and all its runs as deleted. `now`: milliseconds."""

    experiment_id: int
    now: int


class RestoreExperiment(Struct, frozen=True, gc=False):
    """Mark a deleted experiment and all its runs as active."""

    experiment_id: int
    now: int


class DeleteRun(Struct, frozen=True, gc=False):
    """Mark a run as deleted, deleted already or not."""

    run_id: str
    now: int


class RestoreRun(Struct, frozen=True, gc=False):
    """Mark a run as active, active already or not."""

    run_id: str


class LogInputs(Struct, frozen=True, gc=False):
    """Datasets that went into an active run, with distinct names and digests, each tag once; and models.

    A dataset that the experiment knows by name and digest is taken as it is; one that the run has keeps its tags.
    """

    run_id: str
    datasets: tuple[DatasetInput, ...]
    model_ids: tuple[str, ...] = ()


class LogOutputs(Struct, frozen=True, gc=False):
    """Logged models that an active run made, none of which it has already: each (model_id, step)."""

    run_id: str
    models: tuple[tuple[str, int], ...]


class ReplaceTag(Struct, frozen=True, gc=False):
    """A new value for a tag of an active run, whose value is still `before`; None: which it does not have."""

    run_id: str
    key: str
    before: str | None
    after: str


# Changes are rare next to writes: each is a transaction of its own.
Change = (
    CreateExperiment
    | SetExperimentTag
    | DeleteExperimentTag
    | RenameExperiment
    | DeleteExperiment
    | RestoreExperiment
    | DeleteRun
    | RestoreRun
    | LogInputs
    | LogOutputs
    | ReplaceTag
)


class ExperimentPage(Struct, frozen=True, gc=False):
    """Experiments in the order of their search; `more` says whether others follow.

    `after`: where the next page begins; None where there is none, or where only its offset says it.
    """

    experiments: list[Experiment]
    more: bool
    after: tuple[KeyValue, ...] | None


class MetricHistory(Struct, frozen=True, gc=False):
    """Values of one metric of a run; `more` says whether others follow."""

    metrics: list[Metric]
    more: bool


class RunPage(Struct, frozen=True, gc=False):
    """Runs in the order of their search. `after`: where the next page begins, None where there is none."""

    runs: list[Run]
    after: tuple[KeyValue, ...] | None


class EncodedRunPage(Struct, frozen=True, gc=False):
    """A RunPage that is on its way to a client: where it pays, the runs' data is JSON already."""

    runs: Sequence[Run | EncodedRun]
    after: tuple[KeyValue, ...] | None


Write = LogBatch | CreateRun | UpdateRun | DeleteTag
# What became of a write: its answer, or the exception that its caller shall see.
Outcome = RunInfo | None | Exception


class Store(Protocol):
    """One backend. Every method may raise `Unavailable` when the database is away."""

    async def start(self) -> None:
        """Connect, and read the schema contract. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Flush what was accepted, then disconnect. Writes after this raise Unavailable."""
        ...

    @property
    def changed_tables(self) -> dict[str, str]:
        """Tables that are not as Headrace's SQL expects them, each with what differs (see schema.py)."""
        ...

    def seen_by(self, grantees: Sequence[str]) -> Store:
        """The same store, whose searches (of runs, experiments, datasets) find only what is granted to one of these.

        A grantee is user:NAME or group:NAME, as in headrace_grants.
        """
        ...

    async def write(self, write: Write) -> RunInfo | None:
        """Do it durably, together with the other writes of this moment.

        Raises Declined (nothing was done, stock shall answer), Unavailable (the queue is full or the database is
        away; nothing was acknowledged and it is safe to send it again).
        """
        ...

    async def change(self, change: Change) -> int:
        """Do it durably, all of it or nothing. The answer is of use for CreateExperiment only: the new id.

        Raises Declined (it can't be done exactly as stock would, and nothing was), Unavailable (it may have been done;
        to do it twice does no harm).
        """
        ...

    async def get_run(self, run_id: str) -> Run | None:
        """The run with its latest metrics, params, tags, inputs and outputs; None where there is none.

        Raises Declined for a row that stock itself can't render (a NULL start_time, say).
        """
        ...

    async def search_runs(self, search: RunSearch) -> RunPage:
        """The page, each run with its latest metrics, params, tags, datasets and outputs (not its model inputs).

        Raises Declined for rows that stock itself can't render, and for what the database would refuse; BadPageToken
        for an `after` that does not fit the order.
        """
        ...

    async def search_runs_encoded(self, search: RunSearch) -> EncodedRunPage:
        """The same page, to be encoded and no more. Raises as search_runs does."""
        ...

    async def search_experiments(self, search: ExperimentSearch) -> ExperimentPage:
        """The page. Raises Declined for rows that stock renders in its own way; BadPageToken as search_runs."""
        ...

    async def get_experiment(self, experiment_id: int) -> Experiment | None:
        """The experiment, deleted or not; None where there is none. Raises Declined as search_experiments does."""
        ...

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        """The experiment of that name, deleted or not. Raises Declined where several workspaces have one."""
        ...

    async def artifact_uri(self, run_id: str) -> str | None:
        """Where the run's artifacts are, deleted or not; None where there is no such run."""
        ...

    async def model_source(self, name: str, version: int) -> str | None:
        """Where the model version's files are; None where there is none of that name and number, or nothing is said."""
        ...

    async def model_versions(self, run_ids: Sequence[str]) -> list[ModelVersion]:
        """The model versions that the runs made, the last updated first, then by name and version.

        Raises Declined for rows that stock can't render.
        """
        ...

    async def metric_history(self, run_id: str, key: str, limit: int | None, offset: int) -> MetricHistory:
        """All that was logged, by timestamp, step and value; a NaN is the text "NaN"."""
        ...

    async def metric_history_bulk(self, run_ids: Sequence[str], key: str, limit: int) -> list[RunMetric]:
        """All that was logged to the runs, by run, timestamp, step and value, up to `limit` values."""
        ...

    async def metric_samples(
        self, run_ids: Sequence[str], key: str, count: int, steps: tuple[int, int] | None
    ) -> list[RunMetric]:
        """Of each run, in the order given, up to `count` values of those logged for `steps` (first and last, or all).

        They are spread evenly over the values by step, timestamp and value, and end with the last of them.
        """
        ...

    async def search_datasets(self, experiment_ids: Sequence[int]) -> list[DatasetSummary]:
        """The datasets that went into runs of the experiments. Raises Declined where there are 1,000 or more."""
        ...
