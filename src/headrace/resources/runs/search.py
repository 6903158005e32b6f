"""The filter and the order_by clauses of runs/search.

Rules: SearchUtils in mlflow/utils/search_utils.py; _get_sqlalchemy_filter_clauses and _get_orderby_clauses in
mlflow/store/tracking/sqlalchemy_store.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from headrace.api.search.ast import Comparator, Condition, Kind, OrderBy, Value
from headrace.api.search.parser import (
    Comparison,
    comparable,
    named_twice,
    number_text,
    parse,
    parse_order_by,
    split_name,
    string_value,
    strip_backticks,
)
from headrace.api.search.stock_parser import Worded
from headrace.errors import Declined, InvalidParameter

_PREFIXES = {
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), Kind.ATTRIBUTE),
    **dict.fromkeys(("metric", "metrics"), Kind.METRIC),
    **dict.fromkeys(("parameter", "parameters", "param", "params"), Kind.PARAM),
    **dict.fromkeys(("tag", "tags"), Kind.TAG),
    **dict.fromkeys(("dataset", "datasets"), Kind.DATASET),
}
# translate_key_alias, which MLflow applies to keys of every kind: it takes metrics.created for metrics.start_time.
_ALIASES = {
    **dict.fromkeys(("created", "Created"), "start_time"),
    **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
}
_ATTRIBUTES = ("run_id", "run_name", "user_id", "status", "start_time", "end_time", "artifact_uri")
_ORDERABLE = frozenset({*_ATTRIBUTES, "created", "Created"})
_SEARCHABLE = frozenset({*_ATTRIBUTES, *_ALIASES})
_DATASET_KEYS = frozenset({"name", "digest", "context"})
_TIMES = frozenset({"start_time", "end_time"})

_NUMBER_COMPARATORS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_STRING_COMPARATORS = frozenset({"=", "!=", "LIKE", "ILIKE"})
_LIST_COMPARATORS = frozenset({"IN", "NOT IN"})
_NULL_COMPARATORS = frozenset({"IS NULL", "IS NOT NULL"})


def parse_filter(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter on runs; raises what parser.parse does."""
    with Worded("SearchUtils.parse_search_filter", text):
        return parse(text, _condition)


def parse_order(clauses: Sequence[str]) -> tuple[OrderBy, ...]:
    """The whole order: the clauses, then the newest run first, then by run id. The last key is always run_id.

    Raises:
        InvalidParameter: more clauses than one order_by may have, or two for one key.
        Declined: MLflow refuses a clause, or it isn't certain how MLflow reads it.
    """
    with Worded("SearchUtils.parse_order_by_for_search_runs", *clauses):
        keys = [_order_by(name, ascending) for name, ascending in parse_order_by(clauses)]
    if len({(key.kind, key.key) for key in keys}) < len(keys):
        raise named_twice(clauses)
    if not any(key.kind is Kind.ATTRIBUTE and key.key == "start_time" for key in keys):
        keys.append(OrderBy(Kind.ATTRIBUTE, "start_time", ascending=False))
    keys.append(OrderBy(Kind.ATTRIBUTE, "run_id"))
    # Run ids are unique: what comes behind the first of them changes nothing.
    by_id = next(i for i, key in enumerate(keys) if key.kind is Kind.ATTRIBUTE and key.key == "run_id")
    return tuple(keys[: by_id + 1])


def _resolve(name: str, attributes: frozenset[str]) -> tuple[Kind, str]:
    prefix, key = split_name(name)
    kind = Kind.ATTRIBUTE if prefix is None else _PREFIXES.get(strip_backticks(prefix))
    if kind is None:
        raise Declined(f"no prefix {prefix!r} on runs")
    if kind is Kind.ATTRIBUTE and key not in attributes:
        raise Declined(f"no attribute {key!r} on runs")
    if kind is Kind.DATASET and key not in _DATASET_KEYS:
        raise Declined(f"no attribute {key!r} on datasets")
    return kind, _ALIASES.get(key, key)


def _condition(comparison: Comparison) -> Condition:
    kind, key = _resolve(comparison.name, _SEARCHABLE)
    comparator = comparison.comparator.upper()
    if comparator not in _comparators(kind, key):
        raise InvalidParameter(f"Invalid comparator '{comparator}' for {kind.value} '{key}'.")
    return Condition(kind, key, cast(Comparator, comparator), _convert(kind, key, comparison))


def _comparators(kind: Kind, key: str) -> frozenset[str]:
    if kind is Kind.METRIC or (kind is Kind.ATTRIBUTE and key in _TIMES):
        return _NUMBER_COMPARATORS
    if kind in (Kind.PARAM, Kind.TAG):
        return _STRING_COMPARATORS | _NULL_COMPARATORS
    if kind is Kind.DATASET or key == "run_id":
        return _STRING_COMPARATORS | _LIST_COMPARATORS
    return _STRING_COMPARATORS


def _convert(kind: Kind, key: str, comparison: Comparison) -> Value:
    value = comparison.value
    if value is None or isinstance(value, tuple):
        return value
    if kind is Kind.METRIC:
        return float(number_text(value))
    if kind is Kind.ATTRIBUTE and key in _TIMES:
        return comparable(number_text(value))
    return string_value(value)


def _order_by(name: str, ascending: bool) -> OrderBy:
    kind, key = _resolve(name, _ORDERABLE)
    if kind is Kind.DATASET:
        raise Declined("runs can't be ordered by their datasets")
    return OrderBy(kind, key, ascending)
