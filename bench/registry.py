"""Models beside stock's, registered and logged: `python -m bench.registry [--quick] [--postgresql | --sqlite]`.

There are 5,000 registered models with tags, an alias and two versions each, one with 1,000 versions, and 10,000 logged
models with five metrics, two params and two tags each. All servers run on copies of the same data, turn by turn;
printed are the medians of the rounds, and Headrace against the best of stock's set-ups. The last row is of MLflow's
own client, and of the time that its requests take.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial

from bench import api
from bench.databases import KINDS
from bench.turns import ROUNDS, SECONDS, Row, Table, Task, client, compare

MODELS, VERSIONS, MANY = 5_000, 2, 1_000
LOGGED = 10_000
_NUMBERS = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {})"
_MODELS = f"{_NUMBERS.format(MODELS)}, models (name, n) AS (SELECT 'model ' || n, n FROM numbers)"
FILL = (
    f"""INSERT INTO registered_models (workspace, name, creation_time, last_updated_time, description)
    {_MODELS} SELECT 'default', name, 1700000000000, 1700000000000 + n, 'a model' FROM models
    UNION ALL SELECT 'default', 'versions', 1700000000000, 1700000000000, 'a model'""",
    f"""INSERT INTO registered_model_tags (workspace, name, key, value)
    {_MODELS}, tags (key, value) AS (SELECT 'team', 'fraud' UNION ALL SELECT 'stage', 'trial'
      UNION ALL SELECT 'note', 'a text of some words')
    SELECT 'default', name, key, value FROM models CROSS JOIN tags""",
    f"""INSERT INTO model_versions (workspace, name, version, creation_time, last_updated_time, current_stage, source,
      storage_location, run_id, status, description, run_link)
    {_NUMBERS.format(max(MANY, MODELS))}, versions (name, version) AS (
      SELECT 'model ' || n, v FROM numbers CROSS JOIN (SELECT 1 AS v UNION ALL SELECT 2) v WHERE n <= {MODELS}
      UNION ALL SELECT 'versions', n FROM numbers WHERE n <= {MANY})
    SELECT 'default', name, version, 1700000000000, 1700000000000 + version, 'None', 's3://bucket/' || version,
      's3://bucket/' || version, '0123456789abcdef0123456789abcdef', 'READY', '', '' FROM versions""",
    """INSERT INTO model_version_tags (workspace, name, version, key, value)
    SELECT 'default', name, version, 'checked', 'yes' FROM model_versions
    UNION ALL SELECT 'default', name, version, 'note', 'a text of some words' FROM model_versions""",
    """INSERT INTO registered_model_aliases (workspace, name, alias, version)
    SELECT 'default', name, 'best', version FROM model_versions WHERE version = 2""",
    """INSERT INTO experiments (experiment_id, workspace, name, artifact_location, lifecycle_stage, creation_time,
      last_update_time) VALUES (7, 'default', 'models', 's3://bucket/7', 'active', 1700000000000, 1700000000000)""",
    """INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, lifecycle_stage, artifact_uri)
    VALUES ('0123456789abcdef0123456789abcdef', 'a run', 7, 'FINISHED', 1700000000000, 'active', 's3://bucket/7/r')""",
    f"""INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,
      last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id)
    {_NUMBERS.format(LOGGED)} SELECT 'm-' || n, 7, 'model', 's3://bucket/7/models/m-' || n, 1700000000000 + n,
      1700000000000 + n, 1, 'active', 'Agent', '0123456789abcdef0123456789abcdef' FROM numbers""",
    f"""INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value,
      experiment_id, run_id)
    {_NUMBERS.format(5)} SELECT model_id, 'metric' || n, creation_timestamp_ms, 0, (creation_timestamp_ms + n) % 100,
      7, '0123456789abcdef0123456789abcdef' FROM logged_models CROSS JOIN numbers""",
    f"""INSERT INTO logged_model_params (model_id, experiment_id, param_key, param_value)
    {_NUMBERS.format(2)} SELECT model_id, 7, 'param' || n, 'a value' FROM logged_models CROSS JOIN numbers""",
    f"""INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value)
    {_NUMBERS.format(2)} SELECT model_id, 7, 'tag' || n, 'a value' FROM logged_models CROSS JOIN numbers""",
)


def _get(path: str) -> bytes:
    return api.request("GET", path)


def _new_version(number: int) -> bytes:
    content = {"name": f"model {number % MODELS + 1}", "source": "s3://bucket/a", "tags": []}
    return api.post("model-versions/create", content)


def _logged_model(number: int) -> bytes:
    """Create one, or finalize another: as many of each."""
    if number % 2:
        params = [{"key": "depth", "value": "3"}, {"key": "rate", "value": "0.1"}]
        return api.post("logged-models", {"experiment_id": "7", "name": "new", "params": params})
    model_id = f"m-{number // 2 % LOGGED + 1}"
    content = json.dumps({"model_id": model_id, "status": "LOGGED_MODEL_READY"}).encode()
    return api.request("PATCH", f"logged-models/{model_id}", content)


def _search_logged_models(_: int) -> bytes:
    content = {"experiment_ids": ["7"], "filter": "metrics.metric1 > 50", "max_results": 50}
    return api.post("logged-models/search", content)


ROWS = (
    Row(
        "registered-models/alias, 8 connections",
        8,
        lambda number: _get(f"registered-models/alias?name=model%20{number % MODELS + 1}&alias=best"),
        lambda body: json.loads(body)["model_version"]["version"] == "2",
        20,
    ),
    Row(
        "model-versions/get, p50",
        1,
        lambda number: _get(f"model-versions/get?name=model%20{number % MODELS + 1}&version=2"),
        lambda body: len(json.loads(body)["model_version"]["tags"]) == 2,
        8,
        latency=True,
    ),
    Row(
        "model-versions/create",
        1,
        _new_version,
        lambda body: int(json.loads(body)["model_version"]["version"]) > VERSIONS,
        8,
    ),
    Row(
        "registered-models/search, 100 of 5,000",
        1,
        lambda _: _get("registered-models/search?max_results=100"),
        lambda body: [len(each["tags"]) for each in json.loads(body)["registered_models"]] == [3] * 100,
        10,
        latency=True,
    ),
    Row(
        "model-versions/search, one with 1,000",
        1,
        lambda _: _get("model-versions/search?filter=name%3D%27versions%27&max_results=10000"),
        lambda body: len(json.loads(body)["model_versions"]) == MANY,
        8,
        latency=True,
    ),
    # before others are made: the faster server has made more, which are newer and have no metrics
    Row(
        "logged-models/search, 50 of 10,000",
        1,
        _search_logged_models,
        lambda body: [len(each["data"]["metrics"]) for each in json.loads(body)["models"]] == [5] * 50,
        10,
        latency=True,
    ),
    Row(
        "logged-models create + finalize, 8 connections",
        8,
        _logged_model,
        lambda body: json.loads(body)["model"]["info"]["experiment_id"] == "7",
        15,
    ),
    Task("client: log_model and register, its requests", partial(client, "bench.logged_model"), 4),
)


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 where Headrace is not as fast as it must be."""
    parser = argparse.ArgumentParser(prog="bench.registry", description=__doc__)
    for option in ("quick", *KINDS):
        parser.add_argument(f"--{option}", action="store_true")
    options = parser.parse_args(arguments)
    rounds, seconds = (1, 2.0) if options.quick else (ROUNDS, SECONDS)
    kinds = [kind for kind in KINDS if getattr(options, kind)]
    return compare(Table(ROWS, FILL), kinds or KINDS, rounds, seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
