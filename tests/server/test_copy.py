"""`headrace copy`, as who moves to another server types it; what MLflow's client reads of the copy."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.server.conftest import Serve, run_headrace
from tests.support import fork_server
from tests.support.databases import Databases
from tests.support.fork_server import client_environment
from tests.support.servers import Server

# Prints what MLflow's client reads of each run of an experiment, and of what hangs on it.
READ = """
import json, sys, mlflow
from mlflow import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
experiment = client.get_experiment_by_name("churn")
runs = client.search_runs([experiment.experiment_id])
trace, = client.search_traces(locations=[experiment.experiment_id])
model, = client.search_logged_models([experiment.experiment_id])
version = client.get_model_version_by_alias("churn", "prod")
def linked(run_id):
    return [each.info.trace_id for each in client.search_traces(locations=[experiment.experiment_id], run_id=run_id)]
print(json.dumps({
    "experiment": [experiment.experiment_id, experiment.tags],
    "runs": [[
        run.info.run_id, run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, run.data.params,
        run.data.tags, {k: repr(v) for k, v in run.data.metrics.items()},
        [[(repr(m.value), m.step, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)]
         for key in sorted(run.data.metrics)],
        [d.dataset.name for d in run.inputs.dataset_inputs], [m.model_id for m in run.outputs.model_outputs],
        {f.path: open(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=f.path)).read()
         for f in client.list_artifacts(run.info.run_id)},
    ] for run in runs],
    "trace": [trace.info.trace_id, trace.info.request_time, trace.info.execution_duration, trace.info.state,
              trace.info.trace_metadata,
              [linked(run.info.run_id) for run in runs], [(s.name, s.inputs, s.outputs) for s in trace.data.spans],
              [(a.name, a.value) for a in trace.info.assessments]],
    "model": [model.model_id, model.params, mlflow.pyfunc.load_model("models:/churn@prod").predict(["x"])],
    "version": [version.version, version.run_id, version.tags, version.current_stage],
}, sort_keys=True))
"""
WRITE = """
import math, sys, mlflow
from mlflow.entities import Metric
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(experiment_id=mlflow.create_experiment("churn", tags={"team": "x"}))
client = mlflow.MlflowClient()
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[str]): return model_input
with mlflow.start_run(run_name="größe") as run:
    mlflow.log_params({"lr": 0.1, "text": "tab\\there"})
    client.log_batch(run.info.run_id, [Metric("loss", 1 / (n + 1), n, n) for n in range(200)])
    mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "-inf": -math.inf})
    mlflow.log_text("hello", "a b.txt")
    import numpy
    mlflow.log_input(mlflow.data.from_numpy(numpy.zeros((2, 2)), name="d"), context="train")
    mlflow.pyfunc.log_model(name="m", python_model=Echo(), registered_model_name="churn", pip_requirements=[])
client.set_registered_model_alias("churn", "prod", 1)
client.set_model_version_tag("churn", "1", "t", "u")
client.transition_model_version_stage("churn", "1", "Production")
mlflow.genai.register_prompt("asks", "Say {{word}}")
mlflow.genai.set_prompt_alias("asks", "production", 1)
span = mlflow.start_span_no_context("twice", inputs={"x": 2}, start_time_ns=1_700_000_000_000_900_000)
span.set_outputs(4)
span.end(end_time_ns=1_700_000_000_001_100_000)
trace = span.trace_id
mlflow.flush_trace_async_logging()
info = mlflow.get_trace(trace).info
info.execution_duration = 0  # as its client counts: which of the two comes last, this or the spans' 1 ms, is chance
client._tracing_client.store.start_trace(info)
client.link_traces_to_run([trace], run.info.run_id)
mlflow.log_feedback(trace_id=trace, name="good", value=True)
"""

WRITE_FOLDER = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("churn")
with mlflow.start_run(run_name="x"):
    mlflow.log_param("lr", 0.1)
    for _ in range(2):
        mlflow.log_metric("loss", float("nan"), step=3, timestamp=5)
    mlflow.log_text("hello", "a b.txt")
"""


def client(script: str, server: Server) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, server.url],
        capture_output=True,
        text=True,
        timeout=120,
        env=client_environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


