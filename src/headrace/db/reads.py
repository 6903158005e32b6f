"""What both backends read: each method is a few statements, of read_sql.py and search_sql.py, and rows made entities.

A backend gives `rows`; see base.Store for what the methods promise.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any, ClassVar, Self

from headrace.api.search.ast import Condition, ExperimentSearch, RunSearch
from headrace.db import read_sql, search_sql
from headrace.db.base import EncodedRunPage, ExperimentPage, MetricHistory, RunPage
from headrace.db.run_rows import RUN_COLUMNS, RunRows
from headrace.db.search_sql import EXPERIMENT_WIDTH, Dialect, Query
from headrace.entities import DatasetSummary, EncodedRun, Experiment, KeyValue, Metric, ModelVersion, Run, RunMetric
from headrace.errors import ApiError, Declined

# A search that runs longer is ended; the next one is not better off if it waits behind it.
STATEMENT_SECONDS = 60
# A page may have 50,000 runs: between portions of it the others on this event loop get their turn.
RUNS_AT_ONCE = 500
# Runs whose histories one request reads at the same time; a few connections are left to others.
SAMPLED_AT_ONCE = 4
# SqlAlchemyStore._search_datasets
MAX_DATASETS = 1_000
MODEL_VERSION_STATUS = ("PENDING_REGISTRATION", "FAILED_REGISTRATION", "READY")


class TooSlow(ApiError):
    """The database needed longer than STATEMENT_SECONDS. A 4xx: to send it again would only repeat the work."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"

    def __init__(self) -> None:
        super().__init__(
            f"The database worked on this request for {STATEMENT_SECONDS} s and was stopped. "
            "Ask for less: fewer experiments or runs, or a filter with fewer and simpler conditions."
        )


