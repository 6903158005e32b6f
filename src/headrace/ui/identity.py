"""What MLflow's UI asks of its server about who is signed in, in the shapes of stock's mlflow/server/auth.

The UI signs out by asking for users/current with a made-up Basic login, which a browser sends only when it is asked for
one. The UI's own requests carry a header that it takes from a cookie of ours; a request without it is that one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.api.permits import Permit
from headrace.api.workspace_header import workspace_of
from headrace.asgi.responses import JSON, NATIVE
from headrace.asgi.responses import send as send_whole
from headrace.asgi.types import PERMIT, Scope, Send
from headrace.auth.access import Grants, grantees
from headrace.auth.accounts import Grant, User
from headrace.auth.principals import Principal, Right
from headrace.errors import Unauthenticated

PATHS = {
    "2.0/mlflow/users/current": "current",
    "3.0/mlflow/users/current/permissions": "permissions",
    "3.0/mlflow/users/roles/list": "roles",
}
# Whom the UI offers as reviewers of traces, and on the gateway's page of its use.
USERS = "2.0/mlflow/users/list"
# The UI makes the header X-Headrace-UI of this cookie (getDefaultHeadersFromCookies).
UI_COOKIE = "mlflow-request-header-X-Headrace-UI"
UI_HEADER = b"x-headrace-ui"
# Basic, with a user that the UI's logout made up
SIGNS_OUT = b"Basic " + base64.b64encode(b"mlflow-logged-out-")
_PERMISSIONS = {Right.READ: "READ", Right.EDIT: "EDIT", Right.MANAGE: "MANAGE", Right.ADMIN: "MANAGE"}


class AskForLogin(Unauthenticated):
    """A challenge that makes the browser send the login that the UI's logout gave it."""

    headers = ((b"www-authenticate", b'Basic realm="MLflow"'),)


async def answer(what: str, scope: Scope, send: Send, who: Principal) -> None:
    """Answer one of PATHS. Raises AskForLogin."""
    names = {name for name, _ in scope["headers"]}
    if what == "current" and who.session_id is not None and b"sec-fetch-mode" in names and UI_HEADER not in names:
        raise AskForLogin("Who is asking?")
    match what:
        case "current":
            found = _current(who)
        case "permissions":
            found = await _permissions(who, scope)
        case _:
            found = {"roles": []}
    await _send(scope, send, found)


def sharing(who: Principal, granted: Grants, users: Iterable[User], grants: Iterable[Grant]) -> list[User]:
    """Themselves, and who has a grant on what is granted to them to edit: of these they may ask for a review."""
    theirs = {place for place, right in granted.items() if right >= Right.EDIT}
    beside = {grant.grantee for grant in grants if (grant.kind, grant.object) in theirs}
    return [user for user in users if user.name == who.user or not beside.isdisjoint(grantees(user.name, user.groups))]


async def list_users(scope: Scope, send: Send, users: Iterable[User]) -> None:
    """Answer USERS: the names of those who may sign in. The UI's lists want an id for each, and show no other."""
    names = [user.name for user in users if user.disabled_at is None]
    listed = [{"id": n, "username": name, "is_admin": False, "roles": []} for n, name in enumerate(names, 1)]
    await _send(scope, send, {"users": listed})


async def _send(scope: Scope, send: Send, answer: object) -> None:
    await send_whole(scope, send, 200, msgspec.json.encode(answer), (JSON, NATIVE, (b"cache-control", b"no-store")))


def _current(who: Principal) -> dict[str, Any]:
    # `is_admin` would show pages that manage stock's own users; `is_basic_auth` shows the way to sign out
    user = {"id": 0, "username": who.user, "is_admin": False}
    return {"user": user, "is_basic_auth": who.session_id is not None}


async def _permissions(who: Principal, scope: Scope) -> dict[str, Any]:
    """The UI offers what these allow, and hides the rest: to change the review queues of an experiment."""
    permit: Permit | None = scope[PERMIT]
    granted = await permit.granted() if permit is not None else {("experiment", "*"): who.right}
    rows = [
        {
            "role_id": 0,
            "role_name": who.right.name.lower(),
            "workspace": name if kind == "workspace" else workspace_of(scope),
            "resource_type": "experiment",
            "resource_pattern": "*" if kind == "workspace" else name,
            "permission": _PERMISSIONS[right],
        }
        for (kind, name), right in granted.items()
        if kind in ("experiment", "workspace")
    ]
    return {"is_admin": who.right is Right.ADMIN, "permissions": rows}
