"""A column of another MLflow: the native handlers of that table step back, and stock answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.support.databases import BACKENDS, Backend, Databases
from tests.support.servers import start_headrace


@pytest.mark.parametrize("backend", BACKENDS)
def test_stock_takes_over_where_a_table_changed(backend: Backend, databases: Databases, tmp_path: Path) -> None:
    database = databases.migrated(backend)
    database.execute("ALTER TABLE tags ADD COLUMN colour VARCHAR(20)")
    server = start_headrace(database, tmp_path, until="/health")

    def post(path: str, body: dict[str, object]) -> requests.Response:
        answer = requests.post(f"{server.url}/api/2.0/mlflow/runs/{path}", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer

    try:
        created = post("create", {"experiment_id": "0", "start_time": 1})
        run = created.json()["run"]["info"]["run_id"]
        tagged = post("set-tag", {"run_id": run, "key": "a", "value": "b"})
        logged = post("log-metric", {"run_id": run, "key": "m", "value": 1, "timestamp": 1})
    finally:
        server.stop()
    by = [answer.headers["headrace-answered-by"] for answer in (created, tagged, logged)]
    assert by == ["stock", "stock", "native"]
    assert "table tags is not as Headrace knows it (column colour is new): stock answers" in server.process.tail(
        100_000
    )
    assert database.query("SELECT key, value FROM tags WHERE key = 'a'") == [{"key": "a", "value": "b"}]
    assert database.query("SELECT key, value FROM latest_metrics") == [{"key": "m", "value": 1.0}]


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_the_registry_too(backend: Backend, databases: Databases, tmp_path: Path) -> None:
    database = databases.migrated(backend)
    database.execute("ALTER TABLE model_version_tags ADD COLUMN colour VARCHAR(20)")
    server = start_headrace(database, tmp_path, until="/health")
    by = {}

    def send(method: str, path: str, **body: object) -> None:
        given = {"params": body} if method == "GET" else {"json": body}
        url = f"{server.url}/api/2.0/mlflow/{path}"
        answer = requests.request(method, url, timeout=60, **given)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        by[path] = answer.headers["headrace-answered-by"]

    try:
        send("POST", "registered-models/create", name="m")
        send("POST", "registered-models/set-tag", name="m", key="a", value="b")
        send("POST", "model-versions/create", name="m", source="s3://b/a", tags=[{"key": "a", "value": "b"}])
        send("POST", "registered-models/alias", name="m", alias="x", version="1")
        send("GET", "registered-models/alias", name="m", alias="x")
        send("GET", "model-versions/get-download-uri", name="m", version="1")
        send("DELETE", "registered-models/delete", name="m")
    finally:
        server.stop()
    assert {path for path, who in by.items() if who == "native"} == {
        "registered-models/set-tag",
        "model-versions/get-download-uri",
    }
    assert database.query("SELECT 1 FROM model_version_tags") == []
