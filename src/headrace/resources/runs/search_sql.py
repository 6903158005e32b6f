"""A search -> one statement with parameters, for PostgreSQL and for SQLite. No value is ever part of the text.

The statement finds the rows of a page, with the values that they are ordered by. It orders and filters as
_get_orderby_clauses and _get_sqlalchemy_filter_clauses of mlflow/store/tracking/sqlalchemy_store.py do; its conditions
are EXISTS where MLflow joins, so that a row never comes twice.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.search.ast import Condition, Kind, OrderBy, RunSearch
from headrace.api.search.sql import Key, after_keyset, compare, order_by
from headrace.auth.objects import granted
from headrace.db.query import Dialect, Query, Statement
from headrace.resources.runs.rows import RUN_COLUMNS

_TABLES = {Kind.METRIC: "latest_metrics", Kind.PARAM: "params", Kind.TAG: "tags"}
_RUN_INFO = ", ".join(f"r.{column}" for column in RUN_COLUMNS)
_ATTRIBUTES = {
    "run_id": "r.run_uuid",
    "run_name": "r.name",
    "user_id": "r.user_id",
    "status": "r.status",
    "start_time": "r.start_time",
    "end_time": "r.end_time",
    "artifact_uri": "r.artifact_uri",
}
_DATASET_COLUMNS = {"name": "d.name", "digest": "d.digest"}


def orders_by_metric_first(search: RunSearch) -> bool:
    """Whether the page begins with runs that have a number for the metric that comes first in the order.

    They come before those where it is NaN or was not logged, so where they fill the page, no others need be looked at.
    """
    at_the_start = not search.offset if search.after is None else search.after[:1] == (0,)
    return at_the_start and search.order[0].kind is Kind.METRIC


def search_runs(
    search: RunSearch,
    dialect: Dialect,
    grantees: Sequence[str] | None = None,
    *,
    finite_values_only: bool = False,
    most_selective: Condition | None = None,
) -> Query:
    """The runs of a page and one more, in order. Columns: RUN_COLUMNS, then the keys that `RunSearch.after` takes.

    `finite_values_only`: only those with a number for the metric that comes first in the order (see
    orders_by_metric_first).
    `most_selective`: for SQLite, which has no statistics: a condition that few runs meet, so that these are looked
    up, where else one run after the other is looked at until the page is full.

    Raises:
        BadPageToken: `after` does not fit the order.
        Declined: the database would refuse the statement.
    """
    sql = Statement(dialect)
    joins, keys = _keys(sql, search.order, finite_values_only)
    # unary + keeps SQLite from using an index on this column: it must come to the runs by the most selective condition
    plus = "+" if most_selective else ""
    where = [
        sql.in_list(f"{plus}r.experiment_id", search.experiment_ids, "int"),
        sql.in_list("r.lifecycle_stage", search.stages),
        *(_run_condition(sql, condition, most_selective) for condition in search.conditions),
        *granted(sql, "r.experiment_id", grantees),
    ]
    if search.after is not None:
        where.append(after_keyset(sql, keys, search.after))
    text = (
        f"SELECT {_RUN_INFO}, {', '.join(key.expression for key in keys)} FROM runs r {' '.join(joins)}"
        f" WHERE {' AND '.join(where)} ORDER BY {', '.join(order_by(key) for key in keys if not key.constant)}"
        f" LIMIT {sql.bind(search.max_results + 1)}"
    )
    if search.after is None and search.offset:
        text += f" OFFSET {sql.bind(search.offset)}"
    return sql.query(text, replanned=True)


def indexed(search: RunSearch) -> list[Condition]:
    """The conditions that headrace_latest_metrics_value knows the runs of."""
    return [one for one in search.conditions if one.kind is Kind.METRIC and one.comparator != "!="]


def estimate_run_count(dialect: Dialect) -> Query:
    """One row: about how many runs there are, in SQLite."""
    return Statement(dialect).query("SELECT coalesce(max(rowid), 0) FROM runs")


def count_matching_runs(condition: Condition, most: int, dialect: Dialect) -> Query:
    """One row: how many runs meet a condition of `indexed`, counted up to `most`. An index knows it."""
    sql = Statement(dialect)
    found = f"SELECT 1 FROM latest_metrics f WHERE {_data_condition(sql, condition)} LIMIT {sql.bind(most)}"
    return sql.query(f"SELECT count(*) FROM ({found}) AS found")


def _run_condition(sql: Statement, condition: Condition, most_selective: Condition | None) -> str:
    if condition.kind is Kind.DATASET:
        return _dataset_condition(sql, condition)
    if condition.kind is Kind.ATTRIBUTE:
        if condition.key != "run_name":
            return compare(sql, _ATTRIBUTES[condition.key], condition)
        # runs of MLflow before 1.30 have their name in the tag alone
        condition = Condition(Kind.TAG, "mlflow.runName", condition.comparator, condition.value)
    table = _TABLES[condition.kind]
    if condition == most_selective:
        return f"r.run_uuid IN (SELECT f.run_uuid FROM {table} f WHERE {_data_condition(sql, condition)})"
    found = sql.exists(f"SELECT 1 FROM {table} f WHERE f.run_uuid = r.run_uuid AND {_data_condition(sql, condition)}")
    return f"NOT {found}" if condition.comparator == "IS NULL" else found


def _data_condition(sql: Statement, condition: Condition) -> str:
    """That `f` is a row with the key of a condition, and a value that meets it; with IS [NOT] NULL any value does."""
    key = f"f.key = {sql.bind(condition.key)}"
    if condition.comparator in ("IS NULL", "IS NOT NULL"):
        return key
    comparison = compare(sql, "f.value", condition)
    if condition.kind is Kind.METRIC:
        # NaN is stored as 0 with is_nan, and is unequal to everything
        comparison = f"({comparison} OR f.is_nan)" if condition.comparator == "!=" else f"{comparison} AND NOT f.is_nan"
    return f"{key} AND {comparison}"


def _dataset_condition(sql: Statement, condition: Condition) -> str:
    found = (
        "SELECT 1 FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id{} "
        "WHERE i.destination_id = r.run_uuid AND {}"
    )
    if condition.key == "context":
        tags = " JOIN input_tags g ON g.input_uuid = i.input_uuid AND g.name = 'mlflow.data.context'"
        return sql.exists(found.format(tags, compare(sql, "g.value", condition)))
    return sql.exists(found.format("", compare(sql, _DATASET_COLUMNS[condition.key], condition)))


def _keys(sql: Statement, order: Sequence[OrderBy], finite_values_only: bool) -> tuple[list[str], list[Key]]:
    """The joins that the order needs, and its keys."""
    joins: list[str] = []
    keys: list[Key] = []
    for number, by in enumerate(order):
        if by.kind is Kind.ATTRIBUTE:
            # MLflow can't show a run without start_time: its NULLs are of no consequence, and an index can serve
            nullable = by.key not in ("run_id", "start_time")
            kind = int if by.key.endswith("_time") else str
            keys.append(Key(_ATTRIBUTES[by.key], by.ascending, kind, nullable))
            continue
        table = f"o{number}"
        on = f"{_TABLES[by.kind]} {table} ON {table}.run_uuid = r.run_uuid AND {table}.key = {sql.bind(by.key)}"
        if finite_values_only and number == 0:
            # an index on (key, value) can give this order
            joins.append(f"JOIN {on} AND NOT {table}.is_nan")
            keys += [Key("0", True, int, False, constant=True), Key(f"{table}.value", by.ascending, float, False)]
            continue
        joins.append(f"LEFT JOIN {on}")
        if by.kind is Kind.METRIC:
            state = f"CASE WHEN {table}.is_nan THEN 1 WHEN {table}.value IS NULL THEN 2 ELSE 0 END"
            keys.append(Key(state, True, int, False))
        keys.append(Key(f"{table}.value", by.ascending, float if by.kind is Kind.METRIC else str, True))
    return joins, keys
