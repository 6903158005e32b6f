"""What is written to runs all the time, as values: `Database.submit` does them together with others of the moment.

A write that can't be done exactly as stock would (an unknown or deleted run, a param with another value, a tag that is
not there) is declined, and leaves nothing behind; the endpoint then says why, or stock does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.db.database import Write
from headrace.entities import RunInfo
from headrace.errors import Declined
from headrace.resources.runs import write_sql_postgres as pg
from headrace.resources.runs import write_sql_sqlite as lite
from headrace.resources.runs.log_plan import RUN_NAME_TAG, LogPlan, MetricRow, ModelMetric
from headrace.resources.runs.records import PLAIN_LOCATION, run_info

if TYPE_CHECKING:
    import sqlite3

    from headrace.db.postgres import Session

# After a group with a metric that was there, so many groups are inserted with a look for such metrics.
DUPLICATE_GROUPS = 100
_EXPECT_DUPLICATES = "groups to come that may hold metrics which are there already"
_UNIQUE_VIOLATION, _NOT_NULL_VIOLATION = "23505", "23502"

# What becomes of a write: its answer, or the exception that its caller shall see.
Outcome = RunInfo | None | Exception


class ChangedParam(Declined):
    """A param has another value already, in the database or in another write of the moment."""


class CreateRun(Write, frozen=True, gc=False):
    """A new run in an active experiment. `tags` holds mlflow.runName and has distinct keys. Answered by `RunInfo`."""

    rank: ClassVar[int] = 0
    one_statement: ClassVar[bool] = True

    run_id: str
    experiment_id: int
    name: str
    user_id: str
    start_time: int
    tags: tuple[tuple[str, str], ...]

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[CreateRun]) -> Sequence[Outcome]:
        rows = await session.fetch(pg.CREATE_RUNS, *pg.create_columns(writes))
        locations = {row[0]: row[1] for row in rows}
        return [_new_run(write, locations.get(write.run_id)) for write in writes]

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[CreateRun]) -> Sequence[Outcome]:
        return [_create_run(connection, write) for write in writes]


class LogBatch(Write, frozen=True, gc=False):
    """Metrics, params and tags for one active run; all of it or nothing.

    `model_metrics`: those of the metrics that are a logged model's, too, which must be there (a foreign key).
    Params have distinct keys, tags too (the last value of a repeated tag counts). A tag mlflow.runName renames the run.
    """

    rank: ClassVar[int] = 1
    one_statement: ClassVar[bool] = True

    run_id: str
    metrics: tuple[MetricRow, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    model_metrics: tuple[ModelMetric, ...] = ()

    def weight(self) -> int:
        return len(self.metrics) + len(self.model_metrics) + len(self.params) + len(self.tags)

    @property
    def is_one_metric(self) -> bool:
        return len(self.metrics) == 1 and not self.params and not self.tags

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[LogBatch]) -> Sequence[Outcome]:
        if len(writes) == 1 and writes[0].is_one_metric:  # the usual one needs no plan
            run_id, [row] = writes[0].run_id, writes[0].metrics
            one = (run_id, row.key, pg.value(row), row.timestamp, row.step, row.is_nan)
            if writes[0].model_metrics:
                [of] = writes[0].model_metrics
                model = (of.model_id, of.dataset_name, of.dataset_digest)
                active = await session.fetch(pg.LOG_METRIC_OF_MODEL, *one, *model)
            else:
                active = await session.fetch(pg.LOG_METRIC, *one)
            return [None if active else _no_active_run()]
        plan = LogPlan(writes)
        try:
            active = await _insert(session, plan)
        except Exception as error:
            if getattr(error, "sqlstate", None) == _NOT_NULL_VIOLATION:
                return await _without_changed_params(session, writes, plan)
            raise
        known = {row[0] for row in active}
        return _outcomes(plan, [None if write.run_id in known else _no_active_run() for write in writes])

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[LogBatch]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = [_refusal(connection, write) for write in writes]
        good = [i for i, outcome in enumerate(outcomes) if outcome is None]
        plan = LogPlan([writes[i] for i in good])
        for index, outcome in zip(good, _outcomes(plan, [None] * len(good)), strict=True):
            outcomes[index] = outcome
        rows = [(r.key, r.value, r.timestamp, r.step, r.is_nan, run_id) for run_id, r in plan.metrics]
        connection.executemany(lite.LOG_METRIC, rows)
        connection.executemany(
            lite.LOG_METRIC_OF_MODEL,
            (
                (m.model_id, m.metric.key, m.metric.timestamp, m.metric.step, m.metric.value, m.dataset_name,
                 m.dataset_digest, run_id)
                for run_id, m in plan.model_metrics
            ),
        )  # fmt: skip
        connection.executemany(lite.SET_LATEST, (rows[index] for index in plan.latest.values()))
        connection.executemany(lite.LOG_PARAM, _key_values(plan.params.items()))
        connection.executemany(lite.SET_TAG, _key_values(plan.tags.items()))
        connection.executemany(lite.SET_NAME, ((name, run_id) for run_id, name in plan.names.items()))
        return outcomes


class UpdateRun(Write, frozen=True, gc=False):
    """New status, end time or name of an active run; None leaves a field as it is. Answered by `RunInfo`."""

    rank: ClassVar[int] = 2

    run_id: str
    status: str | None
    end_time: int | None
    name: str | None

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[UpdateRun]) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {}
        for index in _by_run(writes):
            write = writes[index]
            rows = await session.fetch(pg.UPDATE_RUN, write.run_id, write.status, write.end_time, write.name)
            if rows and write.name:
                await session.fetch(pg.SET_TAG, write.run_id, RUN_NAME_TAG, write.name)
            outcomes[index] = run_info(*rows[0]) if rows else _no_active_run()
        return [outcomes[index] for index in range(len(writes))]

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[UpdateRun]) -> Sequence[Outcome]:
        return [_update_run(connection, write) for write in writes]


class DeleteTag(Write, frozen=True, gc=False):
    """Remove a tag that an active run has."""

    rank: ClassVar[int] = 3

    run_id: str
    key: str

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[DeleteTag]) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {}
        for index in _by_run(writes):
            # at the second try a tag that is gone was deleted by the first
            deleted = await session.fetch(pg.DELETE_TAG, writes[index].run_id, writes[index].key) or session.again
            outcomes[index] = None if deleted else Declined("the run or its tag is not there")
        return [outcomes[index] for index in range(len(writes))]

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[DeleteTag]) -> Sequence[Outcome]:
        return [_delete_tag(connection, write) for write in writes]


def _no_active_run() -> Declined:
    return Declined("the run is unknown or deleted")


def _by_run(writes: Sequence[UpdateRun | DeleteTag]) -> list[int]:
    """The indexes of the writes in the one order in which every worker takes the locks of runs."""
    return sorted(range(len(writes)), key=lambda index: writes[index].run_id)


def _outcomes(plan: LogPlan, outcomes: list[Outcome]) -> list[Outcome]:
    for index in plan.conflicting:
        outcomes[index] = ChangedParam("another write of this moment gives the param another value")
    return outcomes


# PostgreSQL


async def _insert(session: Session, plan: LogPlan) -> list[Any]:
    """The ids of the plan's active runs, with the plan's rows inserted."""
    ahead = session.memory.get(_EXPECT_DUPLICATES, 0)
    session.memory[_EXPECT_DUPLICATES] = max(0, ahead - 1)
    batch = bool(plan.params or plan.tags)
    statement = pg.log_statement(len(plan.run_ids) == 1, ahead > 0, batch, bool(plan.model_metrics))
    try:
        async with session.savepoint():
            return await session.fetch(statement, *pg.log_columns(plan, batch))
    except Exception as error:
        if ahead or getattr(error, "sqlstate", None) != _UNIQUE_VIOLATION:
            raise
        session.memory[_EXPECT_DUPLICATES] = DUPLICATE_GROUPS
        return await _insert(session, plan)


async def _without_changed_params(session: Session, writes: Sequence[LogBatch], plan: LogPlan) -> Sequence[Outcome]:
    """A batch statement refuses a group that changes a param; find the writes at fault and log the others."""
    rows = await session.fetch(pg.CHANGED_PARAMS, *pg.split_keys(plan.params))
    changed = {(row[0], row[1]) for row in rows}
    outcomes: list[Outcome] = [ChangedParam("it changes a param") for _ in writes]
    good = [i for i, write in enumerate(writes) if not any((write.run_id, key) in changed for key, _ in write.params)]
    if len(good) == len(writes):
        session.changed_meanwhile("a param changed between two statements")
    if good:
        for index, outcome in zip(good, await LogBatch.apply_postgres(session, [writes[i] for i in good]), strict=True):
            outcomes[index] = outcome
    return outcomes


def _new_run(write: CreateRun, artifact_uri: str | None) -> Outcome:
    if artifact_uri is None:
        return Declined("the experiment is unknown, deleted, or has an artifact location that stock must read")
    return run_info(
        write.run_id, write.name, write.experiment_id, write.user_id, "RUNNING", write.start_time, None, "active",
        artifact_uri,
    )  # fmt: skip


# SQLite


def _key_values(items: Iterable[tuple[tuple[str, str], str]]) -> Iterable[tuple[str, str, str]]:
    return ((key, value, run_id) for (run_id, key), value in items)


def _refusal(db: sqlite3.Connection, write: LogBatch) -> Declined | None:
    """Why it can't be done; nobody else can write before this transaction ends."""
    if not _is_active(db, write.run_id):
        return _no_active_run()
    for key, value in write.params:
        row = db.execute(lite.GET_PARAM, (write.run_id, key)).fetchone()
        if row is not None and row["value"] != value:
            return ChangedParam("it changes a param")
    return None


