"""The statements of experiments, for both dialects. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.search.ast import Condition, ExperimentSearch, Kind, OrderBy
from headrace.api.search.sql import Key, after_keyset, compare, order_by
from headrace.auth.objects import granted
from headrace.db.query import Dialect, Query, Sql, Statement

EXPERIMENT_COLUMNS = (
    "e.experiment_id, e.name, e.artifact_location, e.lifecycle_stage, e.creation_time, e.last_update_time, e.workspace"
)
EXPERIMENT_WIDTH = EXPERIMENT_COLUMNS.count(",") + 1


_WITH_TAGS = f"""
SELECT {EXPERIMENT_COLUMNS}, t.key, t.value FROM experiments e
LEFT JOIN experiment_tags t ON t.experiment_id = e.experiment_id
WHERE e.workspace = :workspace AND e.lifecycle_stage IN ('active', 'deleted')
"""
# EXPERIMENT_COLUMNS, key and value of a tag: one row per tag, or one without (SqlAlchemyStore.get_experiment).
GET = Sql(f"{_WITH_TAGS} AND e.experiment_id = :experiment_id")
GET_BY_NAME = Sql(f"{_WITH_TAGS} AND e.name = :name")
IN_WORKSPACE = Sql("""
SELECT experiment_id FROM experiments WHERE workspace = :workspace AND experiment_id IN :experiment_ids
""")
ROOT_OF_WORKSPACE = Sql("SELECT default_artifact_root FROM workspaces WHERE name = :workspace")
STAGE = Sql("""
SELECT lifecycle_stage FROM experiments WHERE workspace = :workspace AND experiment_id = :experiment_id
""")

CREATE = Sql("""
INSERT INTO experiments (name, lifecycle_stage, creation_time, last_update_time, workspace, artifact_location)
VALUES (:name, 'active', :now, :now, :workspace, :artifact_location) RETURNING experiment_id
""")
LOCATE = Sql("""
UPDATE experiments SET artifact_location = CAST(:root AS varchar) || CAST(experiment_id AS varchar)
WHERE workspace = :workspace AND name = :name
""")
TAG_NEW = Sql("""
INSERT INTO experiment_tags (key, value, experiment_id)
SELECT CAST(:key AS varchar), CAST(:value AS varchar), experiment_id FROM experiments
WHERE workspace = :workspace AND name = :name
""")
GRANT_NEW = Sql("""
INSERT INTO headrace_grants (grantee, kind, object, permission)
SELECT CAST(:grantee AS varchar), 'experiment', CAST(experiment_id AS varchar), 'manage' FROM experiments
WHERE workspace = :workspace AND name = :name
ON CONFLICT (grantee, kind, object) DO UPDATE SET permission = 'manage'
""")
# SQLite gives the number of an experiment that was removed (`mlflow gc`) to the next one.
GRANTS_OF_REMOVED = Sql("""
SELECT 1 FROM headrace_grants
WHERE kind = 'experiment' AND CAST(object AS integer) NOT IN (SELECT experiment_id FROM experiments) LIMIT 1
""")
DROP_GRANTS_OF_REMOVED = Sql("""
DELETE FROM headrace_grants
WHERE kind = 'experiment' AND CAST(object AS integer) NOT IN (SELECT experiment_id FROM experiments)
""")
SET_TAG = Sql("""
INSERT INTO experiment_tags (key, value, experiment_id)
SELECT CAST(:key AS varchar), CAST(:value AS varchar), experiment_id FROM experiments
WHERE workspace = :workspace AND experiment_id = :experiment_id AND lifecycle_stage = 'active'
ON CONFLICT (key, experiment_id) DO UPDATE SET value = excluded.value RETURNING 1
""")
DELETE_TAG = Sql("""
DELETE FROM experiment_tags WHERE experiment_id = :experiment_id AND key = :key AND EXISTS (
  SELECT 1 FROM experiments
  WHERE workspace = :workspace AND experiment_id = :experiment_id AND lifecycle_stage = 'active') RETURNING 1
