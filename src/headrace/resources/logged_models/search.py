"""The filter, the order and the pages of logged-models/search, and its SQL.

Rules: mlflow/utils/search_logged_model_utils.py; _apply_filter_string_datasets_search_logged_models and
_apply_order_by_search_logged_models of mlflow/store/tracking/sqlalchemy_store.py.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from headrace.api.message import invalid
from headrace.api.search.ast import Comparator, Condition, KeysetValue, Kind
from headrace.api.search.lexer import Token, TokenKind
from headrace.api.search.parser import Comparison, check_clauses, number_text, parse
from headrace.api.search.sql import Key, after_keyset, compare, order_by
from headrace.api.search.stock_parser import Worded
from headrace.auth.objects import granted
from headrace.db.query import Dialect, Query, Statement
from headrace.errors import Declined, InvalidParameter
from headrace.resources.logged_models.messages import Dataset, OrderBy, SearchLoggedModels
from headrace.resources.logged_models.sql import SELECTED, WIDTH

_ENTITIES = {"attributes": Kind.ATTRIBUTE, "metrics": Kind.METRIC, "params": Kind.PARAM, "tags": Kind.TAG}
_ALIASES = {
    "creation_time": "creation_timestamp_ms",
    "creation_timestamp": "creation_timestamp_ms",
    "last_updated_timestamp": "last_updated_timestamp_ms",
}
_TIMES = frozenset({"creation_timestamp_ms", "last_updated_timestamp_ms"})
_TEXTS = frozenset({"model_id", "name", "artifact_location", "model_type", "source_run_id", "status_message"})
# numbers that stock compares with texts, as far as the database lets it
_NUMBERS = frozenset({"experiment_id", "status"})
_NUMERIC = ("<", "<=", ">", ">=", "=", "!=")
_STRING = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
_PREFIXED = re.compile(r"([a-z]+)\.(.+)", re.DOTALL)
_PAIRS = {Kind.PARAM: ("logged_model_params", "param"), Kind.TAG: ("logged_model_tags", "tag")}


class Search(NamedTuple):
    """What is asked for. `after`: the keys of the row before the page, which is else `offset` rows from the first."""

    experiment_ids: Sequence[int]
    conditions: Sequence[Condition]
    datasets: Sequence[Dataset]
    order: Sequence[OrderBy]
    limit: int
    offset: int
    after: Sequence[KeysetValue] | None


def parse_filter(text: str) -> tuple[Condition, ...]:
    """The conditions of a filter. Raises InvalidParameter; Declined where the text is not in the grammar."""
    with Worded("parse_filter_string", text):
        return parse(text, _condition)


def _condition(comparison: Comparison) -> Condition:
    match = _PREFIXED.fullmatch(comparison.name)
    kind, key = Kind.ATTRIBUTE, comparison.name
    if match:
        if match[1] not in _ENTITIES:
            raise InvalidParameter(f"Invalid entity type: {match[1]!r}. Expected one of {list(_ENTITIES)}.")
        kind, key = _ENTITIES[match[1]], match[2]
    key = key.strip("`")
    if kind is Kind.ATTRIBUTE:
        key = _attribute(key, f"Invalid attribute in the filter: {comparison.name}")
    is_numeric = kind is Kind.METRIC or key in _TIMES
    comparator, value = comparison.comparator.upper(), comparison.value
    operators = _NUMERIC if is_numeric else _STRING
    if comparator not in operators:
        raise InvalidParameter(
            f"Invalid comparison operator for {comparison.name}: {comparator!r}. Expected one of {operators}."
        )
    if kind is Kind.ATTRIBUTE and key in _NUMBERS:
        raise Declined("a number that is compared with a text")
    if is_numeric:
        if not isinstance(value, Token) or value.kind is not TokenKind.NUMBER:
            raise InvalidParameter(f"{comparison.name} is a number. Compare it with one, without quotes.")
        return Condition(kind, key, cast(Comparator, comparator), float(number_text(value)))
    if isinstance(value, Token):
        return Condition(kind, key, cast(Comparator, comparator), value.text.strip("'"))
    return Condition(kind, key, cast(Comparator, comparator), value)


def _attribute(name: str, error: str) -> str:
    column = _ALIASES.get(name, name)
    if column not in _TEXTS | _TIMES | _NUMBERS:
        raise InvalidParameter(error)
    return column


class Place(NamedTuple):
    """Where a page begins."""

    offset: int = 0
    after: Sequence[KeysetValue] | None = None


def place(message: SearchLoggedModels) -> Place:
    """What the page_token says (SearchLoggedModelsPaginationToken); stock's own are gone on with. Raises
    InvalidParameter."""
    if not message.page_token:
        return Place()
    try:
        token = msgspec.json.decode(base64.b64decode(message.page_token, validate=True))
    except (ValueError, RecursionError):
        token = None
    offset = token.get("offset", 0) if isinstance(token, dict) else None
    after = token.get("after") if isinstance(token, dict) else None
    if type(offset) is not int or not 0 <= offset < 2**31 or not isinstance(after, list | None):
        raise invalid("page_token", message.page_token, "It is none that this server gave.")
    for name, words in (
        ("experiment_ids", "Experiment IDs in the page token do not match the requested experiment IDs."),
        ("filter_string", "Filter string in the page token does not match the requested filter string."),
        ("order_by", "Order by in the page token does not match the requested order by."),
    ):
        expected, found = _said(message)[name], token.get(name) or None
        if found != expected:
            raise InvalidParameter(f"{words} Expected: {expected}. Found: {found}")
    return Place(offset, after)


def next_token(message: SearchLoggedModels, offset: int, after: Sequence[KeysetValue]) -> str:
    """The token of the next page, which stock could go on from, too."""
    return base64.b64encode(msgspec.json.encode({**_said(message), "offset": offset, "after": after})).decode()


def _said(message: SearchLoggedModels) -> Mapping[str, Any]:
    order = [
        {
            "field_name": by.field_name,
            "ascending": by.ascending,
            "dataset_name": by.dataset_name or None,
            "dataset_digest": by.dataset_digest or None,
        }
        for by in message.order_by
    ]
    return {
        "experiment_ids": message.experiment_ids or None,
        "filter_string": message.filter or None,
        "order_by": order or None,
    }


def keys_of(row: Sequence[Any]) -> Sequence[KeysetValue]:
    """The keys of the order, which follow sql.SELECT's columns in a row of `search`."""
    return tuple(row)[WIDTH:]


