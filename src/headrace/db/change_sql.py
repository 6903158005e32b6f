"""A change -> the statements of its transaction, for both dialects. No value is ever part of a text.

The first statement is the guard: where it finds no row, the change is stock's, and the transaction is rolled back.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from headrace.db import base
from headrace.db.records import PLAIN_LOCATION
from headrace.db.search_sql import Dialect, Query, Statement
from headrace.entities import DatasetInput
from headrace.errors import Declined

# Deleting a run deletes the assessments that it made, and what is computed from them: with those, stock does it.
_ASSESSED = '%"mlflow.assessment.sourceRunId": "{}"%'


def statements(change: base.Change, dialect: Dialect, artifact_root: str) -> list[Query]:
    """The guard first. Raises Declined where an experiment can't be put below the artifact root by plain means."""
    if isinstance(change, base.CreateExperiment):
        return _create_experiment(change, dialect, artifact_root)
    return _STATEMENTS[type(change)](change, dialect)


def _create_experiment(change: base.CreateExperiment, dialect: Dialect, artifact_root: str) -> list[Query]:
    """SqlAlchemyStore.create_experiment."""
    root = artifact_root if artifact_root.endswith("/") else f"{artifact_root}/"
    if not re.match(PLAIN_LOCATION, f"{root}0"):
        raise Declined("an artifact root that stock must read")
    guard, place = Statement(dialect), Statement(dialect)
    now = guard.bind(change.now)
    queries = [
        guard.query(
            "INSERT INTO experiments (name, lifecycle_stage, creation_time, last_update_time, workspace)"
            f" VALUES ({guard.bind(change.name)}, 'active', {now}, {now}, 'default') RETURNING experiment_id"
        ),
        place.query(
            f"UPDATE experiments SET artifact_location = {place.text(root)} || CAST(experiment_id AS varchar)"
            f" WHERE workspace = 'default' AND name = {place.bind(change.name)}"
        ),
    ]
    for key, value in change.tags:
        sql = Statement(dialect)
        queries.append(
            sql.query(
                f"INSERT INTO experiment_tags (key, value, experiment_id) SELECT {sql.text(key)}, {sql.text(value)},"
                f" experiment_id FROM experiments WHERE workspace = 'default' AND name = {sql.bind(change.name)}"
            )
        )
    return queries


