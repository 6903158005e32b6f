"""Endpoints that read issues."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import Int32, Message
from headrace.api.search import page_token
from headrace.api.search.ast import Comparator, Condition, Kind
from headrace.api.search.page_token import PageToken
from headrace.api.search.parser import Comparison, parse, string_value
from headrace.api.search.sql import compare
from headrace.auth.objects import Experiment
from headrace.auth.principals import Right
from headrace.db.query import Dialect, Query, Statement
from headrace.errors import Declined, InvalidParameter
from headrace.resources import validation as valid

MAX_SEARCHED, SEARCHED = 50_000, 100
_COLUMNS = (
    "i.issue_id, i.experiment_id, i.name, i.description, i.status, i.severity, i.root_causes, i.source_run_id,"
    " i.categories, i.created_timestamp, i.last_updated_timestamp, i.created_by"
)
_SEVERITY = (
    "CASE i.severity WHEN 'high' THEN 3 WHEN 'medium' THEN 2 WHEN 'low' THEN 1 WHEN 'not_an_issue' THEN 0 ELSE -1 END"
)
_TRACES = (
    "(SELECT COUNT(DISTINCT a.trace_id) FROM assessments a WHERE a.name = i.issue_id AND a.assessment_type = 'issue')"
)


class SearchIssues(Message):
    """`SearchIssues`."""

    experiment_id: str = ""
    filter_string: str = ""
    max_results: Int32 = SEARCHED
    page_token: str = ""
    include_trace_count: bool = False


@endpoint(
    "POST", "3.0/mlflow/issues/search", Right.READ, Experiment("experiment_id"), "issues", "assessments", "experiments"
)
async def search_issues(call: Call, message: SearchIssues) -> object:
    """SqlAlchemyStore.search_issues: the gravest first."""
    limit = message.max_results
    valid.max_results(limit, MAX_SEARCHED)
    conditions = parse(message.filter_string, _condition)
    number = valid.experiment_ids([message.experiment_id]) if message.experiment_id else None
    offset = page_token.decode(message.page_token, "").offset
    counted = message.include_trace_count
    rows = await call.db.rows(_search(conditions, number, counted, limit, offset, call.db.dialect, call.workspace))
    answer: dict[str, object] = {"issues": [_issue(row, counted) for row in rows[:limit]]} if rows else {}
    token = page_token.encode(PageToken(offset + limit)) if len(rows) > limit else ""
    return answer | {"next_page_token": token}


def _condition(comparison: Comparison) -> Condition:
    """SearchIssuesUtils._get_comparison."""
    if comparison.name not in ("status", "source_run_id"):
        raise InvalidParameter(
            f"Invalid filter field '{comparison.name}'. Supported fields: {{'status', 'source_run_id'}}"
        )
    if comparison.comparator not in ("=", "!="):
        raise InvalidParameter(f"Invalid comparator '{comparison.comparator}'. Supported comparators: {{'=', '!='}}")
    value = string_value(comparison.value).strip()
    return Condition(Kind.ATTRIBUTE, comparison.name, cast(Comparator, comparison.comparator), value)


def _search(
    conditions: Sequence[Condition],
    experiment_ids: Sequence[int] | None,
    counted: bool,
    limit: int,
    offset: int,
    dialect: Dialect,
    workspace: str,
) -> Query:
    """The issues of a page and one more: _COLUMNS, then the traces that have them, where they are `counted`."""
    sql = Statement(dialect)
    where = [
        "EXISTS (SELECT 1 FROM experiments e WHERE e.experiment_id = i.experiment_id"
        f" AND e.workspace = {sql.bind(workspace)})"
    ]
    if experiment_ids is not None:
        where.append(sql.in_list("i.experiment_id", experiment_ids, "int"))
    where += [compare(sql, f"i.{condition.key}", condition) for condition in conditions]
    traces = f", {_TRACES} AS trace_count" if counted else ""
    order = f"{_SEVERITY} DESC, {'trace_count DESC, ' if counted else ''}i.created_timestamp DESC, i.issue_id DESC"
    return sql.query(
        f"SELECT {_COLUMNS}{traces} FROM issues i WHERE {' AND '.join(where)} ORDER BY {order}"
        f" LIMIT {sql.bind(limit + 1)} OFFSET {sql.bind(offset)}"
    )


def _issue(row: Any, counted: bool) -> dict[str, object]:
    """Issue.to_proto."""
    issue = dict(row) | {"experiment_id": str(row["experiment_id"])}
    try:
        for name in ("root_causes", "categories"):
            issue[name] = json.loads(issue[name]) if issue[name] else None
    except ValueError:
        raise Declined("an issue with causes that are no JSON") from None
    return {name: value for name, value in issue.items() if value or (counted and name == "trace_count")}
