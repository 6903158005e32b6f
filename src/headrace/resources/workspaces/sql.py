"""SQL of workspaces."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Sql

COLUMNS = "name, description, default_artifact_root, trace_archival_location, trace_archival_retention"
LIST = Sql(f"SELECT {COLUMNS} FROM workspaces ORDER BY name")
LIST_GRANTED = Sql(f"""
SELECT {COLUMNS} FROM workspaces WHERE name = 'default' OR EXISTS (
  SELECT 1 FROM headrace_grants WHERE grantee IN :grantees AND (
    kind = 'workspace' AND object = workspaces.name OR kind = 'model' AND object LIKE workspaces.name || '/%'))
  OR name IN (
    SELECT workspace FROM experiments WHERE experiment_id IN (
      SELECT CAST(object AS integer) FROM headrace_grants WHERE kind = 'experiment' AND grantee IN :grantees))
ORDER BY name
""")
GET = Sql(f"SELECT {COLUMNS} FROM workspaces WHERE name = :name")
CREATE = Sql(f"""
INSERT INTO workspaces ({COLUMNS})
VALUES (:name, :description, NULLIF(CAST(:root AS text), ''), NULLIF(CAST(:location AS text), ''),
  NULLIF(CAST(:retention AS varchar), ''))
RETURNING {COLUMNS}
""")
# None keeps what is there
UPDATE = Sql(f"""
UPDATE workspaces SET
  description = COALESCE(CAST(:description AS text), description),
  default_artifact_root = NULLIF(COALESCE(CAST(:root AS text), default_artifact_root), ''),
  trace_archival_location = NULLIF(COALESCE(CAST(:location AS text), trace_archival_location), ''),
  trace_archival_retention = NULLIF(COALESCE(CAST(:retention AS varchar), trace_archival_retention), '')
WHERE name = :name RETURNING {COLUMNS}
""")
DELETE = Sql("DELETE FROM workspaces WHERE name = :name RETURNING name")
# Nobody's grants are left for the next workspace of that name; those on models go with them to the default one, where
# there is none of that name. `before`: the name and a slash.
DROP_GRANTS = Sql("""
DELETE FROM headrace_grants
WHERE kind = 'workspace' AND object = :name OR kind = 'model' AND object LIKE CAST(:before AS varchar) || '%'
""")
DROP_GRANTS_OF_MOVED = Sql("""
DELETE FROM headrace_grants WHERE kind = 'model' AND object IN (
  SELECT name FROM registered_models WHERE workspace = :name)
""")
MOVE_GRANTS = Sql("""
UPDATE headrace_grants SET object = substr(object, length(CAST(:before AS varchar)) + 1)
WHERE kind = 'model' AND object IN (
  SELECT CAST(:before AS varchar) || name FROM registered_models WHERE workspace = :name)
""")

# what is in a workspace by itself, and whether its name is unique there; all else is where these are. The models come
# first, as in stock (_WORKSPACE_ROOT_MODELS): their versions, tags and aliases follow them by foreign keys.
ROOTS = {
    "registered_models": True,
    "experiments": True,
    "evaluation_datasets": True,
    "webhooks": True,
    "secrets": False,
    "endpoints": True,
    "model_definitions": True,
    "budget_policies": False,
    "guardrails": True,
    "jobs": False,
    "mcp_servers": True,
}
# (table, rows), of those that have any
USED = Sql(
    "SELECT kind, rows FROM ("
    + " UNION ALL ".join(
        f"SELECT {place} AS place, '{table}' AS kind, COUNT(*) AS rows FROM {table} WHERE workspace = :name"
        for place, table in enumerate(ROOTS)
    )
    + ") used WHERE rows > 0 ORDER BY place"
)
DELETE_UNUSED = Sql(
    "DELETE FROM workspaces WHERE name = :name"
    + "".join(f" AND NOT EXISTS (SELECT 1 FROM {table} WHERE workspace = :name)" for table in ROOTS)
    + " RETURNING name"
)
# (table, name), of what both workspaces have
CONFLICTS = Sql(
    "SELECT kind, name FROM ("
    + " UNION ALL ".join(
        f"SELECT {place} AS place, '{table}' AS kind, name FROM {table} WHERE workspace = :name"
        f" AND name IN (SELECT name FROM {table} WHERE workspace = :target)"
        for place, (table, has_names) in enumerate(ROOTS.items())
        if has_names
    )
    + ") conflicts ORDER BY place, name"
)
MOVES = tuple(Sql(f"UPDATE {table} SET workspace = :target WHERE workspace = :name") for table in ROOTS)

# ---- deletion with all that is in it -------------------------------------------------------------------------------

_MINE = "experiment_id IN (SELECT experiment_id FROM experiments WHERE workspace = :name)"
EXPERIMENTS = Sql("SELECT experiment_id FROM experiments WHERE workspace = :name ORDER BY experiment_id")
RUNS = Sql(f"SELECT run_uuid FROM runs WHERE {_MINE} ORDER BY run_uuid")
LOGGED_MODELS = Sql(f"SELECT model_id FROM logged_models WHERE {_MINE} ORDER BY model_id")
TRACES = Sql(f"SELECT request_id FROM trace_info WHERE {_MINE} ORDER BY timestamp_ms, request_id")
EVALUATION_DATASETS = Sql("SELECT dataset_id FROM evaluation_datasets WHERE workspace = :name ORDER BY dataset_id")
DELETE_RUNS = Sql("DELETE FROM runs WHERE run_uuid IN :ids")
DELETE_LOGGED_MODELS = Sql("DELETE FROM logged_models WHERE model_id IN :ids")
UNLINK_TRACES = Sql("DELETE FROM entity_associations WHERE source_type = 'trace' AND source_id IN :trace_ids")
# In an order that foreign keys without ON DELETE CASCADE allow: a guardrail names a version of an experiment's scorer,
# an endpoint model definitions, and those secrets.
DELETE_ROOTS = tuple(
    Sql(f"DELETE FROM {table} WHERE workspace = :name")
    for table in (
        *("model_version_tags", "model_versions", "registered_model_tags", "registered_models"),
        *("guardrails", "endpoints", "model_definitions", "secrets", "budget_policies", "jobs", "mcp_servers"),
        *("webhooks", "evaluation_datasets", "experiments"),
    )
)
