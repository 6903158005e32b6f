"""Sums over traces, spans and assessments, by time and by what they are: what the charts of the overview ask.

Source: mlflow/store/tracking/utils/sql_trace_metrics_utils.py. A bucket of time is found with integers here: stock's
SQLite takes a span of the last nanoseconds of one for the next one's.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from headrace.api.message import missing
from headrace.api.search.ast import Condition, Kind
from headrace.api.search.parser import Comparison, parse, split_name, string_value, strip_backticks
from headrace.db.query import Dialect, Query, Statement
from headrace.errors import Declined, InvalidParameter
from headrace.resources.traces.messages import MetricAggregation, QueryTraceMetrics
from headrace.resources.traces.search import PROMPTS
from headrace.resources.traces.search_sql import condition

_NUMBERS = frozenset({"SUM", "AVG", "MIN", "MAX", "PERCENTILE"})
_RANGE = _NUMBERS - {"SUM"}
_COUNT = frozenset({"COUNT"})
_NS = 1_000_000
_BUCKET = "time_bucket"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST = 2**63 - 1


class _Metric(NamedTuple):
    column: str
    aggregations: frozenset[str]
    dimensions: frozenset[str]


_TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_COSTS = ("input_cost", "output_cost", "total_cost")
_BY_NAME, _BY_MODEL = frozenset({"trace_name"}), frozenset({"span_model_name", "span_model_provider"})
# view -> metric -> what may be asked of it, in stock's order
_METRICS: dict[str, dict[str, _Metric]] = {
    "TRACES": {
        "trace_count": _Metric("t.request_id", _COUNT, frozenset({"trace_name", "trace_status"})),
        "session_count": _Metric("DISTINCT t.session_id", _COUNT, frozenset()),
        "latency": _Metric("t.execution_time_ms", _RANGE, _BY_NAME),
        **{name: _Metric(f"t.{name}", _NUMBERS, _BY_NAME) for name in _TOKENS},
    },
    "SPANS": {
        "span_count": _Metric("s.span_id", _COUNT, _BY_MODEL | {"span_name", "span_type", "span_status"}),
        "latency": _Metric(
            "((s.end_time_unix_nano - s.start_time_unix_nano) / 1000000)",
            _RANGE,
            frozenset({"span_name", "span_status"}),
        ),
        **{name: _Metric(f"s.{name}", _NUMBERS, _BY_MODEL) for name in _COSTS},
    },
    "ASSESSMENTS": {
        "assessment_count": _Metric("a.assessment_id", _COUNT, frozenset({"assessment_name", "assessment_value"})),
        "assessment_value": _Metric("a.aggregate_value", _RANGE, frozenset({"assessment_name"})),
    },
}
_DIMENSIONS = {
    "trace_name": "t.trace_name",
    "trace_status": "t.status",
    "span_name": "s.name",
    "span_type": "s.type",
    "span_status": "s.status",
    "span_model_name": "s.model_name",
    "span_model_provider": "s.model_provider",
    "assessment_name": "a.name",
    "assessment_value": "a.value",
}
_SPAN_KEYS = {"name": "s.name", "status": "s.status", "type": "s.type"}
_ASSESSMENT_KEYS = {"name": "a.name", "type": "a.assessment_type"}
_VIEW_OF = {"trace": "TRACES", "span": "SPANS", "assessment": "ASSESSMENTS"}


def check(asked: QueryTraceMetrics) -> None:
    """validate_query_trace_metrics_params. Raises InvalidParameter."""
    if not asked.aggregations:  # of which stock tells SQLAlchemy's words
        raise missing("aggregations")
    metrics = _METRICS[asked.view_type]
    metric = metrics.get(asked.metric_name)
    if metric is None:
        raise InvalidParameter(f"metric_name must be one of {list(metrics)}, got '{asked.metric_name}'")
    for aggregation in asked.aggregations:
        _label(aggregation)
    if invalid := {each.aggregation_type for each in asked.aggregations} - metric.aggregations:
        raise InvalidParameter(
            f"Found invalid aggregation_type(s): {sorted(invalid)}. "
            f"Supported aggregation types: {sorted(metric.aggregations)}"
        )
    if wrong := set(asked.dimensions) - metric.dimensions:
        raise InvalidParameter(
            f"Found invalid dimension(s): {sorted(wrong)}. Supported dimensions: {sorted(metric.dimensions)}"
        )
    if asked.time_interval_seconds and (asked.start_time_ms is None or asked.end_time_ms is None):
        raise InvalidParameter("start_time_ms and end_time_ms are required if time_interval_seconds is set")
    if not 0 <= (asked.time_interval_seconds or 0) <= _MOST // 10**9 or asked.max_results < 0:
        raise InvalidParameter("time_interval_seconds and max_results must not be negative, nor beyond all time.")


def _label(aggregation: MetricAggregation) -> str:
    """MetricAggregation.__str__. Raises InvalidParameter, where stock answers 500."""
    percent = aggregation.percentile_value
    if aggregation.aggregation_type != "PERCENTILE":
        if percent is not None:
            raise InvalidParameter(
                f"Percentile value is only allowed for PERCENTILE aggregation type, got {aggregation.aggregation_type}"
            )
        return aggregation.aggregation_type
    if percent is None:
        raise InvalidParameter("Percentile value is required for PERCENTILE aggregation")
    if not 0 <= float(percent) <= 100:
        raise InvalidParameter(f"Percentile value must be between 0 and 100, got {percent}")
    return f"P{float(percent)}"


def query(asked: QueryTraceMetrics, experiment_ids: Sequence[int], dialect: Dialect) -> Query:
    """The rows of an answer: time bucket and dimensions, then a number for each aggregation."""
    sql = Statement(dialect)
    metric = _METRICS[asked.view_type][asked.metric_name]
    filters = [_filter(text) for text in asked.filters]
    by_span_time = asked.view_type == "SPANS" and asked.metric_name in _COSTS
    of_spans_alone = by_span_time and all(each.kind is Kind.SPAN for each in filters)
    if asked.view_type == "TRACES":
        tables, home, moment = "trace_info t", "t.experiment_id", "t.timestamp_ms"
    elif of_spans_alone:
        tables, home, moment = "spans s", "s.experiment_id", "s.start_time_unix_nano"
    elif asked.view_type == "SPANS":
        tables, home = "trace_info t JOIN spans s ON s.trace_id = t.request_id", "t.experiment_id"
        moment = "s.start_time_unix_nano" if by_span_time else "t.timestamp_ms"
    else:
        tables, home, moment = "assessments a", "a.experiment_id", "a.trace_timestamp_ms"
    column = metric.column
    where = [
        sql.in_list(home, experiment_ids, "int"),
        *_times(sql, moment, asked, by_span_time),
        *(_where(sql, each, asked.view_type, experiment_ids) for each in filters),
        f"{column.removeprefix('DISTINCT ')} IS NOT NULL",
    ]
    if asked.view_type == "ASSESSMENTS":
        where.append("a.valid")
    groups = [_bucket(asked.view_type, asked.time_interval_seconds)] if asked.time_interval_seconds else []
    for dimension in asked.dimensions:
        groups.append(_DIMENSIONS[dimension])
        where.append(f"{_DIMENSIONS[dimension]} IS NOT NULL")
    numbers = [_aggregate(sql, each, column) for each in asked.aggregations]
    text = f"SELECT {', '.join([*groups, *numbers])} FROM {tables} WHERE {' AND '.join(where)}"
    if groups:
        places = ", ".join(str(place) for place in range(1, len(groups) + 1))
        text += f" GROUP BY {places} ORDER BY {places}"
    return sql.query(f"{text} LIMIT {sql.bind(asked.max_results)}", replanned=True)


def data_points(asked: QueryTraceMetrics, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """convert_results_to_metric_data_points."""
    names = [_BUCKET] * bool(asked.time_interval_seconds) + asked.dimensions
    labels = [_label(each) for each in asked.aggregations]
    points = []
    for row in rows:
        found = tuple(row)
        values = {
            label: float(number)
            for label, number in zip(labels, found[len(names) :], strict=True)
            if number is not None
        }
        if not values:
            continue
        point: dict[str, Any] = {"metric_name": asked.metric_name}
        if names:
            point["dimensions"] = dict(zip(names, found, strict=False))
        if asked.time_interval_seconds:
            point["dimensions"][_BUCKET] = (_EPOCH + timedelta(milliseconds=int(found[0]))).isoformat()
        points.append({**point, "values": values})
    return points


def _aggregate(sql: Statement, aggregation: MetricAggregation, column: str) -> str:
    if aggregation.aggregation_type != "PERCENTILE":
        return f"{aggregation.aggregation_type.lower()}({column})"
    fraction = float(aggregation.percentile_value or 0) / 100
    if sql.dialect is Dialect.SQLITE:
        return f"percentile_cont({column}, {sql.bind(fraction)})"
    return f"percentile_cont({sql.bind(fraction)}::float8) WITHIN GROUP (ORDER BY {column})"


def _bucket(view: str, seconds: int) -> str:
    """Milliseconds at which the bucket begins, rounded down before 1970, too."""
    column, size = {
        "TRACES": ("t.timestamp_ms", seconds * 1000),
        "SPANS": ("s.start_time_unix_nano", seconds * 1000 * _NS),
        "ASSESSMENTS": ("a.trace_timestamp_ms", seconds * 1000),
    }[view]
    down = f"({column} / {size} - CASE WHEN {column} < 0 AND {column} % {size} <> 0 THEN 1 ELSE 0 END)"
    return f"{down} * {seconds * 1000}"


def _times(sql: Statement, column: str, asked: QueryTraceMetrics, nanoseconds: bool) -> list[str]:
    """Both ends are part of it, the last with all of its nanoseconds."""
    first, last = asked.start_time_ms, asked.end_time_ms
    where = []
    if first is not None:
        begin = first * _NS if nanoseconds else first
        where.append("FALSE" if begin > _MOST else f"{column} >= {sql.bind(max(begin, -_MOST - 1))}")
    if last is not None:
        end = (last + 1) * _NS - 1 if nanoseconds else last
        where.append("FALSE" if end < -_MOST - 1 else f"{column} <= {sql.bind(min(end, _MOST))}")
    return where


def _filter(text: str) -> Condition:
    """SearchTraceMetricsUtils.parse_search_filter: one comparison, with = alone. Raises Declined."""
    if re.search(r"(?i)\A\s*and\b|\band\s*\Z", text):
        raise Declined("MLflow takes one comparison alone")
    conditions = parse(text, _condition)
    if len(conditions) != 1:
        raise Declined("MLflow takes one comparison alone")
    return conditions[0]


def _condition(comparison: Comparison) -> Condition:
    prefix, rest = split_name(comparison.name)
    # the key of a tag or of metadata is the third part, with quotes of its own
    whole = comparison.name.partition(".")[2]
    entity, _, quoted = whole.partition(".")
    key = split_name(quoted)[1] if quoted[:1] in "'\"" and quoted else strip_backticks(quoted)
    view = strip_backticks(prefix or "")
    if comparison.comparator != "=" or view not in _VIEW_OF or not rest:
        raise Declined("a filter that MLflow refuses")
    value = string_value(comparison.value)
    if view == "trace":
        if entity == "status" and not quoted:
            return Condition(Kind.ATTRIBUTE, "status", "=", value)
        if entity in ("tag", "metadata") and key:
            kind = Kind.TAG if entity == "tag" else Kind.METADATA
            if key == PROMPTS:
                raise Declined("a tag that is a link")
            return Condition(kind, key, "=", value)
    elif not quoted and entity in (_SPAN_KEYS if view == "span" else _ASSESSMENT_KEYS):
        return Condition(Kind.SPAN if view == "span" else Kind.FEEDBACK, entity, "=", value)
    raise Declined("a filter that MLflow refuses")


def _where(sql: Statement, given: Condition, view: str, experiment_ids: Sequence[int]) -> str:
    if given.kind is Kind.SPAN:
        if view != "SPANS":
            raise InvalidParameter(f"Filtering by span is only supported for SPANS view type, got {view}")
        return f"{_SPAN_KEYS[given.key]} = {sql.bind(given.value)}"
    if given.kind is Kind.FEEDBACK:
        if view != "ASSESSMENTS":
            raise InvalidParameter(f"Filtering by assessment is only supported for ASSESSMENTS view type, got {view}")
        return f"{_ASSESSMENT_KEYS[given.key]} = {sql.bind(given.value)}"
    met = condition(sql, given, experiment_ids)
    if view == "ASSESSMENTS":
        return f"EXISTS (SELECT 1 FROM trace_info t WHERE t.request_id = a.trace_id AND {met})"
    return met
