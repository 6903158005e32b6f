"""`headrace user` and `headrace token`, without a server: what they say, and how they refuse."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.auth.accounts import opened_accounts
from headrace.auth.audit_table import AuditTable
from headrace.settings import Settings
from tests.server.conftest import run_headrace
from tests.server.guarded import PASSWORD, start_guarded
from tests.support.databases import Databases
from tests.support.fork_server import client_environment


@pytest.fixture(scope="module")
def store(databases: Databases) -> tuple[str, str]:
    return "--backend-store-uri", databases.migrated("sqlite").uri


def test_a_user_from_beginning_to_end(store: tuple[str, str], tmp_path: Path) -> None:
    def headrace(*arguments: str) -> str:
        done = run_headrace(*arguments, *store, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    headrace("user", "add", "ada", "--role", "editor", "--group", "team", "--no-password")
    token = headrace("user", "token", "ada", "--name", "laptop", "--days", "7").strip()
    assert token.startswith("hr_")
    assert len(token) == 46
    (listed,) = json.loads(headrace("token", "list", "--json"))
    assert (listed["user"], listed["name"], listed["last_used_at"]) == ("ada", "laptop", None)
    assert token not in headrace("token", "list")
    headrace("user", "grant", "ada", "edit", "--experiment", "Default")
    headrace("user", "grant", "team", "read", "--group", "--model", "m")
    assert [(each["grantee"], each["object"]) for each in json.loads(headrace("user", "grants", "--json"))] == [
        ("user:ada", "0"),
        ("group:team", "m"),
    ]
    shown = [line.split() for line in headrace("user", "grants").splitlines()]
    assert shown == [
        ["grantee", "kind", "object", "permission", "name"],
        ["user:ada", "experiment", "0", "edit", "Default"],
        ["group:team", "model", "m", "read", "m"],
    ]
    headrace("user", "revoke", "ada", "--experiment", "0")
    headrace("token", "revoke", listed["id"])
    headrace("user", "role", "ada", "viewer")
    headrace("user", "groups", "ada")
    (user,) = json.loads(headrace("user", "list", "--json"))
    assert (user["role"], user["groups"], user["password"]) == ("viewer", [], "no")
    assert "None." in headrace("token", "list")
    assert Path(store[1].removeprefix("sqlite:///")).stat().st_mode & 0o077 == 0  # it has what signs sessions


def test_what_is_done_is_in_the_audit_log(databases: Databases, tmp_path: Path) -> None:
    database = databases.migrated("sqlite")

    def headrace(*arguments: str) -> str:
        done = run_headrace(
            *arguments, "--backend-store-uri", database.uri, cwd=tmp_path, env={"SUDO_USER": "ada", "LOGNAME": "eve"}
        )
        return done.stdout if done.returncode == 0 else done.stderr

    headrace("user", "add", "before", "--no-password")
    assert "There is no table headrace_audit" in headrace("audit")
    asyncio.run(_make_audit_table(database.uri))
    headrace("user", "add", "ada", "--role", "editor", "--group", "team", "--group", "lab", "--no-password")
    token = headrace("user", "token", "ada", "--name", "laptop").strip()
    headrace("user", "grant", "team", "read", "--group", "--model", "m")
    headrace("user", "disable", "nobody")
    headrace("user", "list")
    text = headrace("audit", "--json")
    assert token not in text
    granted, made, added = json.loads(text)
    assert (added["method"], added["path"], added["status"]) == ("headrace", "user add", 0)
    assert added["objects"]["groups"] == "team, lab"
    assert (added["user"], added["via"]) == (pwd.getpwuid(os.getuid()).pw_name, "command line, sudo by ada")
    assert made["objects"] == {"name": "ada", "label": "laptop"}
    assert granted["objects"] == {"name": "team", "permission": "read", "group": "True", "model": "m"}


async def _make_audit_table(uri: str) -> None:
    async with opened_accounts(Settings(backend_store_uri=uri)) as accounts:
        await AuditTable(accounts.store).set_up()


# flask_wtf, which only basic-auth's web pages need, is not installed: an empty module of that name lets its store load
BASIC_AUTH = """
import sys, types
from unittest.mock import MagicMock
sys.modules["flask_wtf"] = sys.modules["flask_wtf.csrf"] = MagicMock()
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore()
store.init_db("sqlite:///basic_auth.db")
store.create_user("root", "the root password", is_admin=True)
ada = store.create_user("ada", "ada's old password")
store.create_user("here", "password of before")
store.create_user("new\\nline", "password of a line")
store.create_experiment_permission("0", "ada", "EDIT")
store.create_registered_model_permission("churn", "ada", "MANAGE")
store.create_experiment_permission("0.5", "new\\nline", "READ")
role = store.create_role("team", "default")
store.assign_role_to_user(ada.id, role.id)
store.add_role_permission(role.id, "experiment", "0", "READ")
store.add_role_permission(role.id, "experiment", "*", "EDIT")
there = store.create_role("team", "team-a")
store.assign_role_to_user(ada.id, there.id)
store.add_role_permission(there.id, "registered_model", "churn", "READ")
store.add_role_permission(there.id, "workspace", "*", "USE")
store.add_role_permission(there.id, "experiment", "0", "MANAGE")
chief = store.create_role("chief", "team-b")
store.assign_role_to_user(ada.id, chief.id)
store.add_role_permission(chief.id, "workspace", "*", "MANAGE")
"""


def test_users_of_basic_auth_are_taken_over(databases: Databases, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BASIC_AUTH], cwd=tmp_path, check=True, env=client_environment(), timeout=120)
    before = (tmp_path / "basic_auth.db").read_bytes()
    guarded = start_guarded(databases.migrated("sqlite"), tmp_path, "--stock", "lazy", users={"here": "viewer"})
    try:
        dry = guarded.headrace("user", "import", "basic_auth.db", "--dry-run")
        assert [each["name"] for each in json.loads(guarded.headrace("user", "list", "--json"))] == ["here"]
        told = guarded.headrace("user", "import", "basic_auth.db")
        assert told.splitlines() == dry.splitlines()[:-1]
        assert told.splitlines() == [
            "ada: viewer, the password as it was, 4 permissions; not taken over: EDIT on experiment *; "
            "not taken over: USE on workspace * in team-a; "
            "not taken over: manage on experiment 0, which is not in team-a",
            "here: is here already, left alone",
            "new\\nline: viewer, the password as it was, 0 permissions; not taken over: READ on experiment 0.5",
            "root: admin, the password as it was, 0 permissions",
        ]
        found = {
            (each["kind"], each["object"], each["permission"])
            for each in json.loads(guarded.headrace("user", "grants", "--json"))
        }
        assert found == {
            ("experiment", "0", "edit"), ("model", "churn", "manage"), ("model", "team-a/churn", "read"),
            ("workspace", "team-b", "manage"),
        }  # fmt: skip
        search = "/api/2.0/mlflow/experiments/search?max_results=5"
        for name, password, status in (
            ("ada", "ada's old password", 200),
            ("root", "the root password", 200),
            ("new\nline", "password of a line", 200),
            ("ada", "the root password", 401),
            ("here", "password of before", 401),
            ("here", PASSWORD, 200),
            ("ada", "ada's old password", 200),
        ):
            assert guarded.status("GET", search, auth=(name, password)) == status, name
        kept = guarded.database.query("SELECT password FROM headrace_users")
        assert all(row["password"].startswith("$argon2id$") for row in kept)  # since each has signed in
        assert "left alone" in guarded.headrace("user", "import", "sqlite:///basic_auth.db").splitlines()[0]
        assert (tmp_path / "basic_auth.db").read_bytes() == before
    finally:
        guarded.server.stop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["user", "link", "nobody"], "There is no user nobody"),
        (["user", "import", "no-such.db"], "is not the users' database of MLflow's basic-auth: unable to open"),
        (["user", "import", "/dev/null"], "is not the users' database of MLflow's basic-auth: no such table: users"),
        (["user", "disable", "nobody"], "There is no user nobody"),
        (["user", "token", "nobody"], "There is no user nobody"),
        (["user", "grant", "nobody", "read", "--model", "m"], "There is no user nobody"),
        (["user", "grant", "g", "read", "--group"], "Name an --experiment, a --model or a --workspace"),
        (["user", "grant", "g", "read", "--group", "--model", "m", "--experiment", "e"], "either an --experiment or a"),
        (["user", "grant", "g", "read", "--group", "--workspace", "nowhere"], "There is no workspace nowhere"),
        (["user", "grant", "g", "read", "--group", "--experiment", "no such"], "There is no experiment no such"),
        (["user", "grant", "g", "read", "--group", "--experiment", "9999999999"], "There is no experiment 9999999999"),
        (["user", "add", "a:b", "--no-password"], "no colon"),
        (["user", "add", "b"], "A password has 12 characters or more"),  # nothing on the standard input
        (["token", "revoke", "0"], "There is no token 0"),
    ],
)
def test_refusals(store: tuple[str, str], tmp_path: Path, arguments: list[str], text: str) -> None:
    done = run_headrace(*arguments, *store, cwd=tmp_path)
    assert done.returncode != 0
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_a_database(tmp_path: Path) -> None:
    done = run_headrace("user", "list", cwd=tmp_path)
    assert done.returncode == 2
    assert "There is no database" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_no_argument(store: tuple[str, str], tmp_path: Path) -> None:
    done = run_headrace("user", "add", "c", "--password", PASSWORD, *store, cwd=tmp_path)
    assert done.returncode == 2
    assert "No such option" in done.stderr
