"""Native endpoints that search: runs/search, experiments/search and experiments/search-datasets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace import wire
from headrace.api.query import fields, one_each
from headrace.api.search import page_token
from headrace.api.search.ast import ExperimentSearch, RunSearch
from headrace.api.search.page_token import PageToken
from headrace.db.base import Store
from headrace.entities import EncodedRun, Run
from headrace.resources.experiments import search as experiments
from headrace.resources.runs import search as runs

STAGES = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}
RUNS_AT_ONCE = 1_000

_SEARCH_RUNS = wire.decoder(wire.SearchRuns)
_SEARCH_EXPERIMENTS = wire.decoder(wire.SearchExperiments)
_SEARCH_DATASETS = wire.decoder(wire.SearchDatasets)


async def search_runs(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/search (SqlAlchemyStore._search_runs)."""
    given = wire.decode(_SEARCH_RUNS, body)
    conditions = runs.parse_filter(given.filter)
    order = runs.parse_order(given.order_by)
    experiments = tuple(sorted({int(experiment_id) for experiment_id in given.experiment_ids}))
    fingerprint = page_token.fingerprint(experiments, given.run_view_type, given.filter, given.order_by)
    token = page_token.decode(given.page_token, fingerprint)
    search = RunSearch(
        experiments, STAGES[given.run_view_type], conditions, order, given.max_results, token.offset, token.after
    )
    page = await store.search_runs_encoded(search)
    answer: dict[str, object] = {"runs": await _encoded(page.runs)} if page.runs else {}
    if page.after is not None:
        next_page = PageToken(token.offset + len(page.runs), page.after, fingerprint)
        answer["next_page_token"] = page_token.encode(next_page)
    return wire.encode(answer)


async def _encoded(runs: Sequence[Run | EncodedRun]) -> wire.Raw:
    """The JSON of the runs, made in portions that don't hold up the others on this event loop."""
    portions = []
    for begin in range(0, len(runs), RUNS_AT_ONCE):
        portions.append(wire.encode(runs[begin : begin + RUNS_AT_ONCE])[1:-1])
        await asyncio.sleep(0)
    return wire.Raw(b"[%b]" % b",".join(portions))


async def search_experiments(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/search (SqlAlchemyStore._search_experiments)."""
    return await _search_experiments(store, wire.decode(_SEARCH_EXPERIMENTS, body))


async def search_experiments_by_query(store: Store, body: bytes, query: bytes) -> bytes:
    """GET experiments/search?max_results=..., which the UI sends."""
    given = one_each(fields(body, query, {"max_results", "view_type", "filter", "page_token"}, {"order_by"}))
    return await _search_experiments(store, wire.convert(given, wire.SearchExperiments))


async def _search_experiments(store: Store, given: wire.SearchExperiments) -> bytes:
    conditions = experiments.parse_filter(given.filter)
    order = experiments.parse_order(given.order_by)
    fingerprint = page_token.fingerprint("experiments", given.view_type, given.filter, given.order_by)
    token = page_token.decode(given.page_token, fingerprint)
    stages = STAGES[given.view_type]
    search = ExperimentSearch(stages, conditions, order, given.max_results, token.offset, token.after)
    page = await store.search_experiments(search)
    answer: dict[str, object] = {"experiments": page.experiments} if page.experiments else {}
    if page.more:
        next_page = PageToken(token.offset + given.max_results, page.after, fingerprint if page.after else "")
        answer["next_page_token"] = page_token.encode(next_page)
    return wire.encode(answer)


async def search_datasets(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/search-datasets (SqlAlchemyStore._search_datasets)."""
    given = wire.decode(_SEARCH_DATASETS, body)
    found = await store.search_datasets(sorted({int(experiment_id) for experiment_id in given.experiment_ids}))
    return wire.encode({"dataset_summaries": found} if found else {})
