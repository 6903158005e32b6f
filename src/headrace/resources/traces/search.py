"""The filter and the order_by clauses of searches of traces.

Rules: SearchTraceUtils in mlflow/utils/search_utils.py; _get_filter_clauses_for_search_traces and
_get_orderby_clauses_for_search_traces in mlflow/store/tracking/sqlalchemy_store.py. What stock refuses is declined,
and it says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from msgspec import Struct

from headrace.api.search.ast import Comparator, Condition, KeysetValue, Kind, OrderBy, Value
from headrace.api.search.lexer import Token, TokenKind
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
from headrace.resources.traces.info import COST, NAME, USAGE

PROMPTS, RUN = "mlflow.linkedPrompts", "mlflow.sourceRun"
CONTENT, ATTRIBUTES = "content", "attributes."
ANALYTICS = (USAGE, COST)

_PREFIXES = {
    **dict.fromkeys(("attribute", "attributes", "trace"), Kind.ATTRIBUTE),
    **dict.fromkeys(("tag", "tags"), Kind.TAG),
    **dict.fromkeys(("metadata", "request_metadata"), Kind.METADATA),
    "span": Kind.SPAN,
    "feedback": Kind.FEEDBACK,
    "expectation": Kind.EXPECTATION,
    "issue": Kind.ISSUE,
}
NUMBERS = ("timestamp_ms", "execution_time_ms", "end_time_ms")
_ALIASES = {"timestamp": "timestamp_ms", "execution_time": "execution_time_ms", "end_time": "end_time_ms"}
_NUMERIC = frozenset({*NUMBERS, *_ALIASES})
_TEXTS = frozenset({"request_id", "status", "client_request_id"})
_SEARCHABLE = frozenset({*_NUMERIC, *_TEXTS, "name", "run_id", "prompt", "text"})
_ORDERABLE = frozenset({*_NUMERIC, "experiment_id", "status", "request_id", "name", "run_id"})
# Whatever the prefix, but for spans: such a key is another kind's.
_ELSEWHERE = {
    "name": (Kind.TAG, NAME),
    "prompt": (Kind.TAG, PROMPTS),
    "run_id": (Kind.METADATA, RUN),
    "text": (Kind.SPAN, CONTENT),
}

_NUMBER_COMPARATORS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_PATTERNS = frozenset({"LIKE", "ILIKE", "RLIKE"})
_LISTS = frozenset({"IN", "NOT IN"})
_NULL_TESTS = frozenset({"IS NULL", "IS NOT NULL"})
_EQUAL = frozenset({"=", "!="})
_RANGES = frozenset({"<", "<=", ">", ">="})
_SPAN_KEYS = frozenset({"name", "type", "status"})


class TraceSearch(Struct, frozen=True):
    """A page of the traces of some experiments that meet every condition; see RunSearch."""

    experiment_ids: tuple[int, ...]
    conditions: tuple[Condition, ...]
    order: tuple[OrderBy, ...]
    max_results: int
    offset: int = 0
    after: tuple[KeysetValue, ...] | None = None


def parse_filter(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter on traces; raises what parser.parse does."""
    with Worded("SearchTraceUtils.parse_search_filter_for_search_traces", text):
        conditions = parse(text, _condition)
    of_runs = [one for one in conditions if one.kind is Kind.METADATA and one.key == RUN and one.comparator == "="]
    return tuple(one for one in conditions if one not in of_runs or one is of_runs[-1])  # stock takes the last


def parse_order(clauses: Sequence[str]) -> tuple[OrderBy, ...]:
    """The whole order: the clauses, then the newest trace first, then by id. The last key is always request_id.

    Raises:
        InvalidParameter: more clauses than one order_by may have, or two for one key.
        Declined: MLflow refuses a clause, or it isn't certain how MLflow reads it.
    """
    with Worded("SearchTraceUtils.parse_order_by_for_search_traces", *clauses):
        keys = [_order_by(name, ascending) for name, ascending in parse_order_by(clauses)]
    if len({(key.kind, key.key) for key in keys}) < len(keys):
        raise named_twice(clauses)
    for key, ascending in (("timestamp_ms", False), ("request_id", True)):
        if not any(each.kind is Kind.ATTRIBUTE and each.key == key for each in keys):
            keys.append(OrderBy(Kind.ATTRIBUTE, key, ascending))
    by_id = next(i for i, each in enumerate(keys) if each.kind is Kind.ATTRIBUTE and each.key == "request_id")
    return tuple(keys[: by_id + 1])


