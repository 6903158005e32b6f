"""The filter and the order of datasets/search, and its SQL.

Rules: SearchEvaluationDatasetsUtils in mlflow/utils/search_utils.py; _get_search_datasets_filter_clauses and
_get_search_datasets_order_by_clauses in mlflow/store/tracking/sqlalchemy_store.py.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from headrace.api.search.ast import Comparator, Condition, KeysetValue, Kind
from headrace.api.search.parser import Comparison, number_text, parse, parse_order_by, string_value, whole_number
from headrace.api.search.sql import Key, after_keyset, compare, order_by
from headrace.api.search.stock_parser import Worded
from headrace.auth.objects import granted_dataset
from headrace.db.query import Dialect, Query, Statement
from headrace.errors import InvalidParameter
from headrace.resources.evaluation_datasets.sql import COLUMNS

_TIMES = ("created_time", "last_update_time")
_ATTRIBUTES = ("name", *_TIMES, "created_by", "last_updated_by")
_ORDERS = ("name", *_TIMES)
# They must be written in capitals.
_NUMBERS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_TEXTS = _NUMBERS | {"LIKE", "ILIKE", "RLIKE"}
_TAGS = frozenset({"=", "!=", "LIKE", "ILIKE"})


def parse_filter(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter. Raises InvalidParameter; Declined where the text is not in the grammar."""
    with Worded("SearchEvaluationDatasetsUtils.parse_search_filter", text):
        return parse(text, _condition)


def _condition(comparison: Comparison) -> Condition:
    prefix, dot, rest = comparison.name.partition(".")
    comparator, value = comparison.comparator, comparison.value
    if dot:
        if prefix != "tags":
            raise InvalidParameter(f"Invalid identifier token '{prefix}' specified")
        if comparator not in _TAGS:
            raise InvalidParameter(f"Invalid comparator for tag: {comparator}")
        return Condition(Kind.TAG, rest, cast(Comparator, comparator), string_value(value))
    key = _attribute(prefix, _ATTRIBUTES)
    allowed = _NUMBERS if key in _TIMES else _TEXTS
    if isinstance(value, tuple):
        if key != "name" or comparator != "IN":
            raise InvalidParameter("List values for 'name' are only supported with the IN comparator.")
        return Condition(Kind.ATTRIBUTE, key, "IN", value)
    if comparator not in allowed:
        kind = "numeric" if key in _TIMES else "string"
        raise InvalidParameter(f"Invalid comparator for {kind} attribute: {comparator}")
    compared = whole_number(number_text(value), key) if key in _TIMES else string_value(value)
    return Condition(Kind.ATTRIBUTE, key, cast(Comparator, comparator), compared)


def _attribute(key: str, known: Sequence[str]) -> str:
    if key not in known:
        raise InvalidParameter(f"Invalid attribute key '{key}' specified. Valid keys are: {set(known)}")
    return key


def parse_order(clauses: Sequence[str]) -> list[Key]:
    """The whole order; the last key is the id. Raises InvalidParameter, Declined."""
    keys: dict[str, Key] = {}
    with Worded("SearchEvaluationDatasetsUtils.parse_order_by_for_search_evaluation_datasets", *clauses):
        for name, ascending in parse_order_by(clauses or ("created_time DESC",)):
            column = _attribute(name, _ORDERS)
            keys.setdefault(column, Key(f"d.{column}", ascending, str if column == "name" else int, nullable=False))
    return [*keys.values(), Key("d.dataset_id", ascending=False, type=str, nullable=False)]


def search(
    conditions: Sequence[Condition],
    order: Sequence[Key],
    experiment_ids: Sequence[str],
    limit: int,
    offset: int,
    after: Sequence[KeysetValue] | None,
    dialect: Dialect,
    workspace: str,
    grantees: Sequence[str] | None,
) -> Query:
    """The datasets of a page and one more: sql.COLUMNS, then the keys of the order.

    `grantees`: only those whose experiments are all granted.
    Raises BadPageToken, Declined.
    """
    sql = Statement(dialect)
    where = [f"d.workspace = {sql.bind(workspace)}", *granted_dataset(sql, "d.dataset_id", grantees)]
    if experiment_ids:
        where.append(
            sql.exists(
                "SELECT 1 FROM entity_associations a WHERE a.source_type = 'evaluation_dataset'"
                " AND a.source_id = d.dataset_id AND a.destination_type = 'experiment'"
                f" AND {sql.in_list('a.destination_id', experiment_ids)}"
            )
        )
    for condition in conditions:
        if condition.kind is Kind.ATTRIBUTE:
            where.append(compare(sql, f"d.{condition.key}", condition))
        else:
            where.append(
                sql.exists(
                    "SELECT 1 FROM evaluation_dataset_tags t WHERE t.dataset_id = d.dataset_id"
                    f" AND t.key = {sql.bind(condition.key)} AND {compare(sql, 't.value', condition)}"
                )
            )
    if after is not None:
        where.append(after_keyset(sql, order, after))
    text = (
        f"SELECT {COLUMNS}, {', '.join(key.expression for key in order)} FROM evaluation_datasets d"
        f" WHERE {' AND '.join(where)} ORDER BY {', '.join(map(order_by, order))} LIMIT {sql.bind(limit + 1)}"
    )
    if after is None and offset:
        text += f" OFFSET {sql.bind(offset)}"
    return sql.query(text, replanned=True)
