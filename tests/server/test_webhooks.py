"""MLflow's own webhooks: stock keeps and sends them, Headrace leaves to it what fires one, and starts and ends it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from tests.server.test_events import Receiver
from tests.support.databases import BACKENDS, Database, Databases
from tests.support.fork_server import NO_FORK
from tests.support.processes import wait_until
from tests.support.servers import Server, start_headrace

API = "/api/2.0/mlflow"
SECRET = "of the webhook"
OPTIONS = ("--enable-webhooks", "--enable-workspaces")
# private addresses are the tests'; no key is set
ALLOWED = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
KINDS = (
    *("registered_model.created", "model_version.created", "model_version_tag.set", "model_version_tag.deleted"),
    *("model_version_alias.created", "model_version_alias.deleted", "prompt.created", "prompt_version.created"),
    *("prompt_tag.set", "prompt_tag.deleted", "prompt_version_tag.set", "prompt_version_tag.deleted"),
    *("prompt_alias.created", "prompt_alias.deleted"),
)
PROMPT = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]


class Hooked(NamedTuple):
    server: Server
    database: Database
    receiver: Receiver
    folder: Path

    def send(self, method: str, path: str, headers: dict[str, str] | None = None, **message: Any) -> Any:
        given: dict[str, Any] = {"params": message} if method == "GET" else {"json": message}
        answer = requests.request(method, f"{self.server.url}{API}/{path}", timeout=120, headers=headers, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def hook(self, name: str, *kinds: str, headers: dict[str, str] | None = None, **more: Any) -> str:
        """A new webhook, told at /NAME; its path below the API."""
        events = [dict(zip(("entity", "action"), kind.upper().split("."), strict=True)) for kind in kinds]
        message = {"name": name, "url": f"{self.receiver.url}/{name}", "events": events, **more}
        return f"webhooks/{self.send('POST', 'webhooks', headers, **message)['webhook']['webhook_id']}"

    def told(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(body) for path, _, body in self.receiver.got if path == f"/{name}"]


@contextmanager
def serving(database: Database, folder: Path, env: Mapping[str, str] = ALLOWED) -> Iterator[Hooked]:
    receiver = Receiver()
    server = start_headrace(database, folder, *OPTIONS, env=env, until="/health")
    yield Hooked(server, database, receiver, folder)
    server.stop()
    receiver.shutdown()
    receiver.server_close()


@pytest.fixture(scope="module", params=BACKENDS)
def hooked(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hooked]:
    with serving(databases.migrated(request.param), tmp_path_factory.mktemp("hooked")) as hooked:
        yield hooked


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """As MLflow's documentation says to look."""
    content = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + body
    digest = hmac.new(SECRET.encode(), content, hashlib.sha256).digest()
    return headers["x-mlflow-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_each_event_is_told_once(hooked: Hooked) -> None:
    hook = hooked.hook("each", *KINDS, secret=SECRET)
    for name, kind, tags in (("a model", "model", []), ("a prompt", "prompt", PROMPT)):
        on: dict[str, Any] = {"name": name}
        hooked.send("POST", "registered-models/create", **on, tags=tags)
        hooked.send(
            "POST", "model-versions/create", **on, source="s3://b/a" if kind == "model" else "dummy-source", tags=tags
        )
        hooked.send("POST", "registered-models/set-tag", **on, key="k", value="v")
        hooked.send("DELETE", "registered-models/delete-tag", **on, key="k")
        hooked.send("POST", "model-versions/set-tag", **on, version="1", key="k", value="v")
        hooked.send("DELETE", "model-versions/delete-tag", **on, version="1", key="k")
        hooked.send("POST", "registered-models/alias", **on, version="1", alias="champion")
        hooked.send("DELETE", "registered-models/alias", **on, alias="champion")
    wait_until(lambda: len(hooked.told("each")) >= len(KINDS), "all are told")
    hooked.send("DELETE", hook)
    hooked.send("POST", "registered-models/create", name="unheard")
    assert sorted(f"{told['entity']}.{told['action']}" for told in hooked.told("each")) == sorted(KINDS)
    assert {told["data"]["name"] for told in hooked.told("each")} == {"a model", "a prompt"}
    got = [(headers, body) for path, headers, body in hooked.receiver.got if path == "/each"]
    assert all(is_signed(*each) for each in got)
    assert len({headers["x-mlflow-delivery-id"] for headers, _ in got}) == len(got)


def test_many_at_once_are_told_once_each(hooked: Hooked) -> None:
    hooked.send("POST", "registered-models/create", name="many")
    hook = hooked.hook("many", "model_version.created")
    with ThreadPoolExecutor(10) as pool:
        list(
            pool.map(
                lambda n: hooked.send("POST", "model-versions/create", name="many", source=f"s3://b/{n}"), range(60)
            )
        )
    wait_until(lambda: len(hooked.told("many")) >= 60, "all are told")
    hooked.send("DELETE", hook)
    assert sorted(int(told["data"]["version"]) for told in hooked.told("many")) == list(range(1, 61))


def test_what_is_changed_counts_at_once(hooked: Hooked) -> None:
    """Stock remembers for a minute who is to be told, of whatever workspace."""

    def create(name: str, headers: dict[str, str] | None = None) -> None:
        hooked.send("POST", "registered-models/create", headers, name=name)

    requests.post(f"{hooked.server.url}/api/3.0/mlflow/workspaces", json={"name": "blue"}, timeout=60)
    blue = {"X-MLFLOW-WORKSPACE": "blue"}
    kept = hooked.hook("kept", "registered_model.created")
    create("changed 1")
    ours = hooked.hook("new", "registered_model.created")
    theirs = hooked.hook("blue", "registered_model.created", headers=blue)
    create("changed 2")
    create("changed 3", blue)
    wait_until(lambda: len(hooked.told("new")) == 1 and len(hooked.told("blue")) == 1, "the new ones are told")
    hooked.send("PATCH", ours, status="DISABLED")
    create("changed 4")
    hooked.send("PATCH", ours, status="ACTIVE", url=f"{hooked.receiver.url}/moved")
    create("changed 5")
    wait_until(lambda: bool(hooked.told("moved")), "the one that is back is told")
    hooked.send("DELETE", ours)
    create("changed 6")
    wait_until(lambda: len(hooked.told("kept")) == 5, "all are told")
    for hook, headers in ((kept, None), (theirs, blue)):
        hooked.send("DELETE", hook, headers)
    names = {name: [told["data"]["name"] for told in hooked.told(name)] for name in ("new", "moved", "blue")}
    assert names == {"new": ["changed 2"], "moved": ["changed 5"], "blue": ["changed 3"]}
    assert sorted(told["data"]["name"] for told in hooked.told("kept")) == [f"changed {n}" for n in (1, 2, 4, 5, 6)]


def test_a_secret_is_read_by_another_process_of_stock(databases: Databases, tmp_path: Path) -> None:
    """It is encrypted with the database's key: MLflow would make one for each process, and read no webhook again.

    Here stock is no fork: all forks have one key.
    """
    database, env = databases.migrated("postgresql"), ALLOWED | NO_FORK
    with serving(database, tmp_path, env=env) as hooked:
        hooked.send("POST", "registered-models/create", name="kept")
        hook = hooked.hook("secret", "model_version.created", secret=SECRET)
        log = hooked.folder / "headrace.log"

        def version(number: int, by: Hooked) -> None:
            by.send("POST", "model-versions/create", name="kept", source="s3://b/a")
            wait_until(lambda: len(hooked.told("secret")) == number, "the webhook is told")

        version(1, by=hooked)
        listed = hooked.send("GET", "webhooks")
        other = start_headrace(database, tmp_path, *OPTIONS, env=env, until="/health")
        try:
            elsewhere = hooked._replace(server=other)
            version(2, by=elsewhere)
            elsewhere.send("PATCH", hook, description="changed")
        finally:
            other.stop()
        hooked.send("DELETE", hook)
        assert all(is_signed(headers, body) for path, headers, body in hooked.receiver.got if path == "/secret")
        assert hook.removeprefix("webhooks/") in json.dumps(listed)
        assert SECRET not in json.dumps(listed)
        assert SECRET not in log.read_text()
        assert SECRET not in str(database.query("SELECT * FROM webhooks"))
