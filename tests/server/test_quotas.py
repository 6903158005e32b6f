"""--quota of a running server: what is refused, in which words, what goes on, and how space is made."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.exceptions import RestException

from tests.server.conftest import Serve, Serving, run_headrace
from tests.server.test_gc import call, make_run
from tests.support.databases import Backend, Databases
from tests.support.processes import wait_until


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_full_and_freed(serve: Serve, databases: Databases, tmp_path: Path, backend: Backend) -> None:
    uri = databases.migrated(backend).uri
    stores = ["--backend-store-uri", uri, "--artifacts-destination", str(tmp_path / "artifacts")]
    quota = ["--quota", "artifacts=1kB,metrics=3;large:artifacts=1GB", "--quota-every", "24s"]
    # what is there at the start is counted then, and what is full twelve times as often as the rest
    server = serve(*stores, "--stock", "never", until="/ready")
    first = call(server, "experiments/create", name="small")["experiment_id"]
    large = call(server, "experiments/create", name="large")["experiment_id"]
    run, other = make_run(server, first), make_run(server, large)
    folder = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"
    for experiment, owner in ((first, run), (large, other)):
        path = f"{folder}/{experiment}/{owner}/artifacts/big"
        assert requests.put(path, data=bytes(3000), timeout=60).status_code == 200
    metric = {"key": "m", "value": 1, "timestamp": 1}
    for step in range(1, 4):
        call(server, "runs/log-metric", run_id=run, step=step, **metric)
    server.process.stop()
    server = serve(*stores, *quota, "--stock", "never", until="/ready")
    folder = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"

    def put(experiment: str, owner: str) -> requests.Response:
        return requests.put(f"{folder}/{experiment}/{owner}/artifacts/more", data=b"x", timeout=60)

    wait_until(lambda: put(first, run).status_code == 507, "it is full", 120)
    refused = put(first, run).json()
    assert refused["error_code"] == "QUOTA_EXCEEDED"
    assert refused["message"].startswith(f"Experiment small ({first}) is full: its artifacts are 3 kB, 2 kB more than")
    assert "`headrace gc`" in refused["message"]
    client = mlflow.MlflowClient(server.url)
    with pytest.raises(RestException, match=r"QUOTA_EXCEEDED: Experiment small .* its metrics are 4 points"):
        client.log_metric(run, "m", 1.0, step=9)
    with pytest.raises(RestException, match="QUOTA_EXCEEDED"):
        client.log_batch(run, [mlflow.entities.Metric("m", 1.0, 1, 10)])
    client.log_batch(run, params=[mlflow.entities.Param("p", "v")])
    client.set_tag(run, "t", "v")
    client.set_terminated(run)
    assert put(large, other).status_code == 200
    call(server, "runs/delete", run_id=run)
    done = run_headrace("gc", *stores, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: put(first, make_run_only(server, first)).status_code == 200, "there is room again", 120)


def make_run_only(server: Serving, experiment: str) -> str:
    return str(call(server, "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]["run_id"])