class Reads:
    """The reading half of a Store."""

    dialect: ClassVar[Dialect]
    _seen_by: Sequence[str] | None = None

    def seen_by(self, grantees: Sequence[str]) -> Self:
        view = copy(self)
        view._seen_by = grantees
        return view

    @abstractmethod
    async def rows(self, query: Query) -> Sequence[Any]:
        """The rows of a statement, which can be read by position and by name.

        Raises Declined where the database refuses it, TooSlow, Unavailable.
        """

    @abstractmethod
    async def transact(self, queries: Sequence[Query]) -> Sequence[Sequence[Any]]:
        """Do the statements in one transaction; the rows of each.

        Raises Declined where the database refuses one, and then none of them was done; Unavailable.
        """

    @abstractmethod
    async def connect(self) -> None:
        """What `rows` and `transact` need, without the rest of what `start` does."""

    @abstractmethod
    async def load_encoded(self, runs: RunRows) -> list[EncodedRun]:
        """The runs with their data. Raises Declined for data that stock itself can't render."""

    async def search_runs(self, search: RunSearch) -> RunPage:
        rows = await self.found_runs(search)
        page = rows[: search.max_results]
        runs: list[Run] = []
        for begin in range(0, len(page), RUNS_AT_ONCE):
            runs += await self._load(RunRows(page[begin : begin + RUNS_AT_ONCE]))
        return RunPage(runs, search_sql.next_page(rows, search.max_results, len(RUN_COLUMNS)))

    async def search_runs_encoded(self, search: RunSearch) -> EncodedRunPage:
        rows = await self.found_runs(search)
        page = rows[: search.max_results]
        runs: list[EncodedRun] = []
        for begin in range(0, len(page), RUNS_AT_ONCE):
            runs += await self.load_encoded(RunRows(page[begin : begin + RUNS_AT_ONCE]))
        return EncodedRunPage(runs, search_sql.next_page(rows, search.max_results, len(RUN_COLUMNS)))

    async def found_runs(self, search: RunSearch) -> Sequence[Any]:
        """The rows of search_sql.search_runs."""
        rarest = await self.rarest_condition(search)
        statement = partial(search_sql.search_runs, search, self.dialect, self._seen_by, rarest=rarest)
        if search_sql.begins_with_numbers(search):
            rows = await self.rows(statement(numbers=True))
            if len(rows) > search.max_results:
                return rows
        return await self.rows(statement())

    async def rarest_condition(self, search: RunSearch) -> Condition | None:
        """One for search_sql.search_runs to begin with; None where the database has statistics to find it by."""
        return None

    async def search_experiments(self, search: ExperimentSearch) -> ExperimentPage:
        rows = await self.rows(search_sql.search_experiments(search, self.dialect, self._seen_by))
        page = rows[: search.max_results]
        after = search_sql.next_page(rows, search.max_results, EXPERIMENT_WIDTH)
        if after is not None and None in after:
            after = None  # the offset will do
        return ExperimentPage(await self._experiments(page), len(rows) > len(page), after)

    async def get_experiment(self, experiment_id: int) -> Experiment | None:
        found = await self._single_experiments(read_sql.experiment(experiment_id, self.dialect))
        return found[0] if found else None

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        found = await self._single_experiments(read_sql.experiments_by_name(name, self.dialect))
        if len(found) > 1:
            raise Declined("experiments of one name in several workspaces")
        return found[0] if found else None

    async def artifact_uri(self, run_id: str) -> str | None:
        rows = await self.rows(read_sql.artifact_uri(run_id, self.dialect))
        return rows[0][0] if rows else None

    async def model_source(self, name: str, version: int) -> str | None:
        rows = await self.rows(read_sql.model_source(name, version, self.dialect))
        return rows[0][0] if rows else None

    async def model_versions(self, run_ids: Sequence[str]) -> list[ModelVersion]:
        rows = await self.rows(read_sql.model_versions(run_ids, self.dialect, self._seen_by))
        found = {(row[0], row[1]): _model_version(*row) for row in rows}
        tags = await self.rows(read_sql.model_version_tags(run_ids, self.dialect)) if found else ()
        for name, version, key, value in tags:
            if value is None:
                raise Declined("a model version has a tag without a value")
            if (name, version) in found:
                found[name, version].tags.append(KeyValue(key, value))
        return list(found.values())

    async def metric_history(self, run_id: str, key: str, limit: int | None, offset: int) -> MetricHistory:
        rows = await self.rows(read_sql.metric_history(run_id, key, limit, offset, self.dialect))
        page = rows if limit is None else rows[:limit]
        metrics = [Metric(key, _nan(value), timestamp, step) for value, timestamp, step in page]
        return MetricHistory(metrics, len(rows) > len(page))

    async def metric_history_bulk(self, run_ids: Sequence[str], key: str, limit: int) -> list[RunMetric]:
        rows = await self.rows(read_sql.metric_history_bulk(run_ids, key, limit, self.dialect))
        return [RunMetric(key, _nan(value), timestamp, step, run_id) for run_id, value, timestamp, step in rows]

    async def metric_samples(
        self, run_ids: Sequence[str], key: str, count: int, steps: tuple[int, int] | None
    ) -> list[RunMetric]:
        turns = asyncio.Semaphore(SAMPLED_AT_ONCE)

        async def sample(run_id: str) -> Sequence[Any]:
            async with turns:
                return await self._sample(run_id, key, count, steps)

        found = await asyncio.gather(*map(sample, run_ids))
        return [
            RunMetric(key, _nan(value), timestamp, step, run_id)
            for run_id, rows in zip(run_ids, found, strict=True)
            for value, timestamp, step in rows
        ]

    async def _sample(self, run_id: str, key: str, count: int, steps: tuple[int, int] | None) -> Sequence[Any]:
        [shape] = await self.rows(read_sql.metric_shape(run_id, key, steps, self.dialect))
        total, different_steps, first, last = shape
        if not total:
            return ()
        places = sample_places(total, count)
        if total == different_steps == last - first + 1:
            # one point a step, as a training loop logs them: the places say which steps, and an index finds those
            wanted = [first + place - 1 for place in places]
            return await self.rows(read_sql.metric_at_steps(run_id, key, wanted, self.dialect))
        return await self.rows(read_sql.metric_at_places(run_id, key, steps, places, self.dialect))

    async def search_datasets(self, experiment_ids: Sequence[int]) -> list[DatasetSummary]:
        rows = await self.rows(read_sql.dataset_summaries(experiment_ids, MAX_DATASETS, self.dialect, self._seen_by))
        if len(rows) == MAX_DATASETS:
            raise Declined("which datasets are left out is up to stock")
        return [
            DatasetSummary(str(experiment_id), name, digest, context or None)
            for experiment_id, name, digest, context in rows
        ]

    async def _load(self, runs: RunRows) -> list[Run]:
        # the database works on one while the rows of another are read
        metrics, params, tags, linked = await asyncio.gather(
            self.rows(read_sql.latest_metrics(runs.run_ids, self.dialect)),
            self.rows(read_sql.params(runs.run_ids, self.dialect)),
            self.rows(read_sql.tags(runs.run_ids, self.dialect)),
            self.rows(read_sql.linked(runs.run_ids, self.dialect)),
        )
        runs.add_metrics(metrics)
        runs.add_params(params)
        runs.add_tags(tags)
        runs.add_linked(linked)
        return runs.runs()

    async def _experiments(self, rows: Sequence[Any]) -> list[Experiment]:
        if not rows:
            return []
        experiments = {row[0]: _experiment(*tuple(row)[:EXPERIMENT_WIDTH]) for row in rows}
        for experiment_id, key, value in await self.rows(read_sql.experiment_tags(list(experiments), self.dialect)):
            _tag(experiments[experiment_id], key, value)
        return list(experiments.values())

    async def _single_experiments(self, query: Query) -> list[Experiment]:
        experiments: dict[int, Experiment] = {}
        for *columns, key, value in await self.rows(query):
            experiment = experiments.get(columns[0]) or experiments.setdefault(columns[0], _experiment(*columns))
            if key is not None:
                _tag(experiment, key, value)
        return list(experiments.values())


