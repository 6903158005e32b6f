"""A search -> one statement with parameters, for PostgreSQL and for SQLite. No value is ever part of the text.

The statement finds the rows of a page, with the values that they are ordered by. It orders and filters as
_get_orderby_clauses and _get_sqlalchemy_filter_clauses of mlflow/store/tracking/sqlalchemy_store.py do; its conditions
are EXISTS where MLflow joins, so that a row never comes twice.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

from headrace.api.search.ast import Condition, ExperimentSearch, KeyValue, Kind, OrderBy, RunSearch
from headrace.api.search.page_token import BadPageToken
from headrace.db.run_rows import RUN_COLUMNS
from headrace.errors import Declined

# SQLite refuses patterns of more than 50,000 bytes (SQLITE_MAX_LIKE_PATTERN_LENGTH); no value in MLflow is as long.
_MAX_PATTERN_LENGTH = 12_500

_TABLES = {Kind.METRIC: "latest_metrics", Kind.PARAM: "params", Kind.TAG: "tags"}
_RUN_INFO = ", ".join(f"r.{column}" for column in RUN_COLUMNS)
EXPERIMENT_COLUMNS = (
    "e.experiment_id, e.name, e.artifact_location, e.lifecycle_stage, e.creation_time, e.last_update_time, e.workspace"
)
EXPERIMENT_WIDTH = EXPERIMENT_COLUMNS.count(",") + 1
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


class Dialect(Enum):
    POSTGRESQL = "$"
    SQLITE = "?"


class Query(NamedTuple):
    """A statement and its parameters. `replanned`: the best plan depends much on what these are."""

    text: str
    values: list[Any]
    replanned: bool = False


class _Key(NamedTuple):
    """One expression of the order. NULLs come last; a key that is never NULL is cheaper to go on from.

    `constant`: all rows that the statement can find have the same.
    """

    expression: str
    ascending: bool
    type: type
    nullable: bool
    constant: bool = False


def begins_with_numbers(search: RunSearch) -> bool:
    """Whether the page begins with runs that have a number for the metric that comes first in the order.

    They come before those where it is NaN or was not logged, so where they fill the page, no others need be looked at.
    """
    at_the_start = not search.offset if search.after is None else search.after[:1] == (0,)
    return at_the_start and search.order[0].kind is Kind.METRIC


def search_runs(
    search: RunSearch,
    dialect: Dialect,
    seen_by: Sequence[str] | None = None,
    *,
    numbers: bool = False,
    rarest: Condition | None = None,
) -> Query:
    """The runs of a page and one more, in order. Columns: RUN_COLUMNS, then the keys that `RunSearch.after` takes.

    `numbers`: only those with a number for the metric that comes first in the order (see begins_with_numbers).
    `rarest`: for SQLite, which has no statistics: a condition that few runs meet, so that these are looked up, where
    else one run after the other is looked at until the page is full.

    Raises:
        BadPageToken: `after` does not fit the order.
        Declined: the database would refuse the statement.
    """
    sql = Statement(dialect)
    joins, keys = _keys(sql, search.order, numbers)
    # with a plus the column stands for no index: SQLite must come to the runs by the list of the rarest condition
    plus = "+" if rarest else ""
    where = [
        sql.one_of(f"{plus}r.experiment_id", search.experiment_ids, "int"),
        sql.one_of("r.lifecycle_stage", search.stages),
        *(_run_condition(sql, condition, rarest) for condition in search.conditions),
        *granted(sql, "r.experiment_id", seen_by),
    ]
    if search.after is not None:
        where.append(_behind(sql, keys, search.after))
    text = (
        f"SELECT {_RUN_INFO}, {', '.join(key.expression for key in keys)} FROM runs r {' '.join(joins)}"
        f" WHERE {' AND '.join(where)} ORDER BY {', '.join(_order(key) for key in keys if not key.constant)}"
        f" LIMIT {sql.bind(search.max_results + 1)}"
    )
    if search.after is None and search.offset:
        text += f" OFFSET {sql.bind(search.offset)}"
    return sql.query(text, replanned=True)


def indexed(search: RunSearch) -> list[Condition]:
    """The conditions that headrace_latest_metrics_value knows the runs of."""
    return [one for one in search.conditions if one.kind is Kind.METRIC and one.comparator != "!="]


def how_many_runs(dialect: Dialect) -> Query:
    """One row: about how many runs there are, in SQLite."""
    return Statement(dialect).query("SELECT coalesce(max(rowid), 0) FROM runs")


def how_many(condition: Condition, most: int, dialect: Dialect) -> Query:
    """One row: how many runs meet a condition of `indexed`, counted up to `most`. An index knows it."""
    sql = Statement(dialect)
    found = f"SELECT 1 FROM latest_metrics f WHERE {_data_condition(sql, condition)} LIMIT {sql.bind(most)}"
    return sql.query(f"SELECT count(*) FROM ({found}) AS found")


def next_page(rows: Sequence[Sequence[Any]], max_results: int, width: int) -> tuple[KeyValue, ...] | None:
    """`after` of the next page, from the rows of this one; None where it is the last. Keys follow `width` columns."""
    return tuple(rows[max_results - 1])[width:] if len(rows) > max_results else None


def search_experiments(search: ExperimentSearch, dialect: Dialect, seen_by: Sequence[str] | None = None) -> Query:
    """The experiments of a page and one more, in order. Columns: EXPERIMENT_COLUMNS, then the keys of the order.

    Raises:
        BadPageToken: `after` does not fit the order.
        Declined: the database would refuse the statement.
    """
    sql = Statement(dialect)
    keys = [_experiment_key(by, dialect) for by in search.order]
    where = [
        sql.one_of("e.lifecycle_stage", search.stages),
        *(_experiment_condition(sql, condition) for condition in search.conditions),
        *granted(sql, "e.experiment_id", seen_by),
    ]
    if search.after is not None:
        where.append(_behind(sql, keys, search.after))
    text = (
        f"SELECT {EXPERIMENT_COLUMNS}, {', '.join(key.expression for key in keys)} FROM experiments e"
        f" WHERE {' AND '.join(where)} ORDER BY {', '.join(_order(key) for key in keys)}"
        f" LIMIT {sql.bind(search.max_results + 1)}"
    )
    if search.after is None and search.offset:
        text += f" OFFSET {sql.bind(search.offset)}"
    return sql.query(text, replanned=True)


def granted(sql: Statement, column: str, seen_by: Sequence[str] | None, kind: str = "experiment") -> list[str]:
    """That a row's experiment, or model, is granted to one of these (see Store.seen_by); no condition for None."""
    if seen_by is None:
        return []
    key = "CAST(object AS integer)" if kind == "experiment" else "object"
    where = f"kind = {sql.bind(kind)} AND {sql.one_of('grantee', seen_by)}"
    return [f"{column} IN (SELECT {key} FROM headrace_grants WHERE {where})"]