""")
RENAME = Sql("""
UPDATE experiments SET name = :name, last_update_time = :now
WHERE workspace = :workspace AND experiment_id = :experiment_id AND lifecycle_stage = 'active' RETURNING 1
""")
DELETE = Sql("""
UPDATE experiments SET lifecycle_stage = 'deleted', last_update_time = :now
WHERE workspace = :workspace AND experiment_id = :experiment_id AND lifecycle_stage = 'active' RETURNING 1
""")
DELETE_RUNS = Sql("""
UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = :now
WHERE experiment_id = :experiment_id AND coalesce(deleted_time, 1) <> 0
""")
RESTORE = Sql("""
UPDATE experiments SET lifecycle_stage = 'active', last_update_time = :now
WHERE workspace = :workspace AND experiment_id = :experiment_id AND lifecycle_stage = 'deleted'
  AND coalesce(last_update_time, 1) <> 0 RETURNING 1
""")  # 0: gc is at it
RESTORE_RUNS = Sql("""
UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL
WHERE experiment_id = :experiment_id AND coalesce(deleted_time, 1) <> 0
""")


def experiment_tags(experiment_ids: Sequence[int], dialect: Dialect) -> Query:
    """(experiment_id, key, value), in no order."""
    sql = Statement(dialect)
    where = sql.in_list("experiment_id", experiment_ids, "int")
    return sql.query(f"SELECT experiment_id, key, value FROM experiment_tags WHERE {where}")


def search_experiments(
    search: ExperimentSearch, dialect: Dialect, workspace: str, grantees: Sequence[str] | None
) -> Query:
    """The experiments of a page and one more, in order. Columns: EXPERIMENT_COLUMNS, then the keys of the order.

    Raises:
        BadPageToken: `after` does not fit the order.
        Declined: the database would refuse the statement.
    """
    sql = Statement(dialect)
    keys = [_experiment_key(by, dialect) for by in search.order]
    where = [
        f"e.workspace = {sql.bind(workspace)}",
        sql.in_list("e.lifecycle_stage", search.stages),
        *(_experiment_condition(sql, condition) for condition in search.conditions),
        *granted(sql, "e.experiment_id", grantees),
    ]
    if search.after is not None:
        where.append(after_keyset(sql, keys, search.after))
    text = (
        f"SELECT {EXPERIMENT_COLUMNS}, {', '.join(key.expression for key in keys)} FROM experiments e"
        f" WHERE {' AND '.join(where)} ORDER BY {', '.join(order_by(key) for key in keys)}"
        f" LIMIT {sql.bind(search.max_results + 1)}"
    )
    if search.after is None and search.offset:
        text += f" OFFSET {sql.bind(search.offset)}"
    return sql.query(text, replanned=True)


def _experiment_key(by: OrderBy, dialect: Dialect) -> Key:
    """MLflow leaves NULLs where the database puts them: PostgreSQL behind all else when it ascends, SQLite before."""
    is_time = by.key.endswith("_time")
    nulls_last = is_time and by.ascending == (dialect is Dialect.POSTGRESQL)
    return Key(f"e.{by.key}", by.ascending, str if by.key == "name" else int, nulls_last)


def _experiment_condition(sql: Statement, condition: Condition) -> str:
    if condition.kind is Kind.ATTRIBUTE:
        return compare(sql, f"e.{condition.key}", condition)
    found = (
        f"SELECT 1 FROM experiment_tags f WHERE f.experiment_id = e.experiment_id AND f.key = {sql.bind(condition.key)}"
    )
    if condition.comparator == "IS NULL":
        return f"NOT {sql.exists(found)}"
    if condition.comparator == "IS NOT NULL":
        return sql.exists(found)
    return sql.exists(f"{found} AND {compare(sql, 'f.value', condition)}")


def dataset_summaries(
    experiment_ids: Sequence[int], limit: int, dialect: Dialect, grantees: Sequence[str] | None = None
) -> Query:
    """(experiment_id, name, digest, context), in no order (SqlAlchemyStore._search_datasets)."""
    sql = Statement(dialect)
    where = [sql.in_list("d.experiment_id", experiment_ids, "int"), *granted(sql, "d.experiment_id", grantees)]
    return sql.query(
        "SELECT DISTINCT d.experiment_id, d.name, d.digest, t.value FROM datasets d"
        " JOIN inputs i ON i.source_id = d.dataset_uuid"
        " LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context'"
        f" WHERE {' AND '.join(where)} LIMIT {sql.bind(limit)}"
    )
