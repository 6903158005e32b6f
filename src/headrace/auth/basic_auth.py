"""The users in MLflow's basic_auth.db, read to be taken over. The file is not changed.

MLflow 3.13 and newer keeps permissions with roles, older ones in a table for each kind; where both are, roles count.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from headrace.auth.accounts import Grant
from headrace.auth.objects import experiment_number, model_key
from headrace.auth.passwords import is_werkzeugs
from headrace.entities import DEFAULT_WORKSPACE
from headrace.errors import ConfigurationError

_USERS = "SELECT id, username, password_hash, is_admin FROM users ORDER BY username"
_ROLES = """
SELECT assigned.user_id, granted.resource_type, granted.resource_pattern, granted.permission, roles.workspace
FROM user_role_assignments AS assigned JOIN roles ON roles.id = assigned.role_id
JOIN role_permissions AS granted ON granted.role_id = roles.id
ORDER BY assigned.user_id, granted.id"""
_TABLES = """
SELECT user_id, 'experiment', experiment_id, permission, 'default' FROM experiment_permissions
UNION ALL SELECT user_id, 'registered_model', name, permission, 'default' FROM registered_model_permissions"""
_KINDS = {"experiment": "experiment", "registered_model": "model", "prompt": "model"}
# USE lets use what the gateway has; on experiments and models it is READ
_PERMISSIONS = {"READ": "read", "USE": "read", "EDIT": "edit", "MANAGE": "manage"}


class BasicAuthUser(Struct, frozen=True):
    """`password`: Werkzeug's hash, None for one of an unknown kind. `grants`: with the workspace of the role that gives
    them, outside of which they count for nothing. `left_out`: what Headrace has no word for.
    """

    name: str
    is_admin: bool
    password: str | None
    grants: tuple[tuple[Grant, str], ...]
    left_out: tuple[str, ...]


def read(file: str) -> list[BasicAuthUser]:
    """The users by name. `file`: its path, or its URL as in basic_auth.ini.

    Raises ConfigurationError for a file that is none of basic-auth's.
    """
    path = Path(file.removeprefix("sqlite:///"))
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            users = database.execute(_USERS).fetchall()
            granted = database.execute(_ROLES if "role_permissions" in tables else _TABLES).fetchall()
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"{path} is not the users' database of MLflow's basic-auth: {error}. It is the file that database_uri in "
            "basic_auth.ini names."
        ) from None
    return [
        _user(name, password, is_admin, [row[1:] for row in granted if row[0] == number])
        for number, name, password, is_admin in users
    ]


def _user(name: str, password: str | None, is_admin: bool, rows: list[tuple[str, str, str, str]]) -> BasicAuthUser:
    best: dict[tuple[str, str, str], str] = {}
    left_out = []
    for kind, pattern, permission, workspace in rows:
        if kind == "workspace" and permission == "MANAGE" and workspace != DEFAULT_WORKSPACE:
            best["workspace", workspace, workspace] = "manage"
            continue
        if kind not in _KINDS or permission not in _PERMISSIONS or not _is_one(kind, pattern):
            of = "" if workspace == DEFAULT_WORKSPACE else f" in {workspace}"
            left_out.append(f"{permission} on {kind} {pattern}{of}")
            continue
        named = model_key(workspace, pattern) if _KINDS[kind] == "model" else pattern
        key, given = (_KINDS[kind], named, workspace), _PERMISSIONS[permission]
        best[key] = max(best.get(key, "read"), given, key=list(_PERMISSIONS.values()).index)
    grants = tuple((Grant(f"user:{name}", kind, named, given), place) for (kind, named, place), given in best.items())
    known = password if password is not None and is_werkzeugs(password) else None
    return BasicAuthUser(name, bool(is_admin), known, grants, tuple(left_out))


def _is_one(kind: str, pattern: str) -> bool:
    """Whether it names one object: stock took any text for an experiment's number, which lists read as another's."""
    return pattern != "*" and (kind != "experiment" or str(experiment_number(pattern)) == pattern)
