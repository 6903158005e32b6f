"""The filters and orders of registered-models/search and model-versions/search, and their SQL.

Rules: SearchModelUtils and SearchModelVersionUtils in mlflow/utils/search_utils.py; _get_search_*_filter_* of
mlflow/store/model_registry/sqlalchemy_store.py. Prompts are models with a tag, and found only where it is asked for.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from headrace.api.search.ast import Comparator, Condition, Kind
from headrace.api.search.lexer import Token, TokenKind
from headrace.api.search.parser import (
    Comparison,
    integer,
    named_twice,
    parse,
    parse_order_by,
    split_name,
    string_value,
    whole_number,
)
from headrace.api.search.sql import compare
from headrace.api.search.stock_parser import Worded
from headrace.auth.objects import granted_model
from headrace.db.query import Dialect, Query, Statement
from headrace.errors import Declined, InvalidParameter
from headrace.resources.model_versions.sql import SELECT
from headrace.resources.registered_models import sql as model_sql
from headrace.resources.registered_models.validation import IS_PROMPT

_TEXTS = frozenset({"=", "!=", "LIKE", "ILIKE"})
_LISTS = _TEXTS | {"IN", "NOT IN"}
_NUMBERS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_PREFIXES = {None: Kind.ATTRIBUTE, "attribute": Kind.ATTRIBUTE, "tag": Kind.TAG, "tags": Kind.TAG}


class Searched(NamedTuple):
    """What a search is over. `attributes`: key -> (column, comparators). `order`: key -> column. `filter_parser`,
    `order_parser`: MLflow's."""

    table: str
    tags: str
    same_object: str
    attributes: Mapping[str, tuple[str, frozenset[str]]]
    order: Mapping[str, str]
    default_order: tuple[str, ...]
    tie_breakers: tuple[tuple[str, str], ...]
    filter_parser: str
    order_parser: str


MODELS = Searched(
    "registered_models v",
    "registered_model_tags",
    "t.workspace = v.workspace AND t.name = v.name",
    {"name": ("v.name", _LISTS)},
    {"name": "v.name", "timestamp": "v.last_updated_time", "last_updated_timestamp": "v.last_updated_time"},
    (),
    (("v.name", "ASC"),),
    "SearchModelUtils.parse_search_filter",
    "SearchUtils.parse_order_by_for_search_registered_models",
)
VERSIONS = Searched(
    "model_versions v",
    "model_version_tags",
    "t.workspace = v.workspace AND t.name = v.name AND t.version = v.version",
    {
        "name": ("v.name", _LISTS),
        "run_id": ("v.run_id", _LISTS),
        "source_path": ("v.source", _TEXTS),
        "version_number": ("v.version", _NUMBERS),
    },
    {
        "name": "v.name",
        "version_number": "v.version",
        "creation_timestamp": "v.creation_time",
        "last_updated_timestamp": "v.last_updated_time",
    },
    ("last_updated_timestamp DESC", "name ASC", "version_number DESC"),
    (("v.name", "ASC"), ("v.version", "DESC")),
    "SearchModelVersionUtils.parse_search_filter",
    "SearchModelVersionUtils.parse_order_by_for_search_model_versions",
)


def parse_filter(text: str, searched: Searched) -> tuple[Condition, ...]:
    """The conditions of a filter. Raises InvalidParameter; Declined where the text is not in the grammar."""
    with Worded(searched.filter_parser, text):
        return parse(text, _reader(searched))


