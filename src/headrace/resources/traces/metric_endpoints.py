"""Numbers about many traces: the overview's charts, and how two filters go together.

What is declined: filters that stock refuses, or that are not certain to mean the same here.
"""

from __future__ import annotations

from headrace.api.endpoint import Call, endpoint
from headrace.api.search.sql import no_pattern_for_stock
from headrace.auth.objects import Experiment
from headrace.auth.principals import Right
from headrace.resources import validation as valid
from headrace.resources.traces import correlation, messages, metrics, search, search_sql

_TABLES = ("trace_info", "trace_tags", "trace_request_metadata", "assessments", "spans", "entity_associations")
_EXPERIMENTS = Experiment("experiment_ids")


@endpoint("POST", "3.0/mlflow/traces/metrics", Right.READ, _EXPERIMENTS, *_TABLES, replica=True)
async def query_trace_metrics(call: Call, message: messages.QueryTraceMetrics) -> object:
    """SqlAlchemyStore.query_trace_metrics."""
    metrics.check(message)
    experiment_ids = valid.experiment_ids(message.experiment_ids)
    rows = await call.db.rows(metrics.query(message, experiment_ids, call.db.dialect))
    points = metrics.data_points(message, rows)
    return {"data_points": points} if points else {}


@endpoint("POST", "3.0/mlflow/traces/calculate-filter-correlation", Right.READ, _EXPERIMENTS, *_TABLES, replica=True)
async def calculate_filter_correlation(call: Call, message: messages.CorrelateFilters) -> object:
    """SqlAlchemyStore.calculate_trace_filter_correlation."""
    base, texts = message.base_filter, (message.filter_string1, message.filter_string2)
    with no_pattern_for_stock(call.db.dialect, base, *texts):
        one, other = (search.parse_filter(f"{base} and {text}" if base else text) for text in texts)
    experiment_ids = valid.experiment_ids(message.experiment_ids)
    total = first = second = both = 0
    if experiment_ids:
        query = search_sql.count(experiment_ids, search.parse_filter(base), one, other, call.db.dialect, call.grantees)
        [(total, first, second, both)] = map(tuple, await call.db.rows(query))
    answer: dict[str, float | int] = {}
    for name, prior in (("npmi", 0.0), ("npmi_smoothed", correlation.SMOOTHED)):
        score = correlation.npmi(both, first, second, total, prior)
        if score is not None:
            answer[name] = score
    counts = {"filter1_count": first, "filter2_count": second, "joint_count": both, "total_count": total}
    return answer | counts
