"""metrics/get-history, get-history-bulk and get-history-bulk-interval: as stock answers them on the same database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.differential.reading import Readers

HISTORY, BULK, INTERVAL = "metrics/get-history", "metrics/get-history-bulk", "metrics/get-history-bulk-interval"
EACH = range(6)


@pytest.mark.parametrize("run", EACH)
@pytest.mark.parametrize("key", ["h", "all finite", "around NaN", "missing"])
def test_whole_histories(readers: Readers, run: int, key: str) -> None:
    run_id = readers.histories[run]
    readers.compare(HISTORY, {"run_id": run_id, "run_uuid": run_id, "metric_key": key}, "get")


@pytest.mark.parametrize("run", EACH)
def test_histories_in_pages(readers: Readers, run: int) -> None:
    query: dict[str, Any] = {"run_id": readers.histories[run], "metric_key": "h", "max_results": 100}
    while True:
        answer = readers.compare(HISTORY, query, "get")
        if "next_page_token" not in answer:
            return
        query["page_token"] = answer["next_page_token"]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"run_id": "{run}"},
        {"metric_key": "h"},
        {"run_id": "", "metric_key": "h"},
        {"run_id": "{run}", "metric_key": ""},
        {"run_id": "{run}", "metric_key": "h", "max_results": 0},
        {"run_id": "{run}", "metric_key": "h", "max_results": -3},
        {"run_id": "{run}", "metric_key": "h", "max_results": "x"},
        {"run_id": "{run}", "metric_key": "h", "max_results": 10**12},
        {"run_id": "{run}", "metric_key": "h", "page_token": "x"},
    ],
    ids=str,
)
def test_history_declined(readers: Readers, query: dict[str, Any]) -> None:
    given = {name: readers.histories[0] if value == "{run}" else value for name, value in query.items()}
    readers.compare(HISTORY, given, "get", native=None)


def test_an_unknown_run_has_no_history(readers: Readers) -> None:
    readers.compare(HISTORY, {"run_id": "0" * 32, "metric_key": "h"}, "get")


@pytest.mark.parametrize("key", ["all finite", "missing"])
@pytest.mark.parametrize("limit", [None, 1, 10, 100_000])
def test_bulk(readers: Readers, key: str, limit: int | None) -> None:
    query = {"run_id": readers.histories, "metric_key": key} | ({} if limit is None else {"max_results": limit})
    readers.compare(BULK, query, "get")


@pytest.mark.parametrize("key", ["h", "around NaN"])
def test_bulk_with_nan(readers: Readers, key: str) -> None:
    answers = [
        readers.get(server, BULK, {"run_id": readers.histories[: len(EACH)], "metric_key": key})
        for server in ("stock", "headrace")
    ]
    # as text, because NaN is not equal to itself
    assert json.dumps(answers[0].body, sort_keys=True) == json.dumps(answers[1].body, sort_keys=True)
    assert answers[1].native


@pytest.mark.parametrize(
    "query", [{}, {"run_id": ["x"]}, {"metric_key": "h"}, {"run_id": ["x"] * 101, "metric_key": "h"}]
)
def test_bulk_declined(readers: Readers, query: dict[str, Any]) -> None:
    readers.compare(BULK, query, "get", native=None)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 319, 320, 321, 2_500])
@pytest.mark.parametrize("steps", [None, (0, 100), (3, 3), (10, 49), (-15, 12), (5_000, 6_000)], ids=str)
def test_samples(readers: Readers, count: int, steps: tuple[int, int] | None) -> None:
    query: dict[str, Any] = {"run_ids": readers.histories[::-1], "metric_key": "h", "max_results": count}
    if steps is not None:
        query |= {"start_step": steps[0], "end_step": steps[1]}
    readers.compare(INTERVAL, query, "get")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"run_ids": ["{run}"]},
        {"run_ids": ["{run}"], "metric_key": "h", "start_step": 1},
        {"run_ids": ["{run}"], "metric_key": "h", "start_step": 5, "end_step": 1},
        {"run_ids": ["{run}"], "metric_key": "h", "max_results": 0},
        {"run_ids": ["{run}"], "metric_key": "h", "max_results": 2_501},
        {"run_ids": ["{run}"], "metric_key": "h", "max_results": 10**12},
        {"run_ids": ["{run}"], "metric_key": "h", "start_step": 0, "end_step": 10**12},
        {"run_ids": ["{run}"] * 2, "metric_key": "h"},
        {"run_ids": ["{run}"] * 101, "metric_key": "h"},
    ],
    ids=lambda query: str(query)[:60],
)
def test_samples_declined(readers: Readers, query: dict[str, Any]) -> None:
    given = dict(query)
    if "run_ids" in given:
        given["run_ids"] = [readers.histories[0] for _ in given["run_ids"]]
    readers.compare(INTERVAL, given, "get", native=None)


def test_steps_beyond_64_bits(readers: Readers) -> None:
    query = {"run_ids": [readers.histories[0]], "metric_key": "h", "start_step": 0, "end_step": 10**30}
    expected, found = readers.get("stock", INTERVAL, query), readers.get("headrace", INTERVAL, query)
    if expected.status == 500:  # on SQLite
        assert (found.status, found.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    else:
        assert found.status in (expected.status, 400)
