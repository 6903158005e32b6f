"""Model versions as they are read."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence

from headrace.auth.objects import granted_model
from headrace.db.database import Database
from headrace.db.query import Statement
from headrace.entities import KeyValue, ModelVersion
from headrace.errors import Declined
from headrace.resources.model_versions.sql import SOURCE

STATUS = ("PENDING_REGISTRATION", "FAILED_REGISTRATION", "READY")


async def model_source(db: Database, workspace: str, name: str, version: int) -> str | None:
    """Where the model version's files are, "" where nothing is said; None where there is no such version."""
    rows = await db.rows(SOURCE(workspace=workspace, name=name, version=version))
    return rows[0][0] or "" if rows else None


async def of_runs(
    db: Database, workspace: str, run_ids: Sequence[str], grantees: Sequence[str] | None
) -> list[ModelVersion]:
    """The model versions that the runs made, the last updated first, then by name and version.

    Raises Declined for rows that stock can't render (SqlAlchemyStore.search_model_versions).
    """
    sql = Statement(db.dialect)
    where = [sql.in_list("run_id", run_ids), *granted_model(sql, "name", grantees, workspace)]
    rows = await db.rows(
        sql.query(f"""
SELECT name, version, creation_time, status, run_id, last_updated_time, description, user_id, current_stage, source,
  run_link, status_message
FROM model_versions
WHERE workspace = {sql.bind(workspace)} AND current_stage <> 'Deleted_Internal' AND {" AND ".join(where)}
ORDER BY last_updated_time DESC, name, version DESC
""")
    )
    versions = {(row[0], row[1]): _model_version(*row) for row in rows}
    if versions:
        sql = Statement(db.dialect)
        tags = await db.rows(
            sql.query(f"""
SELECT t.name, t.version, t.key, t.value FROM model_version_tags t
JOIN model_versions v ON v.workspace = t.workspace AND v.name = t.name AND v.version = t.version
WHERE v.workspace = {sql.bind(workspace)} AND {sql.in_list("v.run_id", run_ids)}
""")
        )
        for name, version, key, value in tags:
            if value is None:
                raise Declined("a model version has a tag without a value")
            if (name, version) in versions:
                versions[name, version].tags.append(KeyValue(key, value))
    return list(versions.values())


def _model_version(
    name: str,
    version: int,
    creation_time: int | None,
    status: str | None,
    run_id: str,
    last_updated_time: int | None,
    *texts: str | None,
) -> ModelVersion:
    """A row of `model_versions` as stock renders it (ModelVersion.to_proto)."""
    if creation_time is None or status not in STATUS:
        raise Declined("a model version has no creation_time, or a status of its own")
    description, user_id, current_stage, source, run_link, status_message = texts
    return ModelVersion(
        name, str(version), creation_time, status, run_id, last_updated_time,
        description, user_id, current_stage, source, run_link, status_message or None, [],
    )  # fmt: skip