def _set_experiment_tag(change: base.SetExperimentTag, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.set_experiment_tag."""
    sql = Statement(dialect)
    key, value = sql.text(change.key), sql.text(change.value)
    return [
        sql.query(
            f"INSERT INTO experiment_tags (key, value, experiment_id) SELECT {key}, {value}, experiment_id"
            f" FROM experiments WHERE experiment_id = {sql.bind(change.experiment_id)} AND lifecycle_stage = 'active'"
            " ON CONFLICT (key, experiment_id) DO UPDATE SET value = excluded.value RETURNING 1"
        )
    ]


def _delete_experiment_tag(change: base.DeleteExperimentTag, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.delete_experiment_tag."""
    sql = Statement(dialect)
    experiment = sql.bind(change.experiment_id)
    return [
        sql.query(
            f"DELETE FROM experiment_tags WHERE experiment_id = {experiment} AND key = {sql.bind(change.key)}"
            f" AND EXISTS (SELECT 1 FROM experiments WHERE experiment_id = {experiment} AND lifecycle_stage = 'active')"
            " RETURNING 1"
        )
    ]


def _rename_experiment(change: base.RenameExperiment, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.rename_experiment."""
    sql = Statement(dialect)
    return [
        sql.query(
            f"UPDATE experiments SET name = {sql.bind(change.name)}, last_update_time = {sql.bind(change.now)}"
            f" WHERE experiment_id = {sql.bind(change.experiment_id)} AND lifecycle_stage = 'active' RETURNING 1"
        )
    ]


def _delete_experiment(change: base.DeleteExperiment, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.delete_experiment."""
    guard, runs = Statement(dialect), Statement(dialect)
    return [
        guard.query(
            f"UPDATE experiments SET lifecycle_stage = 'deleted', last_update_time = {guard.bind(change.now)}"
            f" WHERE experiment_id = {guard.bind(change.experiment_id)} AND lifecycle_stage = 'active'"
            f" AND {_no_assessments(guard, '%')} RETURNING 1"
        ),
        runs.query(
            f"UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = {runs.bind(change.now)}"
            f" WHERE experiment_id = {runs.bind(change.experiment_id)}"
        ),
    ]


def _restore_experiment(change: base.RestoreExperiment, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.restore_experiment."""
    guard, runs = Statement(dialect), Statement(dialect)
    return [
        guard.query(
            f"UPDATE experiments SET lifecycle_stage = 'active', last_update_time = {guard.bind(change.now)}"
            f" WHERE experiment_id = {guard.bind(change.experiment_id)} AND lifecycle_stage = 'deleted' RETURNING 1"
        ),
        runs.query(
            "UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL"
            f" WHERE experiment_id = {runs.bind(change.experiment_id)}"
        ),
    ]


def _delete_run(change: base.DeleteRun, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.delete_run."""
    sql = Statement(dialect)
    return [
        sql.query(
            f"UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = {sql.bind(change.now)}"
            f" WHERE run_uuid = {sql.bind(change.run_id)} AND {_no_assessments(sql, change.run_id)} RETURNING 1"
        )
    ]


def _restore_run(change: base.RestoreRun, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.restore_run."""
    sql = Statement(dialect)
    return [
        sql.query(
            "UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL"
            f" WHERE run_uuid = {sql.bind(change.run_id)} RETURNING 1"
        )
    ]


def _log_inputs(change: base.LogInputs, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.log_inputs."""
    queries = [_active_run(change.run_id, dialect)]
    for model_id in sorted(set(change.model_ids)):
        link = _Link("RUN_INPUT", change.run_id, "MODEL_INPUT", model_id)
        # stock's session.merge gives a link that is there a new input_uuid
        again = "ON CONFLICT (source_type, source_id, destination_type, destination_id)"
        queries.append(link.insert(dialect, f" {again} DO UPDATE SET input_uuid = excluded.input_uuid"))
    # one order for all, so that two runs that log the same datasets don't wait for each other in a circle
    for given in sorted(change.datasets, key=lambda given: (given.dataset.name, given.dataset.digest)):
        queries += _log_dataset(change.run_id, given, dialect)
    return queries


def _log_outputs(change: base.LogOutputs, dialect: Dialect) -> list[Query]:
    """SqlAlchemyStore.log_outputs. A model that the run has violates the primary key, as it does with stock."""
    links = (_Link("RUN_OUTPUT", change.run_id, "MODEL_OUTPUT", *model) for model in sorted(change.models))
    return [_active_run(change.run_id, dialect), *(link.insert(dialect) for link in links)]


def _replace_tag(change: base.ReplaceTag, dialect: Dialect) -> list[Query]:
    """What SqlAlchemyStore.record_logged_model does when nobody comes in between."""
    sql = Statement(dialect)
    key, after = sql.text(change.key), sql.text(change.after)
    active = f"run_uuid = {sql.bind(change.run_id)} AND lifecycle_stage = 'active'"
    if change.before is None:
        text = (
            f"INSERT INTO tags (key, value, run_uuid) SELECT {key}, {after}, run_uuid FROM runs WHERE {active}"
            " ON CONFLICT (key, run_uuid) DO NOTHING RETURNING 1"
        )
    else:
        text = (
            f"UPDATE tags SET value = {after} WHERE run_uuid = (SELECT run_uuid FROM runs WHERE {active})"
            f" AND key = {key} AND value = {sql.text(change.before)} RETURNING 1"
        )
    return [sql.query(text)]


def _active_run(run_id: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    # the lock keeps the run from being deleted meanwhile; SQLite has but one writer
    lock = " FOR SHARE" if dialect is Dialect.POSTGRESQL else ""
    return sql.query(f"SELECT 1 FROM runs WHERE run_uuid = {sql.bind(run_id)} AND lifecycle_stage = 'active'{lock}")


class _Link(NamedTuple):
    """A row of `inputs`."""

    source_type: str
    source_id: str
    destination_type: str
    destination_id: str
    step: int = 0

    def insert(self, dialect: Dialect, conflict: str = "") -> Query:
        sql = Statement(dialect)
        values = ", ".join(sql.bind(value) for value in (uuid.uuid4().hex, *self))
        return sql.query(
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step)"
            f" VALUES ({values}){conflict}"
        )


def _log_dataset(run_id: str, given: DatasetInput, dialect: Dialect) -> list[Query]:
    dataset = given.dataset
    new, link = Statement(dialect), Statement(dialect)
    columns = ", ".join(
        new.text(value)
        for value in (
            uuid.uuid4().hex, dataset.name, dataset.digest, dataset.source_type, dataset.source, dataset.schema,
            dataset.profile,
        )
    )  # fmt: skip
    input_id = uuid.uuid4().hex
    queries = [
        new.query(
            "INSERT INTO datasets (dataset_uuid, name, digest, dataset_source_type, dataset_source, dataset_schema,"
            f" dataset_profile, experiment_id) SELECT {columns}, experiment_id FROM runs"
            f" WHERE run_uuid = {new.bind(run_id)} ON CONFLICT (experiment_id, name, digest) DO NOTHING"
        ),
        link.query(
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id)"
            f" SELECT {link.text(input_id)}, 'DATASET', d.dataset_uuid, 'RUN', r.run_uuid"
            " FROM runs r JOIN datasets d ON d.experiment_id = r.experiment_id"
            f" WHERE r.run_uuid = {link.bind(run_id)} AND d.name = {link.bind(dataset.name)}"
            f" AND d.digest = {link.bind(dataset.digest)}"
            " ON CONFLICT (source_type, source_id, destination_type, destination_id) DO NOTHING"
        ),
    ]
    for tag in given.tags:
        sql = Statement(dialect)
        queries.append(
            sql.query(
                f"INSERT INTO input_tags (input_uuid, name, value) SELECT input_uuid, {sql.text(tag.key)},"
                f" {sql.text(tag.value)} FROM inputs WHERE input_uuid = {sql.bind(input_id)}"
            )
        )
    return queries


def _no_assessments(sql: Statement, run_id: str) -> str:
    pattern = sql.bind(_ASSESSED.format(run_id))
    return f"NOT EXISTS (SELECT 1 FROM assessments WHERE assessment_metadata LIKE {pattern})"


_STATEMENTS: dict[type, Callable[[Any, Dialect], list[Query]]] = {
    base.SetExperimentTag: _set_experiment_tag,
    base.DeleteExperimentTag: _delete_experiment_tag,
    base.RenameExperiment: _rename_experiment,
    base.DeleteExperiment: _delete_experiment,
    base.RestoreExperiment: _restore_experiment,
    base.DeleteRun: _delete_run,
    base.RestoreRun: _restore_run,
    base.LogInputs: _log_inputs,
    base.LogOutputs: _log_outputs,
    base.ReplaceTag: _replace_tag,
}
