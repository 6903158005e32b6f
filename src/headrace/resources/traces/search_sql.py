"""A search of traces -> one statement with parameters, for PostgreSQL and for SQLite. No value is part of the text.

Conditions are EXISTS where MLflow joins. Source: _get_filter_clauses_for_search_traces, _apply_trace_filter_clauses,
_get_orderby_clauses_for_search_traces in mlflow/store/tracking/sqlalchemy_store.py.

RLIKE: PostgreSQL stops a pattern that takes too long, by statement_timeout. SQLite has none of its own: the patterns
are RE2's there (db/sqlite.py), whose time is linear in the text, whatever the pattern.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from headrace.api.search.ast import Condition, Kind, OrderBy
from headrace.api.search.parser import strip_backticks
from headrace.api.search.sql import Key, after_keyset, compare, order_by
from headrace.auth.objects import granted
from headrace.db.query import Dialect, Query, Statement
from headrace.resources.traces import info
from headrace.resources.traces.info import NAME, SESSION
from headrace.resources.traces.search import ANALYTICS, ATTRIBUTES, CONTENT, PROMPTS, RUN, TraceSearch
from headrace.resources.traces.token_sums import COST_COLUMNS, TOKEN_COLUMNS, count_of, finite

INFO = ", ".join(f"t.{column}" for column in info.COLUMNS.split(", "))
# how much earlier than its trace a span may begin (_SPAN_SEARCH_TIMESTAMP_TOLERANCE_MS)
_TOLERANCE_MS = 10_000
_SESSION_SCOPED = '%"mlflow.trace.session":%'
_TABLES = {Kind.TAG: "trace_tags", Kind.METADATA: "trace_request_metadata"}
_FAILED, _ASKS_FOR_FAILED = "t.status = 'ERROR'", ("status", "=", "ERROR")
_LOOKED_UP = (Kind.TAG, Kind.METADATA, Kind.FEEDBACK, Kind.EXPECTATION)
FIRST = 1_000  # traces that are looked up one by one, in 2 to 5 ms
_END = "(t.timestamp_ms + coalesce(t.execution_time_ms, 0))"
_ANALYTICS_COLUMNS = {ANALYTICS[0]: TOKEN_COLUMNS, ANALYTICS[1]: COST_COLUMNS}


def search_traces(search: TraceSearch, dialect: Dialect, grantees: Sequence[str] | None = None) -> Query:
    """The traces of a page, in order. Columns: those of TraceInfo, then the keys that `TraceSearch.after` takes.

    Raises:
        BadPageToken: `after` does not fit the order.
        Declined: the database would refuse the statement.
    """
    sql = Statement(dialect)
    joins, keys = _keys(sql, search.order)
    where = conditions(sql, search.experiment_ids, search.conditions, grantees)
    if search.after is not None:
        where.append(after_keyset(sql, keys, search.after))
    text = (
        f"SELECT {_columns(keys)} FROM trace_info t {' '.join(joins)} WHERE {' AND '.join(where)} {_order(keys)}"
        f" LIMIT {sql.bind(search.max_results)}"
    )
    if search.after is None and search.offset:
        text += f" OFFSET {sql.bind(search.offset)}"
    return sql.query(text, replanned=True)


def may_be_among_first(search: TraceSearch, dialect: Dialect) -> bool:
    """Whether to try `search_first`: traces in the order of their times, then of columns of theirs, of which each has
    to be looked up elsewhere.

    SQLite goes through them so by itself, and PostgreSQL where a span must meet a condition.
    """
    by, kinds = search.order[0], {one.kind for one in search.conditions}
    in_time = by.kind is Kind.ATTRIBUTE and by.key == "timestamp_ms" and (search.after is not None or not search.offset)
    by_own = all(one.kind is Kind.ATTRIBUTE or _column(one.kind, one.key) for one in search.order)
    looked_up = not kinds.isdisjoint(_LOOKED_UP) and Kind.SPAN not in kinds
    return in_time and by_own and looked_up and dialect is Dialect.POSTGRESQL


def search_first(search: TraceSearch, grantees: Sequence[str] | None) -> Query:
    """The same as `search_traces`, but of the first FIRST traces alone: where these fill a page, it is the page.

    Each is looked up in the other tables (OFFSET 0 keeps PostgreSQL from a join) until the page is full. By itself
    PostgreSQL expects few that meet the conditions, and reads the tags of all traces.
    """
    sql = Statement(Dialect.POSTGRESQL)
    _, keys = _keys(sql, search.order)  # without joins
    own = [one for one in search.conditions if one.kind is Kind.ATTRIBUTE]
    where = conditions(sql, search.experiment_ids, own, grantees)
    if search.after is not None:
        where.append(after_keyset(sql, keys, search.after))
    met = [condition(sql, one, search.experiment_ids) for one in search.conditions if one not in own]
    return sql.query(
        f"SELECT {_columns(keys)} FROM (SELECT * FROM trace_info t WHERE {' AND '.join(where)} {_order(keys)}"
        f" LIMIT {FIRST}) t CROSS JOIN LATERAL (SELECT 1 WHERE {' AND '.join(met)} OFFSET 0) AS met"
        f" {_order(keys)} LIMIT {sql.bind(search.max_results)}",
        replanned=True,
    )


def _columns(keys: Sequence[Key]) -> str:
    return f"{INFO}, {', '.join(key.expression for key in keys)}"


def _order(keys: Sequence[Key]) -> str:
    return f"ORDER BY {', '.join(map(order_by, keys))}"


def conditions(
    sql: Statement, experiment_ids: Sequence[int], given: Sequence[Condition], grantees: Sequence[str] | None
) -> list[str]:
    """That `t` is a trace of one of the experiments that meets all conditions."""
    where = [
        sql.in_list("t.experiment_id", experiment_ids, "int"),
        *granted(sql, "t.experiment_id", grantees),
        *(condition(sql, one, experiment_ids) for one in given if one.kind is not Kind.SPAN),
    ]
    spans = [one for one in given if one.kind is Kind.SPAN]
    if spans:
        where.append(_spans(sql, spans, given))
    return where


def count(
    experiment_ids: Sequence[int], base: Sequence[Condition], one: Sequence[Condition], other: Sequence[Condition],
    dialect: Dialect, grantees: Sequence[str] | None,
) -> Query:  # fmt: skip
    """One row: how many traces meet `base`, how many of them `one`, `other`, and both."""
    sql = Statement(dialect)
    first = " AND ".join(conditions(sql, experiment_ids, one, None))
    second = " AND ".join(conditions(sql, experiment_ids, other, None))
    where = " AND ".join(conditions(sql, experiment_ids, base, grantees))
    return sql.query(
        "SELECT count(*), count(*) FILTER (WHERE first), count(*) FILTER (WHERE second),"
        " count(*) FILTER (WHERE first AND second)"
        f" FROM (SELECT ({first}) AS first, ({second}) AS second FROM trace_info t WHERE {where}) AS found",
        replanned=True,
    )


def condition(sql: Statement, given: Condition, experiment_ids: Sequence[int]) -> str:
    """That `t` is a trace that meets a condition, which is not one on spans."""
    kind, key, comparator = given.kind, given.key, given.comparator
    if kind is Kind.ATTRIBUTE:
        # a constant, as the index of failed traces has it: SQLite takes no value for it (db/indexes.py)
        return _FAILED if (key, comparator, given.value) == _ASKS_FOR_FAILED else compare(sql, _attribute(key), given)
    if kind is Kind.ISSUE:
        return (
            "t.request_id IN (SELECT f.trace_id FROM assessments f"
            f" WHERE f.assessment_type = 'issue' AND f.name = {sql.bind(given.value)})"
        )
    if kind in (Kind.FEEDBACK, Kind.EXPECTATION):
        return _assessment(sql, given, experiment_ids)
    if (column := _column(kind, key)) is not None:
        return f"{column} {comparator}" if given.value is None else compare(sql, column, given)
    if key in ANALYTICS and kind is Kind.METADATA:
        return _analytics(sql, given)
    if kind is Kind.TAG and key == PROMPTS:
        return sql.exists(
            "SELECT 1 FROM entity_associations f WHERE f.source_type = 'trace'"
            " AND f.source_id = t.request_id AND f.destination_type = 'prompt_version'"
            f" AND f.destination_id = {sql.bind(given.value)}"
        )
    found = f"SELECT 1 FROM {_TABLES[kind]} f WHERE f.request_id = t.request_id AND f.key = {sql.bind(key)}"
    if given.value is None:
        return f"{'NOT ' if comparator == 'IS NULL' else ''}{sql.exists(found)}"
    found = sql.exists(f"{found} AND {compare(sql, 'f.value', given)}")
    if kind is Kind.METADATA and key == RUN and comparator == "=":
        return (
            f"({found} OR EXISTS (SELECT 1 FROM entity_associations f WHERE f.source_type = 'trace'"
            " AND f.source_id = t.request_id AND f.destination_type = 'run'"
            f" AND f.destination_id = {sql.bind(given.value)}))"
        )
    return found


def _attribute(key: str) -> str:
    return _END if key == "end_time_ms" else f"t.{key}"


def _column(kind: Kind, key: str) -> str | None:
    """The column of a tag or metadata that is one."""
    if kind is Kind.TAG and key == NAME:
        return "t.trace_name"
    return "t.session_id" if kind is Kind.METADATA and key == SESSION else None


def _analytics(sql: Statement, condition: Condition) -> str:
    """Token usage or cost, as the one text that stock makes of the columns (get_trace_analytics_metadata_filter)."""
    columns = _ANALYTICS_COLUMNS[condition.key]
    told = "(" + " OR ".join(f"t.{column} IS NOT NULL" for column in columns) + ")"
    if condition.value is None:
        return told if condition.comparator == "IS NOT NULL" else f"NOT {told}"
    numbers = _canonical(str(condition.value), columns)
    equal = "FALSE"
    if numbers is not None:
        cast = "" if columns is TOKEN_COLUMNS or sql.dialect is Dialect.SQLITE else "::float8"
        equal = " AND ".join(
            f"t.{column} = {sql.bind(numbers[column])}{cast}" if column in numbers else f"t.{column} IS NULL"
            for column in columns
        )
    return f"({equal})" if condition.comparator == "=" else f"({told} AND NOT coalesce({equal}, FALSE))"


def _canonical(text: str, columns: Sequence[str]) -> dict[str, Any] | None:
    """The numbers of a text that is written as stock would write them."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or not set(given) <= set(columns):
        return None
    convert = count_of if columns is TOKEN_COLUMNS else finite
    numbers = {column: number for column in columns if (number := convert(given.get(column))) is not None}
    return numbers if numbers and json.dumps(numbers) == text else None