def sample_places(total: int, count: int) -> list[int]:
    """Which of `total` points, counted from 1, MLflow samples when it wants `count`.

    The first point of each of the `count` buckets that NTILE makes (the first total % count of them are one larger),
    but the last point in place of the last bucket's (SqlAlchemyStore._sample_rows_with_window_functions).
    """
    if total <= count:
        return list(range(1, total + 1))
    size, larger = divmod(total, count)
    starts = [1 + bucket * size + min(bucket, larger) for bucket in range(count)]
    return [*starts[:-1], total]


def _experiment(
    experiment_id: int,
    name: str,
    artifact_location: str | None,
    lifecycle_stage: str | None,
    creation_time: int | None,
    last_update_time: int | None,
    workspace: str,
) -> Experiment:
    """A row of `experiments` as stock renders it (Experiment.to_proto)."""
    if artifact_location is None or lifecycle_stage is None or not workspace.strip():
        raise Declined("an experiment has no artifact_location, lifecycle_stage or workspace")
    return Experiment(
        str(experiment_id),
        name,
        artifact_location,
        lifecycle_stage,
        workspace.strip(),
        last_update_time or None,
        creation_time or None,
        [],
    )


def _model_version(
    name: str,
    version: int,
    creation_time: int | None,
    status: str | None,
    run_id: str,
    last_updated_time: int | None,
    *texts: str | None,
) -> ModelVersion:
    """A row of `model_versions` as stock renders it (ModelVersion.to_proto)."""
    if creation_time is None or status not in MODEL_VERSION_STATUS:
        raise Declined("a model version has no creation_time, or a status of its own")
    description, user_id, current_stage, source, run_link, status_message = texts
    return ModelVersion(
        name, str(version), creation_time, status, run_id, last_updated_time,
        description, user_id, current_stage, source, run_link, status_message or None, [],
    )  # fmt: skip


def _tag(experiment: Experiment, key: str, value: str | None) -> None:
    if value is None:
        raise Declined("an experiment has a tag without a value")
    experiment.tags.append(KeyValue(key, value))


def _nan(value: float | str) -> float | str:
    return value if value == value else "NaN"
