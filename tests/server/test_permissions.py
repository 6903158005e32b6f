"""The matrix of permissions, made from the declarations: each, as nobody, viewer, editor and administrator."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from headrace.asgi.shield import FEATURES
from headrace.auth.principals import ROLES, Right
from headrace.resources import all_endpoints
from headrace.settings import Settings
from headrace.stock.app import CLIENT_HEADER
from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.support.databases import Databases
from tests.support.messages import minimal
from tests.support.servers import PASSED_THROUGH

ENDPOINTS = all_endpoints(Settings())
[JOBS] = [feature for feature in FEATURES if feature.setting == "enable_jobs"]
# Not sent by those who may: they make data, start programs, or wait for servers on the internet.
NOT_SENT = (
    "3.0/mlflow/demo/generate",
    "3.0/mlflow/demo/delete",
    "3.0/mlflow/assistant/{path:path}",
    "3.0/mlflow/gateway/supported-models",
)


# What is others' is not told from what is not there; a server without workspaces has no such request.
AS_IF_THERE_WERE_NONE = ("get-by-name", "3.0/mlflow/workspaces/{workspace_name}")


@pytest.fixture(scope="module", params=["roles", "grants", "grants and workspaces"])
def guarded(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    # what is off is refused to all alike, before anybody is asked who they are: jobs are, which start eight processes
    options = ["--enable-webhooks", "--enable-assistant", "--enable-ai-gateway"]
    options += ["--grants"] if request.param != "roles" else []
    options += ["--enable-workspaces"] if request.param == "grants and workspaces" else []
    folder = tmp_path_factory.mktemp("permissions")
    users = {"viewer": "viewer", "editor": "editor"}
    found = start_guarded(databases.migrated("sqlite"), folder, *options, users=users, until=PASSED_THROUGH)
    yield found
    found.server.stop()


@pytest.fixture(scope="module")
def tokens(guarded: Guarded) -> dict[str, str]:
    made = {role: guarded.headrace("user", "token", role) for role in ("viewer", "editor")}
    return {"nobody": "", **made, "admin": ADMIN_TOKEN}


def path_of(path: str) -> str:
    path = path.replace("{path:path}", "some/thing").replace("{action:path}", "some").replace("{", "").replace("}", "")
    return path if path.startswith("/") else f"/ajax-api/{path}"


class Caller:
    """Connections to the server, kept."""

    def __init__(self, guarded: Guarded) -> None:
        self._connection = http.client.HTTPConnection(guarded.server.url.removeprefix("http://"), timeout=60)

    def status(self, method: str, path: str, token: str, message: dict[str, Any]) -> int:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        if method == "GET":
            path += "?" + urlencode(message, doseq=True)
        self._connection.request(method, path, json.dumps(message) if method != "GET" else None, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def caller(guarded: Guarded) -> Iterator[Caller]:
    made = Caller(guarded)
    yield made
    made.close()


def test_every_endpoint_as_everybody(request: pytest.FixtureRequest, tokens: dict[str, str], caller: Caller) -> None:
    """Who may not is answered 401 or 403, by Headrace; who may, by anything else: what they name is not there. What is
    everybody's who has signed in, the UI's files say, is answered to all alike."""
    limited = request.node.callspec.params["guarded"] != "roles"
    wrong = []
    for each in ENDPOINTS:
        method, right, path, target = each.method, each.right, path_of(each.path), each.target
        told: dict[str, int] = {}
        for role, token in tokens.items():
            most = Right.OPEN if role == "nobody" else ROLES[role]
            allowed = most >= right
            if limited and role in ("viewer", "editor") and right > Right.SIGNED_IN:
                allowed = allowed and (target.filtered or bool(target.creates))
            if allowed and each.path in NOT_SENT:
                continue
            status = caller.status(method, path, token, minimal(each, "9" if target.creates else "987654"))
            told[role] = status
            if limited and allowed and target.filtered and status == 403:
                continue  # no search that is native: what stock would answer is refused
            if limited and not allowed and each.path.endswith(AS_IF_THERE_WERE_NONE) and status in (404, 501):
                continue
            expected = status not in (401, 403) if allowed else status == (401 if role == "nobody" else 403)
            if method == "POST" and JOBS.paths.fullmatch(path):
                expected = status == 403
            if not expected:
                wrong.append((role, method, path, status))
        if right is Right.SIGNED_IN and len({told[role] for role in told if role != "nobody"}) > 1:
            wrong.append(("everybody", method, path, told["viewer"]))
    assert not wrong, "\n".join(map(str, wrong))


def test_at_the_gateway_another_header_says_who_asks(guarded: Guarded) -> None:
    """A coding agent has its own key in Authorization, which is for the provider."""
    path, agents = "/gateway/proxy/none/v1/responses", {"Authorization": "Bearer sk-of-an-agent"}
    admin, nobody = {"X-MLflow-Authorization": f"Bearer {ADMIN_TOKEN}"}, {"X-MLflow-Authorization": "Bearer nobody"}
    ours = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    for headers, expected in (
        (agents, 401), (agents | admin, 404), (admin, 404), (ours | nobody, 401),
        (ours | {"X-MLflow-Authorization": ""}, 404),
    ):  # fmt: skip
        assert guarded.status("POST", path, headers=headers, json={"model": "none"}) == expected, headers
    elsewhere = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert guarded.status("GET", elsewhere, headers=agents | admin) == 401
    assert guarded.status("GET", elsewhere, headers=ours | nobody) == 200


def test_a_model_that_stock_makes_is_its_makers(
    request: pytest.FixtureRequest, guarded: Guarded, tokens: dict[str, str]
) -> None:
    """Where a webhook waits for it; stock calls no loopback address."""
    waits = "(webhook_id, name, url, workspace, status) VALUES ('w', 'w', 'https://127.0.0.1', 'default', 'ACTIVE')"
    guarded.database.execute(f"INSERT INTO webhooks {waits}")
    guarded.database.execute("INSERT INTO webhook_events VALUES ('w', 'registered_model', 'created')")
    models = "/api/2.0/mlflow/registered-models"
    made = guarded.request("POST", f"{models}/create", tokens["editor"], json={"name": "told"})
    guarded.database.execute("DELETE FROM webhooks")
    assert (made.status_code, made.headers["headrace-answered-by"]) == (200, "stock")
    by_grants = request.node.callspec.params["guarded"] != "roles"
    for role, expected in (("editor", 200), ("viewer", 403 if by_grants else 200)):
        assert guarded.status("GET", f"{models}/get?name=told", tokens[role]) == expected


def test_a_review_queue_is_its_makers(guarded: Guarded, tokens: dict[str, str]) -> None:
    """Stock, which nobody signs in to, knows who has: what the client says of that counts for nothing."""
    made = guarded.request("POST", "/api/2.0/mlflow/experiments/create", tokens["editor"], json={"name": "to review"})
    queue = made.json() | {"name": "mine", "queue_type": "CUSTOM", "created_by": "admin"}
    spoofed = {CLIENT_HEADER.decode(): "http 1 127.0.0.1 user=admin"}
    create = "/api/3.0/mlflow/review-queues/create"
    created = guarded.request("POST", create, tokens["editor"], json=queue, headers=spoofed).json()["review_queue"]
    assert created["created_by"] == "editor"
    spoofed = {CLIENT_HEADER.decode(): "http 1 127.0.0.1 user=editor"}
    server = {"name": "org.example/tools"}
    made_by = guarded.request("POST", "/api/3.0/mlflow/mcp-servers", ADMIN_TOKEN, json=server, headers=spoofed).json()
    assert (made_by["created_by"], made_by["last_updated_by"]) == ("admin", "admin")
    path = "/ajax-api/3.0/mlflow/users/current/permissions"  # by which the UI offers to change it
    permissions = guarded.request("GET", path, tokens["editor"]).json()["permissions"]
    [told] = [each for each in permissions if each["resource_pattern"] in ("*", made.json()["experiment_id"])]
    delete = create.replace("create", "delete")
    changed = guarded.status("POST", delete, tokens["editor"], json={"queue_id": created["queue_id"]})
    assert (told["permission"], changed) == ("MANAGE", 200)
