"""Native endpoints of metric histories: what a run logged, whole, in pages, or a sample for a chart."""

from __future__ import annotations

import json

from headrace import wire
from headrace.api.query import fields, integer
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.db.base import Store
from headrace.resources import validation as valid

# mlflow/server/handlers.py
MAX_HISTORY_RESULTS = 25_000
MAX_RUNS = 100
MAX_RESULTS_PER_RUN = 2_500


async def get_history(store: Store, body: bytes, query: bytes) -> bytes:
    """GET metrics/get-history?run_id=...&metric_key=... (SqlAlchemyStore.get_metric_history)."""
    given = fields(body, query, {"run_id", "run_uuid", "metric_key", "max_results", "page_token"})
    valid.require("run_id" in given and "metric_key" in given, "a field is missing")
    run_id, key = given["run_id"][0], given["metric_key"][0]
    valid.require(bool(run_id and key), "an empty field")
    limit = integer(given["max_results"][0]) if "max_results" in given else None
    valid.require(limit is None or limit > 0, "no positive max_results")
    offset = page_token.decode(given.get("page_token", [""])[0], "").offset
    history = await store.metric_history(run_id, key, limit, offset)
    answer: dict[str, object] = {"metrics": history.metrics} if history.metrics else {}
    if history.more:
        answer["next_page_token"] = page_token.encode(PageToken(offset + len(history.metrics)))
    return wire.encode(answer)


async def get_history_bulk(store: Store, body: bytes, query: bytes) -> bytes:
    """GET metrics/get-history-bulk?run_id=...&run_id=...&metric_key=... (SqlAlchemyStore.get_metric_history_bulk)."""
    given = fields(body, query, {"metric_key", "max_results"}, {"run_id"})
    run_ids = given.get("run_id", [])
    valid.require(0 < len(run_ids) <= MAX_RUNS and "metric_key" in given, "a field is missing, or too many runs")
    limit = integer(given["max_results"][0]) if "max_results" in given else MAX_HISTORY_RESULTS
    valid.require(limit > 0, "no positive max_results")
    metrics = await store.metric_history_bulk(run_ids, given["metric_key"][0], min(limit, MAX_HISTORY_RESULTS))
    if any(metric.value == "NaN" for metric in metrics):
        # this endpoint of stock's does not go through protobuf: it writes NaN as Python's json does
        rows = [{**wire.to_builtins(metric), "value": float(metric.value)} for metric in metrics]
        return json.dumps({"metrics": rows}).encode()
    return wire.encode({"metrics": metrics})


async def get_history_bulk_interval(store: Store, body: bytes, query: bytes) -> bytes:
    """GET metrics/get-history-bulk-interval (SqlAlchemyStore.get_metric_history_bulk_interval)."""
    given = fields(body, query, {"metric_key", "max_results", "start_step", "end_step"}, {"run_ids"})
    run_ids = given.get("run_ids", [])
    valid.require(0 < len(run_ids) <= MAX_RUNS and len(set(run_ids)) == len(run_ids), "run_ids")
    valid.require("metric_key" in given and ("start_step" in given) == ("end_step" in given), "a field is missing")
    count = integer(given["max_results"][0]) if "max_results" in given else MAX_RESULTS_PER_RUN
    valid.require(1 <= count <= MAX_RESULTS_PER_RUN, "max_results")
    steps = None
    if "start_step" in given:
        steps = integer(given["start_step"][0]), integer(given["end_step"][0])
        valid.require(steps[0] <= steps[1], "the steps are the wrong way round")
    metrics = await store.metric_samples(run_ids, given["metric_key"][0], count, steps)
    return wire.encode({"metrics": metrics} if metrics else {})
