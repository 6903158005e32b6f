"""`headrace gc` and --gc-after, beside a server, as who operates it types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests

from tests.server.conftest import Serve, Serving, run_headrace
from tests.support.databases import Databases
from tests.support.processes import wait_until


def call(server: Serving, path: str, **message: Any) -> Any:
    answer = requests.post(f"{server.url}/api/2.0/mlflow/{path}", json=message, timeout=60)
    return answer.json() if answer.status_code == 200 else answer.status_code


def make_run(server: Serving, experiment_id: str) -> str:
    run = call(server, "runs/create", experiment_id=experiment_id, start_time=1)["run"]["info"]
    call(server, "runs/log-batch", run_id=run["run_id"], metrics=[{"key": "m", "value": 1, "timestamp": 1, "step": 0}])
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{experiment_id}/{run['run_id']}/artifacts/deep/file"
    assert requests.put(url, data=b"x", timeout=60).status_code == 200
    return str(run["run_id"])


def test_what_was_deleted_goes_for_good(serve: Serve, databases: Databases, tmp_path: Path) -> None:
    database, artifacts = databases.migrated("sqlite"), tmp_path / "artifacts"
    stores = ["--backend-store-uri", database.uri, "--artifacts-destination", str(artifacts)]

    def gc(*options: str) -> Any:
        done = run_headrace("gc", *stores, "--json", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    server = serve(*stores, "--stock", "never", until="/ready")
    experiment = call(server, "experiments/create", name="e")["experiment_id"]
    stays, goes = make_run(server, experiment), make_run(server, experiment)
    call(server, "runs/delete", run_id=goes)
    assert gc("--older-than", "1d")["runs"] == 0
    assert gc("--dry-run") == {
        "experiments": 0, "runs": 1, "metrics": 1, "logged_models": 0, "traces": 0, "kept": []
    }  # fmt: skip
    assert call(server, "runs/restore", run_id=goes) == {}
    call(server, "runs/delete", run_id=goes)
    assert gc("--older-than", "0s")["runs"] == 1
    assert call(server, "runs/restore", run_id=goes) == 404
    assert [file.parts[-4] for file in artifacts.rglob("file")] == [stays]

    # what gc has begun with is not restored, and goes with the next
    call(server, "experiments/delete", experiment_id=experiment)
    database.execute("UPDATE experiments SET last_update_time = 0 WHERE experiment_id = 1")
    database.execute("UPDATE runs SET deleted_time = 0")
    assert call(server, "experiments/restore", experiment_id=experiment) == 404
    assert call(server, "runs/restore", run_id=stays) == 404
    later = serve(*stores, "--stock", "never", "--gc-after", "30d", until="/ready")
    wait_until(lambda: "gone for good: 1 experiments, 1 runs with 1 points of metrics" in later.log, "it has gone")
    assert list(artifacts.rglob("file")) == []
    assert later.get(f"/api/2.0/mlflow/experiments/get?experiment_id={experiment}").status_code == 404


def test_what_stays_is_told(databases: Databases, tmp_path: Path) -> None:
    stores = ["--backend-store-uri", databases.migrated("sqlite").uri]
    done = run_headrace("gc", *stores, "--run-ids", "a, b", cwd=tmp_path)
    assert done.returncode == 1
    assert "gone for good: 0 experiments, 0 runs with 0 points of metrics, 0 logged models, 0 traces\n" in done.stdout
    assert "kept: run a: is not there\n" in done.stdout
    for options, said in (
        (["--experiment-ids", "x"], "'x' is no id of an experiment, which is a number"),
        (["--older-than", "soon"], "'soon' is not a time such as 30d, 12h, 90m, 2d8h or 0s"),
        (["--registry-store-uri", "sqlite:///other.db"], "With --registered-too it does not look."),
    ):
        done = run_headrace("gc", *stores, *options, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
