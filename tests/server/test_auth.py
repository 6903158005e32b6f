"""A server that asks who is there: tokens, passwords, roles, revocation; through HTTP and through MLflow's client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests

from headrace.auth import authenticator
from tests.server.conftest import Serve, run_headrace
from tests.server.guarded import PASSWORD, Guarded, start_guarded
from tests.support.databases import BACKENDS, Databases
from tests.support.fork_server import client_environment
from tests.support.processes import wait_until
from tests.support.servers import PASSED_THROUGH

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"
CREATE = "/api/2.0/mlflow/experiments/create"


@pytest.fixture(scope="module", params=BACKENDS)
def guarded(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    users = {"v": "viewer", "e": "editor", "a": "admin"}
    folder = tmp_path_factory.mktemp("guarded")
    found = start_guarded(databases.migrated(request.param), folder, users=users, until=PASSED_THROUGH)
    yield found
    found.server.stop()


@pytest.fixture(scope="module")
def tokens(guarded: Guarded) -> dict[str, str]:
    return {name: guarded.headrace("user", "token", name) for name in ("v", "e", "a")}


@pytest.mark.parametrize(
    "path",
    [
        "/", "/static-files/index.html", "/version", SEARCH, PASSED_THROUGH, "/graphql", "/no/such/path",
        "/api/2.0/mlflow-artifacts/artifacts/0/a", "/get-artifact?run_id=1&path=a", "/ajax-api/3.0/jobs/1",
    ],
)  # fmt: skip
def test_nobody_gets_nothing(guarded: Guarded, path: str) -> None:
    answer = guarded.request("GET", path)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="MLflow"'
    assert "MLFLOW_TRACKING_TOKEN" in answer.json()["message"]


def test_health_is_open(guarded: Guarded) -> None:
    assert guarded.status("GET", "/health") == 200


def test_of_a_stranger_no_body_is_read_and_stock_is_not_asked(guarded: Guarded) -> None:
    """/headrace leads to a page, whoever asks."""
    for headers in ({}, {"Content-Encoding": "gzip"}, {"Origin": "http://evil.example"}):
        connection = HTTPConnection(guarded.server.url.partition("://")[2], timeout=10)
        connection.request("GET", "/headrace", headers={"Content-Length": "60000000"} | headers)
        assert connection.getresponse().status == 303
        connection.close()


@pytest.mark.parametrize("path", [SEARCH, PASSED_THROUGH])
def test_tokens_and_passwords_open_native_and_passed_through(
    guarded: Guarded, tokens: dict[str, str], path: str
) -> None:
    url = guarded.server.url + path
    assert guarded.status("GET", path, tokens["v"]) == 200
    for name, password in (("v", PASSWORD), ("v", tokens["v"]), ("anything", tokens["v"])):
        assert requests.get(url, auth=(name, password), timeout=60).status_code == 200
    for name, password in (("v", "wrong"), ("v", ""), ("nobody", PASSWORD), ("", "")):
        assert requests.get(url, auth=(name, password), timeout=60).status_code == 401


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer x", "Bearer hr_x", "Basic", "Basic x", "Basic dg==", "Negotiate x", ""]
)
def test_what_is_no_credential(guarded: Guarded, header: str) -> None:
    answer = requests.get(guarded.server.url + SEARCH, headers={"Authorization": header}, timeout=60)
    assert answer.status_code == 401


def test_roles(guarded: Guarded, tokens: dict[str, str]) -> None:
    webhooks = "/api/2.0/mlflow/webhooks"
    for number, (name, expected) in enumerate((("v", (200, 403, 403)), ("e", (200, 200, 403)), ("a", (200, 200, 200)))):
        found = (
            guarded.status("GET", SEARCH, tokens[name]),
            guarded.status("POST", CREATE, tokens[name], json={"name": f"roles {number}"}),
            guarded.status("GET", webhooks, tokens[name]),
        )
        assert found == expected, name


def test_a_token_can_do_less_than_its_user(guarded: Guarded) -> None:
    reader = guarded.headrace("user", "token", "e", "--role", "viewer")
    assert guarded.status("GET", SEARCH, reader) == 200
    assert guarded.status("POST", CREATE, reader, json={"name": "not"}) == 403
    more = guarded.headrace("user", "token", "v", "--role", "admin")
    assert guarded.status("POST", CREATE, more, json={"name": "not"}) == 403


def test_a_revocation_works_within_five_seconds(guarded: Guarded) -> None:
    made = json.loads(guarded.headrace("user", "token", "e", "--name", "to revoke", "--json"))[0]["token"]
    assert guarded.status("GET", SEARCH, made) == 200
    (found,) = (t for t in json.loads(guarded.headrace("token", "list", "--json")) if t["name"] == "to revoke")
    guarded.headrace("token", "revoke", found["id"])
    wait_until(lambda: guarded.status("GET", SEARCH, made) == 401, "the token is refused")
    assert authenticator.STALE_SECONDS <= 5  # not measured: this test's own requests may be slow


def test_a_disabled_user_is_out_and_comes_back(guarded: Guarded) -> None:
    guarded.headrace("user", "add", "temp", stdin=PASSWORD)
    token = guarded.headrace("user", "token", "temp")
    assert guarded.status("GET", SEARCH, token) == 200
    guarded.headrace("user", "disable", "temp")
    wait_until(lambda: guarded.status("GET", SEARCH, token) == 401, "the user is out")
    assert requests.get(guarded.server.url + SEARCH, auth=("temp", PASSWORD), timeout=60).status_code == 401
    guarded.headrace("user", "enable", "temp")
    wait_until(lambda: guarded.status("GET", SEARCH, token) == 200, "the user is back")


def test_what_is_kept_of_tokens_and_passwords(guarded: Guarded, tokens: dict[str, str]) -> None:
    kept = str(guarded.database.query("SELECT * FROM headrace_tokens"))
    assert not any(token in kept for token in tokens.values())
    passwords = [row["password"] for row in guarded.database.query("SELECT password FROM headrace_users")]
    assert all(password.startswith("$argon2id$") for password in passwords)


CLIENT = """
import mlflow
mlflow.set_experiment("of a client")
with mlflow.start_run() as run:
    mlflow.log_metric("m", 1.0)
    mlflow.log_text("text", "a.txt")
