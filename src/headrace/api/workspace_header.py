"""The workspace that a request names."""

from __future__ import annotations

from headrace.asgi.types import Scope
from headrace.entities import DEFAULT_WORKSPACE
from headrace.errors import InvalidParameter


def workspace_of(scope: Scope) -> str:
    """What the header X-MLFLOW-WORKSPACE names. Raises InvalidParameter for two that differ."""
    names = {value.strip().decode("latin-1") for name, value in scope["headers"] if name == b"x-mlflow-workspace"}
    if len(names) > 1:
        raise InvalidParameter("The header X-MLFLOW-WORKSPACE is there twice, with different values. Send it once.")
    return next(iter(names), "") or DEFAULT_WORKSPACE
