"""The workspace that a request names."""

from __future__ import annotations

from headrace.api.endpoint import Endpoint
from headrace.asgi.types import Scope
from headrace.auth.objects import NOTHING
from headrace.entities import DEFAULT_WORKSPACE
from headrace.errors import InvalidParameter, NotServed

# Stock says 500 or 503 here, which clients send again for minutes.
NO_WORKSPACES = NotServed("This server has no workspaces. `headrace serve --enable-workspaces` turns them on.")


def workspace_of(scope: Scope) -> str:
    """What the header X-MLFLOW-WORKSPACE names. Raises InvalidParameter for two that differ."""
    names = {value.strip().decode("latin-1") for name, value in scope["headers"] if name == b"x-mlflow-workspace"}
    if len(names) > 1:
        raise InvalidParameter("The header X-MLFLOW-WORKSPACE is there twice, with different values. Send it once.")
    return next(iter(names), "") or DEFAULT_WORKSPACE


def check_default(scope: Scope, endpoint: Endpoint) -> None:
    """For a server without workspaces. Raises NotServed where the request names another than the default one.

    What is about no object, such as server-info, by which MLflow's client learns that there are none, is answered.
    """
    if endpoint.target is NOTHING:
        return
    for name, value in scope["headers"]:
        if name == b"x-mlflow-workspace" and value.strip() not in (b"", DEFAULT_WORKSPACE.encode()):
            raise NO_WORKSPACES