class Statement:
    """The parameters of a statement that is being written, and what its dialect says otherwise."""

    def __init__(self, dialect: Dialect) -> None:
        self.values: list[Any] = []
        self.dialect = dialect

    def query(self, text: str, replanned: bool = False) -> Query:
        return Query(text, self.values, replanned)

    def bind(self, value: Any) -> str:
        """A placeholder for the value."""
        self.values.append(value)
        return f"{self.dialect.value}{len(self.values)}"

    def text(self, value: str | None) -> str:
        """A placeholder where the database can't see the type from the column that it goes to."""
        return self.bind(value) + ("::varchar" if self.dialect is Dialect.POSTGRESQL else "")

    def one_of(self, column: str, values: Sequence[str | int], type_name: str = "varchar") -> str:
        if len(values) == 1:  # an index on more columns then gives the order, too
            return f"{column} = {self.bind(values[0])}"
        if self.dialect is Dialect.SQLITE:
            return f"{column} IN (SELECT value FROM json_each({self.bind(json.dumps(values))}))"
        return f"{column} = ANY({self.bind(list(values))}::{type_name}[])"

    def compare(self, column: str, condition: Condition) -> str:
        """`column` against the value of a condition, with MLflow's comparators."""
        value, comparator = condition.value, condition.comparator
        if isinstance(value, tuple):
            membership = self.one_of(column, value, "int" if isinstance(value[0], int) else "varchar")
            return membership if comparator == "IN" else f"NOT ({membership})"
        if comparator in ("LIKE", "ILIKE"):
            return self._like(column, comparator, str(value))
        cast = "::float8" if isinstance(value, float) and self.dialect is Dialect.POSTGRESQL else ""
        return f"{column} {comparator} {self.bind(value)}{cast}"

    def _like(self, column: str, comparator: str, pattern: str) -> str:
        if len(pattern) > _MAX_PATTERN_LENGTH:
            raise Declined("a pattern that SQLite refuses")
        if self.dialect is Dialect.SQLITE:
            # stock sets case_sensitive_like, too; SQLAlchemy writes ILIKE this way
            if comparator == "ILIKE":
                return f"lower({column}) LIKE lower({self.bind(pattern)})"
            return f"{column} LIKE {self.bind(pattern)}"
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise Declined("a pattern that PostgreSQL refuses: it ends with the escape character")
        return f"{column} {comparator} {self.bind(pattern)}"