client = mlflow.MlflowClient()
assert client.get_run(run.info.run_id).data.metrics == {"m": 1.0}
assert client.search_registered_models() == []
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/a.txt"))
"""


@pytest.mark.parametrize("how", ["token", "password"])
def test_mlflows_client_works_unchanged(guarded: Guarded, tokens: dict[str, str], how: str) -> None:
    login = {"MLFLOW_TRACKING_TOKEN": tokens["e"]}
    if how == "password":
        login = {"MLFLOW_TRACKING_USERNAME": "e", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    env = client_environment() | {"MLFLOW_TRACKING_URI": guarded.server.url} | login
    done = subprocess.run([sys.executable, "-c", CLIENT], capture_output=True, text=True, env=env, cwd=guarded.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "text"


def test_a_first_token_is_made_and_printed_once(serve: Serve, databases: Databases) -> None:
    options = ("--backend-store-uri", databases.migrated("sqlite").uri, "--host", "0.0.0.0", "--stock", "lazy")
    server = serve(*options)
    lines = re.findall(r"headrace:   export (\w+)=(\S+)", server.log)
    assert lines[0] == ("MLFLOW_TRACKING_URI", server.url.replace("127.0.0.1", "localhost"))
    name, token = lines[1]
    assert name == "MLFLOW_TRACKING_TOKEN"
    answer = requests.get(server.url + SEARCH, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == 200
    server.process.stop()
    again = serve(*options)
    assert "MLFLOW_TRACKING_TOKEN" not in again.log
    assert again.get(SEARCH).status_code == 401


def test_a_loopback_address_is_open_and_another_can_be(serve: Serve, databases: Databases) -> None:
    options = ("--backend-store-uri", databases.migrated("sqlite").uri, "--stock", "lazy")
    server = serve(*options, "--audit-table")
    assert server.get(SEARCH).status_code == 200
    assert "--audit-table is set, but this server asks nobody who they are" in server.log
    assert "This server asks nobody who they are, and keeps no audit log." in server.get("/headrace/audit").text
    server = serve(*options, "--host", "0.0.0.0", "--insecure-no-auth")
    assert server.get(SEARCH).status_code == 200
    assert "ANYBODY" in server.log


def test_without_a_database_for_users_it_does_not_start(tmp_path: Path) -> None:
    done = run_headrace("serve", "--host", "0.0.0.0", "--backend-store-uri", str(tmp_path / "mlruns"), cwd=tmp_path)
    assert done.returncode == 2
    assert "--insecure-no-auth" in done.stderr


def test_however_long_it_is_the_audit_log_names_what_stock_worked_on(guarded: Guarded, tokens: dict[str, str]) -> None:
    """Of what is longer than it keeps, too: nobody is to hide a change behind 100 kB of something else."""
    issue = {"description": "x" * 100_000, "experiment_id": "0", "name": "the hidden one"}
    assert guarded.status("POST", "/api/3.0/mlflow/issues", tokens["e"], json=issue) == 200

    def entries() -> list[dict[str, Any]]:
        lines = guarded.server.process.tail(100_000).splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"audit"') and "mlflow/issues" in line]

    wait_until(lambda: bool(entries()), "the entry is written")
    [entry] = entries()
    assert entry["objects"]["experiment_id"] == "0"
    assert entry["objects"]["name"] == "the hidden one"