def _assessment(sql: Statement, condition: Condition, experiment_ids: Sequence[int]) -> str:
    """That a trace has such an assessment, or is of a session that has one."""
    # "+": SQLite has no statistics, and would read all feedback there is for each trace
    of_type = "+f.assessment_type" if sql.dialect is Dialect.SQLITE else "f.assessment_type"
    such = (
        f"{of_type} = {sql.text(condition.kind.value)} AND f.name = {sql.bind(condition.key)} AND f.valid"
        f"{_assessed(sql, condition)}"
    )
    experiments = sql.in_list("s.experiment_id", experiment_ids, "int")
    found = (
        f"(EXISTS (SELECT 1 FROM assessments f WHERE f.trace_id = t.request_id AND {such})"
        " OR t.session_id IN"
        f" (SELECT s.session_id FROM trace_info s JOIN assessments f ON f.trace_id = s.request_id WHERE {experiments}"
        f" AND s.session_id IS NOT NULL AND {such} AND f.assessment_metadata LIKE '{_SESSION_SCOPED}'))"
    )
    return f"NOT coalesce({found}, FALSE)" if condition.comparator == "IS NULL" else found


def _assessed(sql: Statement, condition: Condition) -> str:
    comparator, value = condition.comparator, condition.value
    if value is None:
        return ""
    if comparator in ("<", "<=", ">", ">="):
        return f" AND f.is_numeric_value AND f.aggregate_value {comparator} {sql.number(float(str(value)))}"
    if comparator in ("=", "!="):
        # a number or a truth value is as it stands in the JSON, a text is quoted there
        either = f"(f.value = {sql.bind(value)} OR f.value = {sql.bind(json.dumps(value))})"
        return f" AND {'NOT ' if comparator == '!=' else ''}{either}"
    return f" AND {compare(sql, 'f.value', condition)}"