def search(asked: Search, dialect: Dialect, grantees: Sequence[str] | None) -> Query:
    """The rows of a page and one more, as sql.SELECT gives them, then the keys of the order.

    Raises BadPageToken, InvalidParameter; Declined where the database would refuse the statement.
    """
    sql = Statement(dialect)
    keys = _keys(sql, asked.order)
    where = [
        sql.in_list("m.experiment_id", asked.experiment_ids, "int"),
        "m.lifecycle_stage <> 'deleted'",
        *granted(sql, "m.experiment_id", grantees),
    ]
    of_datasets = _of_datasets(sql, asked.datasets)
    where += [_where(sql, condition, of_datasets) for condition in asked.conditions]
    if of_datasets and not any(condition.kind is Kind.METRIC for condition in asked.conditions):
        where.append(f"EXISTS (SELECT 1 FROM logged_model_metrics f WHERE f.model_id = m.model_id{of_datasets})")
    if asked.after is not None:
        where.append(after_keyset(sql, keys, asked.after))
    names = [f"key{number}" for number in range(len(keys))]
    page = (
        f"SELECT m.*, {', '.join(f'{key.expression} AS {name}' for key, name in zip(keys, names, strict=True))}"
        f" FROM logged_models m WHERE {' AND '.join(where)}"
        f" ORDER BY {', '.join(map(order_by, keys))} LIMIT {sql.bind(asked.limit + 1)}"
    )
    if asked.after is None and asked.offset:
        page += f" OFFSET {sql.bind(asked.offset)}"
    of_page = [key._replace(expression=f"m.{name}") for key, name in zip(keys, names, strict=True)]
    # the lists of those of the page alone, in its order
    return sql.query(
        f"SELECT {SELECTED[dialect]}, {', '.join(key.expression for key in of_page)} FROM ({page}) m"
        f" ORDER BY {', '.join(map(order_by, of_page))}",
        replanned=True,
    )


