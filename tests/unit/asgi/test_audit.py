"""Which requests are written down, and what of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.api.audit import Audit
from headrace.api.endpoint import Router
from headrace.asgi.protocol import ANSWER
from headrace.asgi.types import MATCH, NAMED, PRINCIPAL, Headers
from headrace.auth.audit_table import AuditTable
from headrace.auth.principals import Principal, Right
from headrace.db import open_database
from headrace.db.sqlite import SqliteDatabase
from headrace.resources import all_endpoints
from headrace.settings import Settings

API = "/api/2.0/mlflow/"
ROUTER = Router(all_endpoints(Settings()), "")
ROUTER.add_page("POST", "/headrace/sign-in", Right.OPEN)


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[AuditTable]:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    store = open_database(Settings(backend_store_uri=f"sqlite:///{path}"))
    assert isinstance(store, SqliteDatabase)
    await store.connect()
    table = AuditTable(store)
    await table.set_up()
    await table.set_up()
    yield table
    await store.close()


async def written(
    capfd: pytest.CaptureFixture[str],
    method: str,
    path: str,
    body: object = None,
    *,
    query: bytes = b"",
    status: int = 200,
    answer: Mapping[str, Any] | None = None,
    packet: bool = False,
    table: AuditTable | None = None,
    audit: str = "changes",
    named: str = "",
    workspaces: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The lines that one request leaves. `packet`: it is answered in one packet, as a native answer is."""

    async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        scope[PRINCIPAL] = Principal("ada", Right.MANAGE, via="token laptop")
        scope[NAMED] = named
        content = json.dumps(answer or {}).encode()
        if packet:
            scope["extensions"][ANSWER](status, (), content)
        else:
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": content})

    async def receive() -> MutableMapping[str, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None: ...

    def answer_whole(status: int, headers: Headers, body: bytes) -> None: ...

    settings = msgspec.structs.replace(Settings(), audit=audit, enable_workspaces=bool(workspaces))
    subject = Audit(application, settings, table)
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "client": ("10.0.0.9", 1),
        "headers": [(b"x-mlflow-workspace", name.encode()) for name in workspaces],
        MATCH: ROUTER.find(method, path),
    }
    await subject(scope | {"extensions": {ANSWER: answer_whole} if packet else {}}, receive, send)
    await subject({"type": "lifespan"}, receive, send)
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("workspaces", "kept"), [(["team-a"], {"workspace": "team-a"}), (["default"], {}), (["team-a", "team-b"], {})]
)
async def test_a_name_is_one_of_its_workspace(
    capfd: pytest.CaptureFixture[str], workspaces: list[str], kept: dict[str, str]
) -> None:
    (line,) = await written(
        capfd, "POST", API + "registered-models/create", {"name": "churn"}, workspaces=workspaces
    )  # fmt: skip
    assert line["objects"] == {"name": "churn"} | kept


@pytest.mark.parametrize("packet", [True, False])
async def test_a_change(capfd: pytest.CaptureFixture[str], packet: bool) -> None:
    answer = {"run": {"info": {"run_id": "r1", "experiment_id": "7"}}}
    (line,) = await written(
        capfd, "POST", API + "runs/create", {"experiment_id": "7", "tags": []}, answer=answer, packet=packet
    )
    assert line.pop("audit").endswith("+00:00")
    assert line.pop("at") > 1_700_000_000_000
    assert line == {
        "user": "ada",
        "via": "token laptop",
        "address": "10.0.0.9",
        "method": "POST",
        "path": API + "runs/create",
        "status": 200,
        "objects": {"experiment_id": "7", "run_id": "r1"},
    }


@pytest.mark.parametrize(
    ("method", "path", "changes", "everything"),
    [
        ("POST", API + "runs/delete", 1, 1),
        ("DELETE", API + "registered-models/delete", 1, 1),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/a", 1, 1),
        ("POST", "/no/such/path", 1, 1),
        ("POST", "/headrace/sign-in", 1, 1),
        ("POST", API + "runs/log-batch", 0, 1),
        ("POST", API + "runs/set-tag", 0, 1),
        ("POST", API + "runs/search", 0, 0),
        ("POST", "/graphql", 0, 0),
        ("GET", API + "runs/get", 0, 0),
    ],
)
async def test_what_is_written(
    capfd: pytest.CaptureFixture[str], method: str, path: str, changes: int, everything: int
) -> None:
    assert len(await written(capfd, method, path)) == changes
    assert len(await written(capfd, method, path, audit="all")) == everything


async def test_what_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = await written(capfd, "DELETE", API + "logged-models/m-1", query=b"name=n%20m&secret=x", status=403)
    assert (line["status"], line["objects"]) == (403, {"model_id": "m-1"})
    form = b"name=ada&password=hidden&csrf=hidden&username=hidden&id=hidden&path=hidden"
    (line,) = await written(capfd, "POST", "/headrace/sign-in", form, status=401)
    assert line["objects"] == {}  # people type passwords there
    (line,) = await written(capfd, "POST", "/headrace/sign-in", form, status=401, named="ada")
    assert line["objects"] == {"name": "ada"}
    for body in (
        b"\xff\x00{",
        b'{"run_id": "\xed\xa0\x80"}',
        b'{"a": ' + b"[" * 5000,
        b'{"run_id":',
        b"[1]",
        b'{"run_id": {"a": 1}}',
        b"x" * 100_000,
    ):
        (line,) = await written(capfd, "POST", API + "runs/delete", body)
        assert line["objects"] == {}


async def test_the_table_only_grows(capfd: pytest.CaptureFixture[str], table: AuditTable, tmp_path: Path) -> None:
    for run in ("r1", "r2"):
        await written(capfd, "POST", API + "runs/delete", {"run_id": run}, table=table)
    found = await table.entries(0, None, 10)
    assert [entry.objects for entry in found] == [{"run_id": "r2"}, {"run_id": "r1"}]
    assert await table.entries(0, "ada", 1) == found[:1]
    assert await table.entries(0, "bob", 10) == []
    with sqlite3.connect(tmp_path / "a.db") as database:
        for statement in ("DELETE FROM headrace_audit", "UPDATE headrace_audit SET user_name = 'bob'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    "name", ["\0", "a\0b", "\\u0000", "\\\\u0000\\", '"\\u0000"', "\ud800".encode(errors="replace").decode()]
)
async def test_whatever_a_name_is_the_table_can_be_read(
    capfd: pytest.CaptureFixture[str], table: AuditTable, name: str
) -> None:
    await written(capfd, "POST", API + "registered-models/create", {"name": name}, table=table)
    (entry,) = await table.entries(0, None, 10)
    assert entry.objects == {"name": name.replace("\0", "")}


async def test_a_row_that_is_broken_hides_no_other(
    capfd: pytest.CaptureFixture[str], table: AuditTable, tmp_path: Path
) -> None:
    await written(capfd, "POST", API + "runs/delete", {"run_id": "r1"}, table=table)
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("INSERT INTO headrace_audit VALUES (1, '', '', '', 'POST', '/', 200, '{\"name\": \"\\\"}')")
    database.close()
    assert [entry.objects for entry in await table.entries(0, None, 10)] == [
        {"run_id": "r1"},
        {"unreadable": '{"name": "\\"}'},
    ]
