"""examples/churn_xgboost.py against Headrace with PostgreSQL and S3, configured as a container is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient

from tests.server.conftest import Serve
from tests.support.databases import Databases
from tests.support.fork_server import client_environment
from tests.support.postgres import Postgres
from tests.support.processes import free_port
from tests.support.servers import Server

EXAMPLE = Path(__file__).parents[2] / "examples" / "churn_xgboost.py"
TREES = 25
BUCKET = "mlflow-artifacts"
TOKEN = "a-token-that-only-this-test-knows-0123456789"


@pytest.fixture
def aws(s3: Server) -> dict[str, str]:
    """Moto's S3 with a bucket, as the environment of a program that uses it."""
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.url,
        "MLFLOW_S3_ENDPOINT_URL": s3.url,
    }
    s3_client(s3).create_bucket(Bucket=BUCKET)
    return environment


def s3_client(s3: Server) -> boto3.client:
    return boto3.client(
        "s3",
        endpoint_url=s3.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        env=client_environment() | {"MLFLOW_TRACKING_URI": url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,  # what it imports takes all of it
    )
    (line,) = (text for text in done.stderr.splitlines() if "Warning" not in text and not text.startswith(" "))
    assert done.returncode == 1
    assert f"There is no MLflow server at {url}" in line
    assert "make serve" in line


def test_the_user_guide(
    serve: Serve,
    databases: Databases,
    postgres: Postgres,
    s3: Server,
    aws: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    container = {
        "BUCKET": f"s3://{BUCKET}/",
        "USERNAME": "postgres",
        "PASSWORD": "a password: @/%",
        "HOST": "127.0.0.1",
        "PORT": str(postgres.port),
        "DATABASE": databases.migrated("postgresql").name,
        "HEADRACE_ADMIN_TOKEN": TOKEN,
    }
    server = serve(env=container | aws)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)

    options = ["--trees", str(TREES), "--customers", "800", "--project", "churn", "--user", "me"]
    done = subprocess.run(
        [sys.executable, EXAMPLE, *options],
        env=client_environment() | {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_TOKEN": TOKEN},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "its predictions are the same" in done.stdout
    assert f"{server.url}/#/experiments/" in done.stdout
    assert list(tmp_path.glob("*.png")) == []

    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("churn-me")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["n_estimators"] == str(TREES)
    assert run.data.params["learning_rate"] == "0.005"
    assert {"Recall", "Precision", "Balanced Accuracy", "F1"} < set(run.data.metrics)
    history = client.get_metric_history(run.info.run_id, "Validation LogLoss")
    assert [point.step for point in history] == list(range(TREES))
    assert history[-1].value < history[0].value

    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["SHAP_Xgboost.png"]
    stored = [item["Key"] for item in s3_client(s3).list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert any(key.endswith("SHAP_Xgboost.png") for key in stored)
    assert any(key.endswith("model.ubj") for key in stored)
    assert container["PASSWORD"] not in server.log
    assert TOKEN not in server.log
