"""The messages of workspaces, as mlflow/protos/service.proto names them."""

from __future__ import annotations

from headrace.api.message import Message


class TraceArchivalConfig(Message):
    """`TraceArchivalConfig`. Absent keeps what is there, an empty text clears it."""

    location: str | None = None
    retention: str | None = None


class ListWorkspaces(Message):
    """`ListWorkspaces`."""


class Described(Message):
    """What is said of a workspace."""

    description: str | None = None
    default_artifact_root: str | None = None
    trace_archival_config: TraceArchivalConfig | None = None


class CreateWorkspace(Described, kw_only=True):
    """`CreateWorkspace`."""

    name: str


class GetWorkspace(Message):
    """`GetWorkspace`."""

    workspace_name: str


class UpdateWorkspace(Described, kw_only=True):
    """`UpdateWorkspace`. Absent keeps what is there, an empty text clears it."""

    workspace_name: str


class DeleteWorkspace(Message):
    """`DeleteWorkspace`, and what becomes of what is in it: RESTRICT, SET_DEFAULT or CASCADE."""

    workspace_name: str
    mode: str = "RESTRICT"