def _experiment_key(by: OrderBy, dialect: Dialect) -> _Key:
    """MLflow leaves NULLs where the database puts them: PostgreSQL behind all else when it ascends, SQLite before."""
    is_time = by.key.endswith("_time")
    nulls_last = is_time and by.ascending == (dialect is Dialect.POSTGRESQL)
    return _Key(f"e.{by.key}", by.ascending, str if by.key == "name" else int, nulls_last)


def _run_condition(sql: Statement, condition: Condition, rarest: Condition | None) -> str:
    if condition.kind is Kind.DATASET:
        return _dataset_condition(sql, condition)
    if condition.kind is Kind.ATTRIBUTE:
        if condition.key != "run_name":
            return sql.compare(_ATTRIBUTES[condition.key], condition)
        # runs of MLflow before 1.30 have their name in the tag alone
        condition = Condition(Kind.TAG, "mlflow.runName", condition.comparator, condition.value)
    table = _TABLES[condition.kind]
    if condition == rarest:
        return f"r.run_uuid IN (SELECT f.run_uuid FROM {table} f WHERE {_data_condition(sql, condition)})"
    found = f"EXISTS (SELECT 1 FROM {table} f WHERE f.run_uuid = r.run_uuid AND {_data_condition(sql, condition)})"
    return f"NOT {found}" if condition.comparator == "IS NULL" else found


def _data_condition(sql: Statement, condition: Condition) -> str:
    """That `f` is a row with the key of a condition, and a value that meets it; with IS [NOT] NULL any value does."""
    key = f"f.key = {sql.bind(condition.key)}"
    if condition.comparator in ("IS NULL", "IS NOT NULL"):
        return key
    comparison = sql.compare("f.value", condition)
    if condition.kind is Kind.METRIC:
        # NaN is stored as 0 with is_nan, and is unequal to everything
        comparison = f"({comparison} OR f.is_nan)" if condition.comparator == "!=" else f"{comparison} AND NOT f.is_nan"
    return f"{key} AND {comparison}"


def _dataset_condition(sql: Statement, condition: Condition) -> str:
    found = (
        "EXISTS (SELECT 1 FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id{} "
        "WHERE i.destination_id = r.run_uuid AND {})"
    )
    if condition.key == "context":
        tags = " JOIN input_tags g ON g.input_uuid = i.input_uuid AND g.name = 'mlflow.data.context'"
        return found.format(tags, sql.compare("g.value", condition))
    return found.format("", sql.compare(_DATASET_COLUMNS[condition.key], condition))