def _spans(sql: Statement, spans: Sequence[Condition], given: Sequence[Condition]) -> str:
    """That one span meets all conditions on spans."""
    # "+": SQLite has no statistics, and would read all spans of the experiment for each trace
    of_experiment = "+f.experiment_id" if sql.dialect is Dialect.SQLITE else "f.experiment_id"
    where = ["f.trace_id = t.request_id", f"{of_experiment} = t.experiment_id"]
    starts = [
        one.value
        for one in given
        if one.kind is Kind.ATTRIBUTE and one.key == "timestamp_ms" and one.comparator in (">", ">=")
    ]
    if starts:
        first = int(max(starts) - _TOLERANCE_MS) * 1_000_000  # type: ignore[type-var, operator]
        if -(2**63) <= first < 2**63:
            where.append(f"f.start_time_unix_nano >= {sql.bind(first)}")
    where += [_span(sql, one) for one in spans]
    return f"EXISTS (SELECT 1 FROM spans f WHERE {' AND '.join(where)})"


def _span(sql: Statement, condition: Condition) -> str:
    key, comparator, value = condition.key, condition.comparator, str(condition.value)
    if key == CONTENT:
        return _content(sql, condition, value)
    if not key.startswith(ATTRIBUTES):
        return compare(sql, f"f.{key}", condition)
    name = strip_backticks(key.removeprefix(ATTRIBUTES))
    pattern = _within_content(name, value) if comparator == "RLIKE" else f'%"{name}"{value}%'
    return _content(sql, Condition(Kind.SPAN, key, comparator, pattern), value)


