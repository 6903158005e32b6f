"""The matrix of permissions, made from the table of routes: every row, as nobody, viewer, editor and administrator."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from headrace.auth.routes import TABLE
from headrace.resources.routes import ROUTES

from headrace.auth.principals import ROLES, Right
from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.support.databases import Databases
from tests.support.servers import PASSED_THROUGH

ROWS = [tuple(line.split()) for line in TABLE.splitlines() if line]
RIGHTS = {right.name.lower().replace("_", "-"): right for right in Right}
# Not sent by those who may: they make data, start programs, or wait for servers on the internet.
NOT_SENT = (
    "3.0/mlflow/demo/generate",
    "3.0/mlflow/demo/delete",
    "3.0/mlflow/assistant/{path:path}",
    "3.0/mlflow/gateway/supported-models",
)


@pytest.fixture(scope="module", params=["roles", "grants"])
def guarded(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    # what is off is refused to all alike, before anybody is asked who they are
    options = ["--enable-webhooks", "--enable-assistant", "--enable-ai-gateway"]
    options += ["--grants"] if request.param == "grants" else []
    folder = tmp_path_factory.mktemp("permissions")
    users = {"viewer": "viewer", "editor": "editor"}
    found = start_guarded(databases.migrated("sqlite"), folder, *options, users=users, until=PASSED_THROUGH)
    yield found
    found.server.stop()


@pytest.fixture(scope="module")
def tokens(guarded: Guarded) -> dict[str, str]:
    made = {role: guarded.headrace("user", "token", role) for role in ("viewer", "editor")}
    return {"nobody": "", **made, "admin": ADMIN_TOKEN}


def path_of(row: str) -> str:
    path = row.replace("{path:path}", "some/thing").replace("{action:path}", "some").replace("{", "").replace("}", "")
    return path if path.startswith("/") else f"/ajax-api/{path}"


class Caller:
    """Connections to the server, kept."""

    def __init__(self, guarded: Guarded) -> None:
        self._connection = http.client.HTTPConnection(guarded.server.url.removeprefix("http://"), timeout=60)

    def status(self, method: str, path: str, token: str) -> int:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._connection.request(method, path, "{}" if method != "GET" else None, headers)
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


def test_every_row_as_everybody(request: pytest.FixtureRequest, tokens: dict[str, str], caller: Caller) -> None:
    """Who may not is answered 401 or 403, by Headrace; who may, by anything else: the requests name nothing."""
    limited = request.node.callspec.params["guarded"] == "grants"
    wrong = []
    for method, row, right_name, target in ROWS:
        right, path = RIGHTS[right_name], path_of(row)
        for role, token in tokens.items():
            most = Right.OPEN if role == "nobody" else ROLES[role]
            allowed = most >= right
            if limited and role in ("viewer", "editor") and right > Right.SIGNED_IN:
                allowed = allowed and target in ("filtered", "filtered-models", "new-experiment", "new-model")
            if allowed and row in NOT_SENT:
                continue
            status = caller.status(method, path, token)
            if limited and allowed and target == "filtered" and status == 403:
                continue  # {} is no search that is native: what stock would answer is refused
            expected = status not in (401, 403) if allowed else status == (401 if role == "nobody" else 403)
            if not expected:
                wrong.append((role, method, path, status))
    assert wrong == []


def test_every_native_route_is_in_the_table() -> None:
    known = {(method, row if row.startswith("/") else f"/api/{row}") for method, row, *_ in ROWS}
    for route in ROUTES:
        for path in route.paths():
            assert (route.method, path.replace("/ajax-api/", "/api/")) in known
