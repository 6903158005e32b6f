"""The filter and the order_by clauses of experiments/search.

Rules: SearchExperimentsUtils in mlflow/utils/search_utils.py; _get_search_experiments_filter_clauses and
_get_search_experiments_order_by_clauses in mlflow/store/tracking/sqlalchemy_store.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from headrace.api.search.ast import Comparator, Condition, Kind, OrderBy, Value
from headrace.api.search.parser import (
    Comparison,
    integer,
    number_text,
    parse,
    parse_order_by,
    split_name,
    string_value,
    whole_number,
)
from headrace.api.search.stock_parser import Worded
from headrace.errors import Declined, InvalidParameter

_PREFIXES = {None: Kind.ATTRIBUTE, "attribute": Kind.ATTRIBUTE, "tag": Kind.TAG, "tags": Kind.TAG}
_TIMES = frozenset({"creation_time", "last_update_time"})
_ATTRIBUTES = _TIMES | {"name", "experiment_id"}

# Unlike those of runs, these must be written in capitals.
_TIME_COMPARATORS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_ID_COMPARATORS = frozenset({"=", "!=", "IN", "NOT IN"})
_NAME_COMPARATORS = frozenset({"=", "!=", "LIKE", "ILIKE"})
_TAG_COMPARATORS = _NAME_COMPARATORS | {"IS NULL", "IS NOT NULL"}


def parse_filter(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter on experiments, those on experiment_id with ints; raises what parser.parse does."""
    with Worded("SearchExperimentsUtils.parse_search_filter", text):
        return parse(text, _condition)


def parse_order(clauses: Sequence[str]) -> tuple[OrderBy, ...]:
    """The whole order; the last key is always experiment_id; a key given twice counts where it comes first.

    NULLs stay where the database puts them: MLflow orders experiments without a rule for them.

    Raises:
        Declined: MLflow refuses a clause, or it isn't certain how MLflow reads it.
    """
    keys: dict[str, OrderBy] = {}
    with Worded("SearchExperimentsUtils.parse_order_by_for_search_experiments", *clauses):
        for name, ascending in parse_order_by(clauses or ("creation_time DESC", "experiment_id ASC")):
            kind, key = _resolve(name)
            if kind is not Kind.ATTRIBUTE:
                raise Declined("experiments can't be ordered by their tags")
            keys.setdefault(key, OrderBy(kind, key, ascending))
    keys.setdefault("experiment_id", OrderBy(Kind.ATTRIBUTE, "experiment_id", ascending=False))
    order = list(keys.values())
    return tuple(order[: list(keys).index("experiment_id") + 1])


def _resolve(name: str) -> tuple[Kind, str]:
    prefix, key = split_name(name)
    kind = _PREFIXES.get(prefix)
    if kind is None or (kind is Kind.ATTRIBUTE and key not in _ATTRIBUTES):
        raise Declined(f"no {name[:80]!r} on experiments")
    return kind, key


def _condition(comparison: Comparison) -> Condition:
    kind, key = _resolve(comparison.name)
    allowed, value = _convert(kind, key, comparison)
    if comparison.comparator not in allowed:
        raise InvalidParameter(f"Invalid comparator '{comparison.comparator}' for {kind.value} '{key}'.")
    return Condition(kind, key, cast(Comparator, comparison.comparator), value)


def _convert(kind: Kind, key: str, comparison: Comparison) -> tuple[frozenset[str], Value]:
    """The comparators that the key takes, and the value."""
    value = comparison.value
    if kind is Kind.TAG:
        return _TAG_COMPARATORS, None if value is None else string_value(value)
    if key in _TIMES:
        return _TIME_COMPARATORS, whole_number(number_text(value), key)
    if key == "name":
        return _NAME_COMPARATORS, string_value(value)
    if comparison.comparator in ("IN", "NOT IN"):
        return _ID_COMPARATORS, tuple(_experiment_id(item) for item in cast(tuple[str, ...], value))
    return _ID_COMPARATORS, _experiment_id(string_value(value))


def _experiment_id(text: str) -> int:
    number = integer(text)
    if not -(2**31) <= number < 2**31:
        raise Declined("an experiment id that the column can't hold")
    return number