def _content(sql: Statement, condition: Condition, value: str) -> str:
    """`f.content` against a pattern, or whatever it is, that was made of `value`.

    PostgreSQL finds a text in half the time that LIKE takes, so it does that first. Measured on 10,000 contents of 480
    bytes, of which one in ten has the text: LIKE 30 ms, and 18 ms without its needless %, this 11 ms. CASE, since
    PostgreSQL would begin with the operator that it takes for the cheaper one, LIKE.
    """
    pattern = str(condition.value)
    if condition.comparator != "LIKE" or sql.dialect is Dialect.SQLITE or "\\" in pattern:
        return compare(sql, "f.content", condition)
    met = compare(sql, "f.content", Condition(Kind.SPAN, CONTENT, "LIKE", re.sub("%%+", "%", pattern)))
    longest = max(re.split("[%_]", value), key=len)
    return f"CASE WHEN strpos(f.content, {sql.bind(longest)}) > 0 THEN {met} ELSE FALSE END" if longest else met


def _within_content(name: str, pattern: str) -> str:
    r"""A pattern on an attribute's value, as one on the content, where that is `"name": "\"value\""`."""
    before, after = '"\\\\".*', ""
    if pattern.startswith("^"):
        before = '"\\\\"'
    if pattern.endswith("$"):
        after = '\\\\"'
    return f'"{name}": {before}{pattern.removeprefix("^").removesuffix("$")}{after}'


def _keys(sql: Statement, order: Sequence[OrderBy]) -> tuple[list[str], list[Key]]:
    """The joins that the order needs, and its keys."""
    joins: list[str] = []
    keys: list[Key] = []
    for number, by in enumerate(order):
        if by.kind is Kind.ATTRIBUTE:
            kind = str if by.key in ("status", "request_id") else int
            keys.append(Key(_attribute(by.key), by.ascending, kind, by.key == "execution_time_ms"))
        elif (column := _column(by.kind, by.key)) is not None:
            keys.append(Key(column, by.ascending, str, True))
        else:
            joins.append(
                f"LEFT JOIN {_TABLES[by.kind]} o{number}"
                f" ON o{number}.request_id = t.request_id AND o{number}.key = {sql.bind(by.key)}"
            )
            keys.append(Key(f"o{number}.value", by.ascending, str, True))
    return joins, keys
