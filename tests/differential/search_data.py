"""Runs that are hard to search: NaN, infinities, empty strings, quotes, Unicode, missing values, deleted runs.

They are written by stock's own store, in this process, so that a search can be compared with stock's in milliseconds.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Sequence
from typing import Any

import sqlalchemy

with warnings.catch_warnings():
    # MLflow's own imports warn; they are not what is tested here.
    warnings.simplefilter("ignore")
    from mlflow.entities import Dataset, DatasetInput, ExperimentTag, InputTag, Metric, Param, RunStatus, RunTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils.proto_json_utils import message_to_json

from tests.support.databases import Database

RUNS = 60
TEXTS = (
    "",
    "a",
    "A",
    "b",
    "it's",
    '"x"',
    "100%",
    "a_b",
    "a\\b",
    "ß",
    "日本語",
    "\U0001f600",
    " a",
    "'; DROP TABLE runs; --",
)
NUMBERS = (0.0, -0.0, 0.5, 1.0, -1.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"))
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
METRIC_KEYS = ("m", "val loss", "größe/x", "created")
PARAM_KEYS = ("p", "a.b", "with space", "日")
TAG_KEYS = ("t", "mlflow.user", "it s")
DATASETS = (("train", "d1"), ("train", "d2"), ("Eval", "d1"))
EXPERIMENTS = ("it's", "Zoë", "zoë", "日本", "100%", "a_b", "second copy", "A", "a")
CONTEXTS = ("training", "eval", "")
# The steps of histories. With 41 points, ten of them are sampled at -20, -15, -11, -7, ...
STEPS: tuple[Sequence[int], ...] = (
    range(-20, 21),
    range(-100, 2_000, 50),
    [-11 if step == -10 else step for step in range(-20, 21)],  # the step behind a sampled one is there twice
    [-6 if step == -7 else step for step in range(-20, 21)],  # a sampled one is missing
    [20 if step == 19 else step for step in range(-20, 21)],  # the last is there twice
    [-20 if step == -19 else step for step in range(-20, 21)],
    [7] * 30,
    [0, *range(1_000, 1_040)],
    [number * number for number in range(40)],
    [-(2**63), 2**63 - 1],
)


def open_stock(database: Database, folder: str) -> SqlAlchemyStore:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SqlAlchemyStore(database.uri, folder)


def fill(store: SqlAlchemyStore) -> list[str]:
    """Experiments with runs, the last one without; their ids. The same every time but for run ids."""
    chance = random.Random(7)
    experiments = ["0", store.create_experiment("second"), store.create_experiment("empty")]
    for number in range(RUNS):
        _run(store, chance, experiments[number % 2], number)
    _age(store)
    for number, name in enumerate(EXPERIMENTS):
        tags = [ExperimentTag(key, chance.choice(TEXTS)) for key in TAG_KEYS if chance.random() < 0.7]
        experiment = store.create_experiment(name, None, tags)
        if number % 3 == 2:
            store.delete_experiment(experiment)
    return experiments


def _age(store: SqlAlchemyStore) -> None:
    """Some runs as MLflow before 1.30 left them: their name is in the tag alone, or they have none."""
    with store.engine.begin() as connection:
        for text in (
            "UPDATE runs SET name = '' WHERE start_time % 5 = 1",
            "UPDATE runs SET name = NULL WHERE start_time % 5 = 2",
            "DELETE FROM tags WHERE key = 'mlflow.runName'"
            " AND run_uuid IN (SELECT run_uuid FROM runs WHERE start_time % 10 IN (1, 2))",
        ):
            connection.execute(sqlalchemy.text(text))


def fill_histories(store: SqlAlchemyStore) -> list[str]:
    """Runs with histories of the metric "h": of several lengths, with repeated steps and NaN; without; of STEPS."""
    chance = random.Random(11)
    runs = [store.create_run("0", "me", 1, [], "history").info.run_id for _ in range(6 + len(STEPS))]
    for run_id, points in zip(runs, (1, 7, 320, 321, 1_000), strict=False):
        steps = points if points % 2 else 50
        metrics = [
            Metric("h", chance.choice([float("nan"), number / 7, 0.0]), 5 + number // 3, number % steps)
            for number in range(points)
        ]
        for begin in range(0, points, 500):
            store.log_batch(run_id, metrics[begin : begin + 500], [], [])
    store.log_batch(runs[0], [Metric("all finite", step / 3, step, step) for step in range(40)], [], [])
    store.log_batch(runs[0], [Metric("around NaN", value, 5, 3) for value in (1.0, float("nan"), -1.0)], [], [])
    for run_id, each in zip(runs[6:], STEPS, strict=True):
        # two to a timestamp; NaN is stored as 0, and comes behind it
        values = [chance.choice([0.0, float("nan"), 1.0]) for _ in each]
        metrics = [Metric("h", value, 5 + place // 2, each[place]) for place, value in enumerate(values)]
        store.log_batch(run_id, metrics, [], [])
    return runs


def _run(store: SqlAlchemyStore, chance: random.Random, experiment: str, number: int) -> None:
    # start times repeat, so that run ids must break ties
    name = chance.choice([*(text for text in TEXTS if text), "run"])
    run = store.create_run(experiment, chance.choice(["", "me"]), 1_000 + number // 4, [], name)
    run_id = run.info.run_id
    some = [key for key in METRIC_KEYS if chance.random() < 0.7]
    metrics = [Metric(key, chance.choice(NUMBERS), chance.randrange(5), chance.randrange(3)) for key in some]
    params = [Param(key, chance.choice(TEXTS)) for key in PARAM_KEYS if chance.random() < 0.7]
    tags = [RunTag(key, chance.choice(TEXTS)) for key in TAG_KEYS if chance.random() < 0.7]
    store.log_batch(run_id, metrics, params, tags)
    if chance.random() < 0.5:
        store.log_inputs(run_id, [_dataset_input(chance, *dataset) for dataset in chance.sample(DATASETS, 2)])
    if chance.random() < 0.8:
        store.update_run_info(
            run_id, RunStatus.from_string(chance.choice(STATUSES)), chance.choice([None, 2_000, 3_000]), None
        )
    if chance.random() < 0.2:
        store.delete_run(run_id)


def _dataset_input(chance: random.Random, name: str, digest: str) -> DatasetInput:
    dataset = Dataset(name, digest, "local", "{}", chance.choice([None, "{}"]), None)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", chance.choice(CONTEXTS)), InputTag("x", "y")])


def as_proto(run: Any) -> Any:
    """A run of stock's as its JSON answer has it, as Python objects."""
    return json.loads(message_to_json(run.to_proto()))


def in_order(run: dict[str, Any]) -> dict[str, Any]:
    """MLflow gives data, datasets and tags in no order."""
    for entities in (run["data"], run.get("inputs", {})):
        for rows in entities.values():
            rows.sort(key=lambda row: row.get("key") or row["dataset"]["name"] + row["dataset"]["digest"])
            for row in rows:
                row.get("tags", []).sort(key=lambda tag: tag["key"])
    return run