@pytest.fixture
def bucket(s3: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a server that has its artifacts in s3://moved."""
    import boto3

    environment = {"MLFLOW_S3_ENDPOINT_URL": s3.url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    boto3.Session().client("s3", endpoint_url=s3.url, region_name="us-east-1").create_bucket(Bucket="moved")
    return environment


def test_a_laptops_server_moves_to_postgresql_and_s3(
    serve: Serve, databases: Databases, tmp_path: Path, bucket: dict[str, str]
) -> None:
    laptop, team = databases.migrated("sqlite"), databases.migrated("postgresql")
    folder, forks = tmp_path / "laptop", fork_server.environment("copy")
    there = ["--artifacts-destination", "s3://moved/artifacts"]
    server = serve("--backend-store-uri", laptop.uri, "--artifacts-destination", str(folder), until="/ready")
    client(WRITE, server)
    read = client(READ, server)

    def copy(*options: str) -> dict[str, Any]:
        arguments = [laptop.uri, team.uri, *there, *options, "--json"]
        done = run_headrace("copy", *arguments, cwd=tmp_path, env=forks | bucket)
        assert done.returncode == 0, done.stderr
        counted: dict[str, Any] = json.loads(done.stdout)
        return counted

    dry = copy("--source-artifacts", str(folder), "--dry-run")
    counted = copy("--source-artifacts", str(folder))
    assert counted == dry
    assert counted["files"] == len([file for file in folder.rglob("*") if file.is_file()])
    new = serve("--backend-store-uri", team.uri, *there, env=bucket, until="/ready")
    assert client(READ, new) == read
    again = copy("--source-artifacts", str(folder))
    assert [name for name, value in again.items() if value] == []

    # on into a database by what the server answers alone, and from there to a server that makes ids itself
    last, files = databases.migrated("sqlite"), str(tmp_path / "last")
    empty = databases.migrated("sqlite")
    options = ["--backend-store-uri", empty.uri, "--artifacts-destination", str(tmp_path / "new")]
    third = serve(*options, until="/ready")
    for source, target, *options in (
        (new.url, last.uri, "--artifacts-destination", files),
        (last.uri, third.url, "--source-artifacts", files),
    ):
        for runs in (1, 0):
            arguments = [source, target, *options, "--experiment", "churn", "--json"]
            done = run_headrace("copy", *arguments, cwd=tmp_path, env=forks)
            assert (done.returncode, done.stderr) == (0, "")
            counted = json.loads(done.stdout)
            assert (counted["runs"], counted["logged_models"], counted["model_versions"]) == (runs, runs, runs)
            assert (counted["traces"], counted["metrics"]) == (runs, 203 * runs)
            for mapped in counted["mapped"]:
                read = read.replace(mapped["source"], mapped["target"])
    for table in ("assessments", "trace_request_metadata", "trace_tags"):  # as if broken off after the spans
        empty.execute(f"DELETE FROM {table}")
    done = run_headrace("copy", last.uri, third.url, "--without-artifacts", "--json", cwd=tmp_path, env=forks)
    assert (done.returncode, json.loads(done.stdout)["traces"]) == (0, 1), done.stderr
    found = json.loads(client(READ, third))
    assert found["runs"][0][6].pop("headrace.copied_from") == last.query("SELECT run_uuid AS id FROM runs")[0]["id"]
    assert found["version"][2].pop("headrace.copied_from") == "1"
    assert found == json.loads(read)

    # all of a server to another: with its prompts
    done = run_headrace("copy", new.url, third.url, "--without-artifacts", cwd=tmp_path, env=forks)
    assert (done.returncode, done.stderr) == (0, "")
    prompt = f"{third.url}/api/2.0/mlflow/registered-models/alias?name=asks&alias=production"
    assert requests.get(prompt, timeout=60).json()["model_version"]["version"] == "1"


def test_what_can_not_be_is_said_in_one_line(databases: Databases, tmp_path: Path) -> None:
    there, target = databases.migrated("sqlite").uri, f"sqlite:///{tmp_path}/new.db"
    for arguments, said in (
        ([there], "Missing argument 'TARGET'"),
        (["http://127.0.0.1:1", target], "The server http://127.0.0.1:1 can't be reached: Connection refused. Look"),
        ([there, "http://u:h1dden@127.0.0.1:1"], "The server http://u:***@127.0.0.1:1 can't be reached: Connection"),
        (["http://127.0.0.1:x", target], "The server http://127.0.0.1:x can't be reached: Port could not be cast"),
        (["sqlite:///none.db", target], "There are no tables of MLflow in sqlite:///none.db. Look at SOURCE."),
        ([there, "gs://bucket"], "gs://bucket is no store that MLflow knows."),
        ([there, target, "--experiment", "x"], f"There is no experiment 'x' in {there}. Look at --experiment."),
        ([there, target, "--into", "x"], "--into needs exactly one --experiment."),
        # said before the source is read, which may take minutes
        (
            ["http://127.0.0.1:1", target, "--source-artifacts", "none"],
            "There is no folder none. Look at --source-artifacts.",
        ),
        ([there, there], "SOURCE and TARGET are the same database."),
    ):
        done = run_headrace("copy", *arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "new.db").exists()  # no target is made for what is refused
    done = run_headrace("copy", there, target, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "copied: 0 experiments, 0 runs with 0 points of metrics, 0 logged models, 0 traces" in done.stdout


def test_a_folder_of_runs_that_came_from_elsewhere(databases: Databases, tmp_path: Path) -> None:
    made, target = tmp_path / "made", databases.migrated("sqlite")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_FOLDER, str(made)],
        capture_output=True, text=True, timeout=120, env=client_environment() | {"MLFLOW_ALLOW_FILE_STORE": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made.rename(tmp_path / "mlruns")
    # of a copy that was killed, and of one that is under way
    left, used = tmp_path / "headrace-copied-left", tmp_path / "headrace-copied-used"
    for folder in (left, used):
        folder.mkdir()
        (folder / "mlflow.db").touch()
        os.utime(folder, (0, 0))
    lock = os.open(used, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    command = ["copy", "mlruns", target.uri, "--artifacts-destination", "there", "--json"]
    for runs in (1, 0):
        done = run_headrace(*command, cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.glob("headrace-copied-*")) == [used]
        counted = json.loads(done.stdout)
        assert (counted["runs"], counted["metrics"], counted["files"]) == (runs, runs, runs)
        assert counted["mapped"][0]["target"] == "1"
    ((run_id, uri),) = [tuple(row.values()) for row in target.query("SELECT run_uuid, artifact_uri FROM runs")]
    assert uri == f"mlflow-artifacts:/1/{run_id}/artifacts"
    assert (tmp_path / "there/1" / run_id / "artifacts/a b.txt").read_text() == "hello"
    assert target.query("SELECT value, step, timestamp, is_nan FROM metrics") == [
        {"value": 0, "step": 3, "timestamp": 5, "is_nan": 1}
    ]
    os.close(lock)
    stores = ["--backend-store-uri", target.uri, "--artifacts-destination", "there"]
    done = run_headrace("runs", "move", run_id, "none", "--to", "Default", *stores, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "moved: 1 runs, 0 logged models, 0 traces, 1 files\nleft: run none: is not there\n"
    assert (tmp_path / "there/0" / run_id / "artifacts/a b.txt").read_text() == "hello"


def test_what_is_no_source_is_refused_with_what_to_do(databases: Databases, tmp_path: Path) -> None:
    target = databases.migrated("sqlite").uri
    for name in ("board/events.out.tfevents.1", "wandb/offline-run-1/run-1.wandb", "empty/file", "mlflow.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    for source, said in (
        ("board/events.out.tfevents.1", "is a file of a run. Name its folder: board."),
        ("wandb", "W&B's runs in wandb can't be read: ValueError: run-1.wandb: it is no .wandb file"),
        ("empty", "MLflow's runs in empty can't be read:"),
        ("mlflow.db", "Name a SQLite database as sqlite:///mlflow.db."),
    ):
        done = run_headrace("copy", source, target, cwd=tmp_path)
        assert done.returncode == 2, source
        assert said in done.stderr
        assert "Traceback" not in done.stderr
