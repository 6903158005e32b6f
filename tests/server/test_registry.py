"""The model registry over HTTP: real clients, clients of other languages, many at once, webhooks, 10,000 versions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, NamedTuple

import pytest
import requests

from tests.server.test_clients import CLIENTS
from tests.support.databases import BACKENDS, Database, Databases
from tests.support.processes import clean_environment, wait_until
from tests.support.servers import Server, start_headrace

API = "/api/2.0/mlflow"
SCRIPT = Path(__file__).with_name("registry_script.py")


class Registry(NamedTuple):
    server: Server
    database: Database

    def send(self, method: str, path: str, api: str = API, **fields: Any) -> tuple[int, Any, str]:
        given = {"params": fields} if method == "GET" else {"json": fields}
        answer = requests.request(method, f"{self.server.url}{api}/{path}", timeout=60, **given)  # type: ignore[arg-type]
        return answer.status_code, answer.json(), answer.headers["headrace-answered-by"]

    def made(self, path: str, **fields: Any) -> Any:
        status, body, by = self.send("POST", path, **fields)
        assert (status, by) == (200, "native"), body
        return body


@pytest.fixture(scope="module", params=BACKENDS)
def registry(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    database = databases.migrated(request.param)
    workers = ["--workers", "2"] if request.param == "postgresql" else []
    server = start_headrace(
        database,
        tmp_path_factory.mktemp("registry"),
        "--enable-webhooks",
        *workers,
        env={"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"},
        until="/health",
    )
    yield Registry(server, database)
    server.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_what_clients_do(registry: Registry, client: str) -> None:
    done = subprocess.run(
        [CLIENTS[client], SCRIPT, registry.server.url, f"by the {client}"],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment() | {"GIT_PYTHON_REFRESH": "quiet", "USER": "me"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "versions": ["2", "1"],
        "by alias": "2",
        "latest": {"None": "1", "Production": "2"},
        "description": "what it does",
        "tags": {"team": "größe"},
        "version tags": {"checked": "yes"},
        "uri": True,
        "found": [f"by the {client} renamed"],
        "taken": "RESOURCE_ALREADY_EXISTS",
        "unknown": "RESOURCE_DOES_NOT_EXIST",
        "after": "RESOURCE_DOES_NOT_EXIST",
        "prompt": None if client == "old" else ["Say {{what}}.", "Shout {{what}}!"],
        "copy": None if client == "old" else "1",
    }


def test_a_client_of_r_sends_texts(registry: Registry) -> None:
    """And MLflow 1.x's to another path."""
    old = "/api/2.0/preview/mlflow"
    registry.made("registered-models/create", api=old, name="r")
    registry.made("model-versions/create", api=old, name="r", source="s3://b/a", runId="")
    transition = {"name": "r", "version": "1", "stage": "Production", "archive_existing_versions": "true"}
    assert registry.send("POST", "model-versions/transition-stage", old, **transition)[0] == 200
    status, found, by = registry.send("GET", "registered-models/search", old, filter="name = 'r'", max_results="10")
    assert (status, by, len(found["registered_models"])) == (200, "native", 1)
    status, found, by = registry.send("GET", "model-versions/get", old, name="r", version="01")
    assert (status, by, found["model_version"]["current_stage"]) == (200, "native", "Production")
    status, found, by = registry.send("POST", "registered-models/get-latest-versions", old, name="r", stages=None)
    assert (status, by, len(found["model_versions"])) == (200, "native", 1)


def test_new_versions_at_once_have_a_number_each(registry: Registry) -> None:
    registry.made("registered-models/create", name="many")

    def create(number: int) -> str:
        tags = [{"key": "number", "value": str(number)}]
        made = registry.made("model-versions/create", name="many", source=f"s3://b/{number}", tags=tags)
        version = made["model_version"]
        assert (version["source"], version["tags"]) == (f"s3://b/{number}", tags)
        registry.made("registered-models/alias", name="many", alias="newest", version=version["version"])
        registry.made("registered-models/set-tag", name="many", key="newest", value=version["version"])
        return str(version["version"])

    with ThreadPoolExecutor(16) as pool:
        numbers = list(pool.map(create, range(80)))
    assert sorted(map(int, numbers)) == list(range(1, 81))


def test_versions_of_one_logged_model_at_once_are_all_in_its_tag(registry: Registry) -> None:
    status, made, _ = registry.send("POST", "logged-models", experiment_id="0", name="m")
    assert status == 200
    model = made["model"]["info"]["model_id"]
    registry.made("registered-models/create", name='a "quoted" größe')

    def create(_: int) -> int:
        source = f"models:/{model}"
        made = registry.made("model-versions/create", name='a "quoted" größe', source=source, model_id=model)
        return int(made["model_version"]["version"])

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(create, range(24)))
    rows = registry.database.query(
        f"SELECT tag_value FROM logged_model_tags WHERE model_id = '{model}' AND tag_key = 'mlflow.modelVersions'"
    )
    linked = json.loads(rows[0]["tag_value"])
    assert {each["name"] for each in linked} == {'a "quoted" größe'}
    assert [each["version"] for each in linked] == sorted(numbers) == list(range(1, 25))


def test_ten_thousand_versions(registry: Registry) -> None:
    registry.made("registered-models/create", name="huge")
    registry.database.execute("""
        INSERT INTO model_versions (workspace, name, version, creation_time, last_updated_time, current_stage, source,
          run_id, status)
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10000)
        SELECT 'default', 'huge', n, 1, 1, 'None', 's3://b/a', '', 'READY' FROM numbers
    """)
    status, found, by = registry.send("GET", "model-versions/search", filter="name = 'huge'")
    assert (status, by) == (200, "native")
    assert [each["version"] for each in found["model_versions"]] == [str(n) for n in range(10_000, 0, -1)]
    status, found, by = registry.send("GET", "registered-models/get", name="huge")
    assert (status, by) == (200, "native")
    assert [each["version"] for each in found["registered_model"]["latest_versions"]] == ["10000"]
    made = registry.made("model-versions/create", name="huge", source="s3://b/a")
    assert made["model_version"]["version"] == "10001"
    assert registry.send("DELETE", "registered-models/delete", name="huge")[0] == 200


class Listener(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    told: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def listener() -> Iterator[str]:
    Listener.told.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()


def test_a_webhook_that_waits_for_it_is_fired_by_stock(registry: Registry, listener: str) -> None:
    def create(name: str) -> str:
        status, body, by = registry.send("POST", "registered-models/create", name=name)
        assert status == 200, body
        return by

    def version() -> str:
        status, body, by = registry.send("POST", "model-versions/create", name="hooked", source="s3://b/a")
        assert status == 200, body
        return by

    assert create("hooked") == "native"
    events = [{"entity": "MODEL_VERSION", "action": "CREATED"}]
    status, made, _ = registry.send("POST", "webhooks", name="w", url=listener, events=events)
    assert status == 200, made
    hook = f"webhooks/{made['webhook']['webhook_id']}"
    try:
        assert (version(), create("hooked, too")) == ("stock", "native")
        wait_until(lambda: bool(Listener.told), "the webhook is fired")
        assert Listener.told[0]["data"]["name"] == "hooked"
        assert registry.send("PATCH", hook, status="DISABLED")[0] == 200
        assert version() == "native"
    finally:
        assert registry.send("DELETE", hook)[0] == 200
    assert version() == "native"