def _experiment_condition(sql: Statement, condition: Condition) -> str:
    if condition.kind is Kind.ATTRIBUTE:
        return sql.compare(f"e.{condition.key}", condition)
    found = (
        "EXISTS (SELECT 1 FROM experiment_tags f"
        f" WHERE f.experiment_id = e.experiment_id AND f.key = {sql.bind(condition.key)}"
    )
    if condition.comparator == "IS NULL":
        return f"NOT {found})"
    if condition.comparator == "IS NOT NULL":
        return f"{found})"
    return f"{found} AND {sql.compare('f.value', condition)})"


def _keys(sql: Statement, order: Sequence[OrderBy], numbers: bool) -> tuple[list[str], list[_Key]]:
    """The joins that the order needs, and its keys."""
    joins: list[str] = []
    keys: list[_Key] = []
    for number, by in enumerate(order):
        if by.kind is Kind.ATTRIBUTE:
            # MLflow can't show a run without start_time: its NULLs are of no consequence, and an index can serve
            nullable = by.key not in ("run_id", "start_time")
            kind = int if by.key.endswith("_time") else str
            keys.append(_Key(_ATTRIBUTES[by.key], by.ascending, kind, nullable))
            continue
        table = f"o{number}"
        on = f"{_TABLES[by.kind]} {table} ON {table}.run_uuid = r.run_uuid AND {table}.key = {sql.bind(by.key)}"
        if numbers and number == 0:
            # an index on (key, value) can give this order
            joins.append(f"JOIN {on} AND NOT {table}.is_nan")
            keys += [_Key("0", True, int, False, constant=True), _Key(f"{table}.value", by.ascending, float, False)]
            continue
        joins.append(f"LEFT JOIN {on}")
        if by.kind is Kind.METRIC:
            state = f"CASE WHEN {table}.is_nan THEN 1 WHEN {table}.value IS NULL THEN 2 ELSE 0 END"
            keys.append(_Key(state, True, int, False))
        keys.append(_Key(f"{table}.value", by.ascending, float if by.kind is Kind.METRIC else str, True))
    return joins, keys


def _order(key: _Key) -> str:
    return f"{key.expression} {'ASC' if key.ascending else 'DESC'}{' NULLS LAST' if key.nullable else ''}"


def _behind(sql: Statement, keys: Sequence[_Key], after: Sequence[KeyValue]) -> str:
    """That a row comes behind the one with these keys."""
    if len(keys) != len(after):
        raise BadPageToken("The page_token does not fit the order_by of this search.")
    condition = ""
    for key, value in zip(reversed(keys), reversed(after), strict=True):
        _check(key, value)
        if key.constant:
            continue
        if value is None:
            behind, equal = "FALSE", f"{key.expression} IS NULL"
        else:
            cast = "::float8" if key.type is float and sql.dialect is Dialect.POSTGRESQL else ""
            parameter = sql.bind(value) + cast
            sign = ">" if key.ascending else "<"
            equal = f"{key.expression} = {parameter}"
            behind = f"{key.expression} {sign} {parameter}"
            if key.nullable:
                behind = f"({behind} OR {key.expression} IS NULL)"
        condition = f"({behind} OR ({equal} AND {condition}))" if condition else behind
    first, value = next((key, value) for key, value in zip(keys, after, strict=True) if not key.constant)
    if len(keys) > 1 and not first.nullable:
        # says nothing new, but is a range that an index can begin at
        condition = f"{first.expression} {'>' if first.ascending else '<'}= {sql.bind(value)} AND {condition}"
    return condition


def _check(key: _Key, value: KeyValue) -> None:
    fits = value is None if value is None else isinstance(value, key.type) or (key.type is float and type(value) is int)
    if isinstance(value, bool) or not fits or (value is None and not key.nullable):
        raise BadPageToken("The page_token does not fit the order_by of this search.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadPageToken("The page_token holds a number beyond 64 bits.")
