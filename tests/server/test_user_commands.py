"""`headrace user` and `headrace token`, without a server: what they say, and how they refuse."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
from pathlib import Path

import pytest

from headrace.auth.accounts import opened_accounts
from headrace.auth.audit_table import AuditTable
from headrace.settings import Settings
from tests.server.conftest import run_headrace
from tests.server.guarded import PASSWORD
from tests.support.databases import Databases


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
    headrace("user", "revoke", "ada", "--experiment", "0")
    headrace("token", "revoke", listed["id"])
    headrace("user", "role", "ada", "viewer")
    headrace("user", "groups", "ada")
    (user,) = json.loads(headrace("user", "list", "--json"))
    assert (user["role"], user["groups"], user["password"]) == ("viewer", [], "no")
    assert "None." in headrace("token", "list")


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


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["user", "disable", "nobody"], "There is no user nobody"),
        (["user", "token", "nobody"], "There is no user nobody"),
        (["user", "grant", "nobody", "read", "--model", "m"], "There is no user nobody"),
        (["user", "grant", "g", "read", "--group"], "either an --experiment or a --model"),
        (["user", "grant", "g", "read", "--group", "--experiment", "no such"], "There is no experiment no such"),
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