def _reader(searched: Searched) -> Callable[[Comparison], Condition]:
    def condition(comparison: Comparison) -> Condition:
        prefix, key = split_name(comparison.name)
        kind = _PREFIXES.get(prefix)
        comparator = comparison.comparator.upper()
        if kind is None:
            valid = ("attribute", "tag", "tags")
            raise InvalidParameter(f"Invalid entity type '{prefix}'. Valid entity types are {valid}")
        if kind is Kind.ATTRIBUTE and key not in searched.attributes:
            valid_keys = set(searched.attributes)
            raise InvalidParameter(f"Invalid attribute key '{key}' specified. Valid keys are '{valid_keys}'")
        comparators = _TEXTS if kind is Kind.TAG else searched.attributes[key][1]
        if comparator not in comparators:
            what = f"{kind.value} {key}" if comparators is _NUMBERS else kind.value
            raise InvalidParameter(f"Invalid comparator for {what}: {comparator}")
        value = comparison.value
        if kind is Kind.ATTRIBUTE and comparators is _NUMBERS:
            if isinstance(value, Token) and value.kind is TokenKind.NUMBER:
                return Condition(kind, key, cast(Comparator, comparator), whole_number(value.text, key, quote=""))
            return Condition(kind, key, cast(Comparator, comparator), integer(string_value(value)))
        if isinstance(value, tuple):
            return Condition(kind, key, cast(Comparator, comparator), value)
        return Condition(kind, key, cast(Comparator, comparator), string_value(value))

    return condition


def parse_order(clauses: Sequence[str], searched: Searched) -> list[str]:
    """The whole ORDER BY. Raises Declined, InvalidParameter."""
    order: dict[str, str] = {}
    with Worded(searched.order_parser, *clauses):
        for name, ascending in parse_order_by(clauses or searched.default_order):
            prefix, key = split_name(name)
            if prefix not in (None, "attribute") or key not in searched.order:
                raise Declined(f"no order by {name[:80]!r}")
            column = searched.order[key]
            if column in order:
                raise named_twice(clauses)
            order[column] = "ASC" if ascending else "DESC"
    for column, direction in searched.tie_breakers:
        order.setdefault(column, direction)
    return [f"{column} {direction}" for column, direction in order.items()]


def search(
    searched: Searched,
    conditions: Sequence[Condition],
    order: Sequence[str],
    limit: int,
    offset: int,
    dialect: Dialect,
    workspace: str,
    grantees: Sequence[str] | None,
) -> Query:
    """The rows of a page and one more, as the SELECT of their statements gives them."""
    sql = Statement(dialect)
    where = [f"v.workspace = {sql.bind(workspace)}", *granted_model(sql, "v.name", grantees, workspace)]
    tags: dict[str, list[Condition]] = {}
    for condition in conditions:
        if condition.kind is Kind.TAG:
            tags.setdefault(condition.key, []).append(condition)
        else:
            where.append(compare(sql, searched.attributes[condition.key][0], condition))
    if not _asks_for_prompts(tags.get(IS_PROMPT, ())):
        tags.pop(IS_PROMPT, None)
        where.append(
            f"NOT EXISTS (SELECT 1 FROM {searched.tags} t WHERE t.workspace = v.workspace AND t.name = v.name"
            f" AND t.key = '{IS_PROMPT}' AND t.value = 'true')"
        )
    for key, its_conditions in tags.items():
        comparisons = " AND ".join(compare(sql, "t.value", condition) for condition in its_conditions)
        where.append(
            sql.exists(
                f"SELECT 1 FROM {searched.tags} t WHERE {searched.same_object} AND t.key = {sql.bind(key)}"
                f" AND {comparisons}"
            )
        )
    select = model_sql.SELECT[dialect]
    if searched is VERSIONS:
        where.append("v.current_stage <> 'Deleted_Internal'")
        select = SELECT[dialect]
    text = f"{select} WHERE {' AND '.join(where)} ORDER BY {', '.join(order)} LIMIT {sql.bind(limit + 1)}"
    if offset:
        text += f" OFFSET {sql.bind(offset)}"
    return sql.query(text, replanned=True)


def _asks_for_prompts(conditions: Sequence[Condition]) -> bool:
    """SqlAlchemyStore._is_querying_prompt: the first condition on the tag decides."""
    for condition in conditions:
        value = str(condition.value).lower()
        return (condition.comparator, value) in (("=", "true"), ("!=", "false"))
    return False
