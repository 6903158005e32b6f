"""Endpoints of metric histories: what a run logged, whole, in pages, or a sample for a chart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.api.endpoint import AJAX, Call, endpoint
from headrace.api.message import SEE_DOCS, missing
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.auth.objects import Run
from headrace.auth.principals import Right
from headrace.db.database import Database
from headrace.entities import Metric, RunMetric, number
from headrace.errors import InvalidParameter
from headrace.resources import validation as valid
from headrace.resources.metrics import messages, sql
from headrace.resources.metrics.sql import Steps

# mlflow/server/handlers.py
MAX_HISTORY_RESULTS = 25_000
MAX_RUNS = 100
MAX_RESULTS_PER_RUN = 2_500
# Runs whose histories one request reads at the same time; a few connections are left to others.
SAMPLED_AT_ONCE = 4


@endpoint("GET", "2.0/mlflow/metrics/get-history", Right.READ, Run("run_id", "run_uuid"), "metrics", replica=True)
async def get_history(call: Call, message: messages.GetMetricHistory) -> object:
    """SqlAlchemyStore.get_metric_history."""
    run_id = message.run_id or message.run_uuid
    if not run_id:
        raise missing("run_id")
    limit = message.max_results
    if limit is not None and limit <= 0:
        raise InvalidParameter(
            f"Invalid value {limit} for parameter 'max_results' supplied. It must be a positive integer."
        )
    key = valid.without_nul(message.metric_key, "metric_key")
    offset = page_token.decode(message.page_token, "").offset
    statement = sql.metric_history(valid.without_nul(run_id, "run_id"), key, limit, offset, call.db.dialect)
    rows = await call.db.rows(statement)
    page = rows if limit is None else rows[:limit]
    answer: dict[str, object] = {}
    if page:
        answer["metrics"] = [Metric(key, number(value), timestamp, step) for value, timestamp, step in page]
    if len(rows) > len(page):
        answer["next_page_token"] = page_token.encode(PageToken(offset + len(page)))
    return answer


@endpoint("GET", "2.0/mlflow/metrics/get-history-bulk", Right.READ, Run("run_id"), "metrics", apis=AJAX, replica=True)
async def get_history_bulk(call: Call, message: messages.GetMetricHistoryBulk) -> object:
    """SqlAlchemyStore.get_metric_history_bulk."""
    run_ids = message.run_id
    if not run_ids:
        raise InvalidParameter("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(run_ids) > MAX_RUNS:
        raise InvalidParameter(
            f"GetMetricHistoryBulk request cannot specify more than {MAX_RUNS} run_ids. "
            f"Received {len(run_ids)} run_ids."
        )
    if message.metric_key is None:
        raise InvalidParameter("GetMetricHistoryBulk request must specify a metric_key.")
    if message.max_results <= 0:
        raise InvalidParameter(
            f"Invalid value {message.max_results} for parameter 'max_results' supplied. It must be a positive integer."
        )
    limit = min(message.max_results, MAX_HISTORY_RESULTS)
    _check_texts(run_ids, message.metric_key)
    rows = await call.db.rows(sql.metric_history_bulk(run_ids, message.metric_key, limit, call.db.dialect))
    metrics = [
        RunMetric(message.metric_key, number(value), timestamp, step, run_id) for run_id, value, timestamp, step in rows
    ]
    if any(isinstance(metric.value, str) for metric in metrics):
        # this endpoint of stock's does not go through protobuf: it writes NaN and infinities as Python's json does
        builtins = [{**msgspec.to_builtins(metric), "value": float(metric.value)} for metric in metrics]
        return json.dumps({"metrics": builtins}).encode()
    return {"metrics": metrics}


@endpoint("GET", "2.0/mlflow/metrics/get-history-bulk-interval", Right.READ, Run("run_ids"), "metrics", replica=True)
async def get_history_bulk_interval(call: Call, message: messages.GetMetricHistoryBulkInterval) -> object:
    """SqlAlchemyStore.get_metric_history_bulk_interval."""
    run_ids = message.run_ids
    if not run_ids:
        raise missing("run_ids")
    if len(run_ids) > MAX_RUNS:
        raise InvalidParameter(
            f"GetMetricHistoryBulkInterval request must specify at most {MAX_RUNS} run_ids. "
            f"Received {len(run_ids)} run_ids.{SEE_DOCS}"
        )
    count = MAX_RESULTS_PER_RUN if message.max_results is None else message.max_results
    if not 1 <= count <= MAX_RESULTS_PER_RUN:
        raise InvalidParameter(f"max_results must be between 1 and {MAX_RESULTS_PER_RUN}.{SEE_DOCS}")
    steps: Steps = None
    if message.start_step is not None or message.end_step is not None:
        if message.start_step is None or message.end_step is None:
            raise InvalidParameter("If either start step or end step are specified, both must be specified.")
        if message.start_step > message.end_step:
            raise InvalidParameter(
                "end_step must be greater than start_step. "
                f"Found start_step={message.start_step} and end_step={message.end_step}."
            )
        steps = message.start_step, message.end_step
    _check_texts(run_ids, message.metric_key)
    distinct = list(dict.fromkeys(run_ids))
    turns = asyncio.Semaphore(SAMPLED_AT_ONCE)

    async def sample(run_id: str) -> Sequence[Any]:
        async with turns:
            return await _sample(call.db, run_id, message.metric_key, count, steps)

    samples = dict(zip(distinct, await asyncio.gather(*map(sample, distinct)), strict=True))
    metrics = [
        RunMetric(message.metric_key, number(value), timestamp, step, run_id)
        for run_id in run_ids
        for value, timestamp, step in samples[run_id]
    ]
    return {"metrics": metrics} if metrics else {}


async def _sample(db: Database, run_id: str, key: str, count: int, steps: Steps) -> Sequence[Any]:
    """(value, timestamp, step) of up to `count` points, spread evenly by step, timestamp and value, with the last."""
    [shape] = await db.rows(sql.metric_shape(run_id, key, steps, db.dialect))
    total, different_steps, first, last = shape
    if not total:
        return ()
    row_numbers = sampled_rows(total, count)
    if total == different_steps == last - first + 1:
        # one point a step, as a training loop logs them: the numbers say which steps, and an index finds those
        wanted = [first + number - 1 for number in row_numbers]
        return await db.rows(sql.metric_at_steps(run_id, key, wanted, db.dialect))
    return await db.rows(sql.metric_at_rows(run_id, key, steps, row_numbers, db.dialect))


def sampled_rows(total: int, count: int) -> list[int]:
    """Which of `total` points, counted from 1, MLflow samples when it wants `count`.

    The first point of each of the `count` buckets that NTILE makes (the first total % count of them are one larger),
    but the last point in place of the last bucket's (SqlAlchemyStore._sample_rows_with_window_functions).
    """
    if total <= count:
        return list(range(1, total + 1))
    size, larger = divmod(total, count)
    starts = [1 + bucket * size + min(bucket, larger) for bucket in range(count)]
    return [*starts[:-1], total]


def _check_texts(run_ids: Sequence[str], key: str) -> None:
    valid.without_nul(key, "metric_key")
    for run_id in run_ids:
        valid.without_nul(run_id, "run_id")