def _is_active(db: sqlite3.Connection, run_id: str) -> bool:
    row = db.execute(lite.GET_STAGE, (run_id,)).fetchone()
    return row is not None and row["lifecycle_stage"] == "active"


def _create_run(db: sqlite3.Connection, write: CreateRun) -> Outcome:
    row = db.execute(lite.GET_LOCATION, (write.experiment_id,)).fetchone()
    if row is None or not re.match(PLAIN_LOCATION, row["artifact_location"] or ""):
        return _new_run(write, None)
    location = row["artifact_location"]
    artifact_uri = f"{location}{'' if location.endswith('/') else '/'}{write.run_id}/artifacts"
    db.execute(
        lite.CREATE_RUN,
        (write.run_id, write.name, write.user_id, write.start_time, artifact_uri, write.experiment_id),
    )
    db.executemany(lite.SET_TAG, ((key, value, write.run_id) for key, value in write.tags))
    return _new_run(write, artifact_uri)


def _update_run(db: sqlite3.Connection, write: UpdateRun) -> Outcome:
    row = db.execute(lite.UPDATE_RUN, (write.status, write.end_time, write.name, write.run_id, write.name)).fetchone()
    if row is None:
        return _no_active_run()
    if write.name:
        db.execute(lite.SET_TAG, (RUN_NAME_TAG, write.name, write.run_id))
    return run_info(*row)


def _delete_tag(db: sqlite3.Connection, write: DeleteTag) -> Outcome:
    if _is_active(db, write.run_id) and db.execute(lite.DELETE_TAG, (write.run_id, write.key)).rowcount:
        return None
    return Declined("the run or its tag is not there")
