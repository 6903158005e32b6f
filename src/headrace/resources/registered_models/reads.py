"""Registered models and their versions, as MLflow's messages have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from headrace.api.endpoint import Call
from headrace.db.query import Bound
from headrace.errors import Declined
from headrace.resources.model_versions import sql as version_sql
from headrace.resources.model_versions.reads import STATUS
from headrace.resources.registered_models import sql

_OPTIONAL = ("last_updated_timestamp", "description", "user_id", "current_stage", "source", "run_id", "run_link")


class _Alias(msgspec.Struct, gc=False):
    alias: str
    version: str


def model_version(row: Sequence[Any]) -> dict[str, Any]:
    """A row of model_versions.sql as stock renders it (ModelVersion.to_proto). Raises Declined where it can't."""
    (name, number, created, updated, description, user_id, stage, source, run_id, status, message, run_link, tags,
     its_aliases) = row  # fmt: skip
    if created is None or status not in STATUS:
        raise Declined("a model version has no creation_time, or a status of its own")
    version: dict[str, Any] = {"name": name, "version": str(number), "creation_timestamp": created}
    for field, value in zip(_OPTIONAL, (updated, description, user_id, stage, source, run_id, run_link), strict=True):
        if value is not None:
            version[field] = value
    version["status"] = status
    if message:
        version["status_message"] = message
    if tags and tags != "[]":
        version["tags"] = Raw(tags.encode())
    if its_aliases and its_aliases != "[]":
        version["aliases"] = Raw(its_aliases.encode())
    return version


async def read_version(call: Call, statement: Bound) -> dict[str, Any] | None:
    """The version of a statement like version_sql.GET."""
    rows = await call.db.rows(statement)
    return model_version(rows[0]) if rows else None


async def registered_models(call: Call, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of sql.SELECT as RegisteredModel.to_proto has them."""
    if not rows:
        return []
    names = [row[0] for row in rows]
    versions = await call.db.rows(version_sql.LATEST_OF_MODELS(workspace=call.workspace, names=names))
    return _with_versions(rows, versions)


def _with_versions(rows: Sequence[Any], versions: Sequence[Any]) -> list[dict[str, Any]]:
    """Stock leaves out the versions' aliases, in the client's object too; they are in the models' rows already."""
    models: dict[str, dict[str, Any]] = {}
    aliases_of: dict[tuple[str, str], list[str]] = {}
    for name, created, updated, description, tags, aliases in rows:
        model = models[name] = {"name": name}
        if created is not None:
            model["creation_timestamp"] = created
        if updated:
            model["last_updated_timestamp"] = updated
        if description:
            model["description"] = description
        if tags and tags != "[]":
            model["tags"] = Raw(tags.encode())
        if aliases and aliases != "[]":
            model["aliases"] = Raw(aliases.encode())
            for alias in msgspec.json.decode(aliases, type=list[_Alias]):
                aliases_of.setdefault((name, alias.version), []).append(alias.alias)
    for row in versions:
        version = model_version(row)
        if its_aliases := aliases_of.get((row[0], version["version"])):
            version["aliases"] = its_aliases
        models[row[0]].setdefault("latest_versions", []).append(version)
    return list(models.values())


async def registered_model(call: Call, name: str) -> dict[str, Any] | None:
    """One of them; None where there is none of that name."""
    rows, versions = await call.db.rows_of(
        sql.GET(workspace=call.workspace, name=name),
        version_sql.LATEST_OF_MODELS(workspace=call.workspace, names=[name]),
    )
    models = _with_versions(rows, versions) if rows else []
    return models[0] if models else None