def _where(sql: Statement, condition: Condition, of_datasets: str) -> str:
    if condition.kind is Kind.ATTRIBUTE:
        return compare(sql, f"m.{condition.key}", condition)
    if condition.kind is Kind.METRIC:
        return sql.exists(
            "SELECT 1 FROM logged_model_metrics f WHERE f.model_id = m.model_id"
            f" AND f.metric_name = {sql.bind(condition.key)} AND {compare(sql, 'f.metric_value', condition)}"
            f"{of_datasets}"
        )
    table, name = _PAIRS[condition.kind]
    return sql.exists(
        f"SELECT 1 FROM {table} f WHERE f.model_id = m.model_id"
        f" AND f.{name}_key = {sql.bind(condition.key)} AND {compare(sql, f'f.{name}_value', condition)}"
    )


def _of_datasets(sql: Statement, datasets: Sequence[Dataset]) -> str:
    """Condition, to be added: the metric `f` is of one of these; of any digest where none is said."""
    if not datasets:
        return ""
    if not all(dataset.dataset_name for dataset in datasets):
        raise InvalidParameter("`dataset_name` in the `datasets` clause must be specified.")
    return f" AND ({' OR '.join(_of_dataset(sql, dataset) for dataset in datasets)})"


def _of_dataset(sql: Statement, dataset: Dataset | OrderBy) -> str:
    named = []
    if dataset.dataset_name:
        named.append(f"f.dataset_name = {sql.bind(dataset.dataset_name)}")
    if dataset.dataset_digest:
        named.append(f"f.dataset_digest = {sql.bind(dataset.dataset_digest)}")
    return f"({' AND '.join(named)})"


def _keys(sql: Statement, order: Sequence[OrderBy]) -> list[Key]:
    check_clauses(order)
    keys: list[Key] = []
    columns = set()
    for by in order:
        entity, dot, metric = by.field_name.partition(".")
        if dot:
            if entity != "metrics":
                raise InvalidParameter(f"Invalid order by field name: {by.field_name}. Only metrics are supported.")
            keys.append(Key(_latest(sql, metric, by), by.ascending, float, nullable=True))
            continue
        column = _attribute(by.field_name, f"Invalid order by field name: {by.field_name}")
        if column in columns:  # what is ordered already
            continue
        columns.add(column)
        kind = str if column in _TEXTS else int
        nullable = column in ("model_type", "source_run_id", "status_message")
        keys.append(Key(f"m.{column}", by.ascending, kind, nullable))
    if "creation_timestamp_ms" not in columns:
        keys.append(Key("m.creation_timestamp_ms", False, int, nullable=False))
    if "model_id" not in columns:
        keys.append(Key("m.model_id", True, str, nullable=False))
    return keys


def _latest(sql: Statement, metric: str, by: OrderBy) -> str:
    """The latest value of a model's metric."""
    of_dataset = f" AND {_of_dataset(sql, by)}" if by.dataset_name or by.dataset_digest else ""
    return (
        "(SELECT f.metric_value FROM logged_model_metrics f WHERE f.model_id = m.model_id"
        f" AND f.metric_name = {sql.bind(metric)}{of_dataset}"
        " ORDER BY f.metric_timestamp_ms DESC, f.metric_step DESC, f.run_id LIMIT 1)"
    )