def _order_by(name: str, ascending: bool) -> OrderBy:
    kind, key = _resolve(name, _ORDERABLE)
    kind, key = _replaced(kind, key)
    if kind not in (Kind.ATTRIBUTE, Kind.TAG, Kind.METADATA) or (kind is Kind.METADATA and key in ANALYTICS):
        raise Declined("traces can't be ordered by that")
    return OrderBy(kind, key, ascending)


def _resolve(name: str, attributes: frozenset[str]) -> tuple[Kind, str]:
    prefix, key = split_name(name)
    kind = Kind.ATTRIBUTE if prefix is None else _PREFIXES.get(strip_backticks(prefix))
    if kind is None:
        raise Declined(f"no prefix {prefix!r} on traces")
    if kind is Kind.ATTRIBUTE and key not in attributes:
        raise Declined(f"no attribute {key!r} on traces")
    return kind, key


def _replaced(kind: Kind, key: str) -> tuple[Kind, str]:
    if kind is Kind.SPAN:
        return kind, key
    lower = key.lower()
    return _ELSEWHERE.get(lower) or (kind, _ALIASES.get(lower, key))


def _condition(comparison: Comparison) -> Condition:
    if comparison.name == "text":
        raise Declined("sqlparse takes it for a type")
    given, name = _resolve(comparison.name, _SEARCHABLE)
    value = _value(given, name, comparison)
    if comparison.name in ("timestamp", "timestamp_ms") and type(value) is not int:
        raise Declined("sqlparse takes timestamp for a type, with which MLflow compares integers alone")
    kind, key = _replaced(given, name)
    comparator = comparison.comparator.upper()
    if kind is Kind.SPAN and comparator != comparison.comparator:
        raise Declined("a word in small letters, which MLflow takes for trace.text alone")
    if comparator not in _comparators(kind, key):
        if (kind, key) == (Kind.TAG, PROMPTS):
            raise InvalidParameter(
                f"Invalid comparator '{comparator}' for prompts filter. Only '=' is supported with format: "
                'prompt = "name/version"'
            )
        raise InvalidParameter(f"Invalid comparator '{comparison.comparator}' for {kind.value} '{key}'.")
    if not _fits(kind, key, comparator, value):
        raise Declined(f"a value that is not for {kind.value} {key!r}")
    return Condition(kind, key, cast(Comparator, comparator), value)


def _value(kind: Kind, key: str, comparison: Comparison) -> Value:
    """The value by the kind that the filter names (SearchTraceUtils._get_value)."""
    value = comparison.value
    if value is None or (isinstance(value, tuple) and kind in (Kind.ATTRIBUTE, Kind.TAG, Kind.SPAN)):
        return value
    takes_numbers = kind in (Kind.FEEDBACK, Kind.EXPECTATION) or (kind is Kind.ATTRIBUTE and key in _NUMERIC)
    if takes_numbers and isinstance(value, Token) and value.kind is TokenKind.NUMBER:
        return comparable(number_text(value))
    return string_value(value)


def _comparators(kind: Kind, key: str) -> frozenset[str]:
    if kind is Kind.ATTRIBUTE:
        return _NUMBER_COMPARATORS if key in NUMBERS else _EQUAL | _PATTERNS | _LISTS
    if kind is Kind.TAG:
        return frozenset("=") if key == PROMPTS else _EQUAL | _PATTERNS | _NULL_TESTS
    if kind is Kind.METADATA:
        return _EQUAL | _NULL_TESTS if key in ANALYTICS else _EQUAL | _PATTERNS | _NULL_TESTS
    if kind is Kind.SPAN:
        return _span_comparators(key)
    if kind is Kind.ISSUE:
        return frozenset("=") if key == "id" else frozenset()
    return _EQUAL | _RANGES | _PATTERNS | _NULL_TESTS if key else frozenset()


def _span_comparators(key: str) -> frozenset[str]:
    if key == CONTENT:
        return frozenset({"LIKE", "ILIKE"})
    if key.startswith(ATTRIBUTES):
        return _EQUAL | _PATTERNS if key != ATTRIBUTES else frozenset()
    return _EQUAL | _PATTERNS | _LISTS if key in _SPAN_KEYS else frozenset()


def _fits(kind: Kind, key: str, comparator: str, value: Any) -> bool:
    """Whether a value is what the comparator takes, now that it is known what the key belongs to."""
    if comparator in _NULL_TESTS:
        return value is None
    if comparator in _LISTS:
        return isinstance(value, tuple)
    if kind is Kind.ATTRIBUTE and key in NUMBERS:
        return isinstance(value, int | float)
    if kind in (Kind.FEEDBACK, Kind.EXPECTATION) and comparator in _RANGES:
        return isinstance(value, int | float)
    if kind is Kind.TAG and key == PROMPTS:
        return isinstance(value, str) and value.count("/") == 1
    return isinstance(value, str)
