"""MlflowClient and mlflow.search_runs against both servers on one database: the same entities, the same DataFrame."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.reading import Readers

with warnings.catch_warnings():
    # MLflow's own imports warn; they are not what is tested here.
    warnings.simplefilter("ignore")
    import mlflow
    from mlflow import MlflowClient


def all_runs(client: MlflowClient, experiments: list[str]) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            experiments, "tags.t != 'q'", order_by=["metrics.m DESC"], max_results=9, page_token=token
        )
        found += [_in_order(run.to_dictionary()) for run in page]
        token = page.token
        if not token:
            return found


def _in_order(run: dict[str, Any]) -> dict[str, Any]:
    """Stock gives a run's datasets in whatever order the database does."""
    run["inputs"]["dataset_inputs"].sort(key=lambda given: (given["dataset"]["name"], given["dataset"]["digest"]))
    return run


READS: dict[str, Callable[[MlflowClient, Readers], Any]] = {
    "search_runs": lambda client, readers: all_runs(client, readers.experiments),
    "search_experiments": lambda client, _: [dict(e) for e in client.search_experiments(view_type=3, max_results=4)],
    "get_experiment": lambda client, _: dict(client.get_experiment("3")),
    "get_experiment_by_name": lambda client, _: client.get_experiment_by_name("日本"),
    "no experiment": lambda client, _: client.get_experiment_by_name("nobody"),
    "history": lambda client, readers: [dict(m) for m in client.get_metric_history(readers.histories[4], "all finite")],
    "long history": lambda client, readers: len(client.get_metric_history(readers.histories[4], "h")),
    "run": lambda client, readers: client.get_run(readers.histories[1]).info.run_name,
}


@pytest.mark.parametrize("name", READS)
def test_client(readers: Readers, name: str) -> None:
    stock, headrace = (READS[name](MlflowClient(url), readers) for url in readers.urls)
    # as text, because NaN is not equal to itself
    assert json.dumps(headrace, sort_keys=True, default=repr) == json.dumps(stock, sort_keys=True, default=repr)


def test_data_frame(readers: Readers) -> None:
    frames = []
    try:
        for url in readers.urls:
            mlflow.set_tracking_uri(url)
            frames.append(mlflow.search_runs(readers.experiments, "metrics.m > 0", order_by=["params.p", "start_time"]))
    finally:
        mlflow.set_tracking_uri("")
    stock, headrace = (frame.reindex(sorted(frame.columns), axis=1) for frame in frames)
    assert len(stock) > 3
    assert headrace.equals(stock)
