"""The statements of model versions. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Dialect, Sql

# A version's columns, then its tags and aliases as JSON lists (null, or empty, where there are none): one row, and one
# round trip, for what stock reads with three queries.
COLUMNS = """v.name, v.version, v.creation_time, v.last_updated_time, v.description, v.user_id, v.current_stage,
  v.source, v.run_id, v.status, v.status_message, v.run_link"""
_OF_VERSION = "{0}.workspace = v.workspace AND {0}.name = v.name AND {0}.version = v.version"
# What a tag is in JSON: for PostgreSQL a text, for `json_list`, which costs two thirds of json_agg of json_build_object
# (100 models with 3 tags and an alias each: 1.3 ms, not 2.05).
TAG_JSON = {
    Dialect.POSTGRESQL: """
    '{"key":' || to_json(t.key)::text || coalesce(',"value":' || to_json(t.value)::text, '') || '}'""",
    Dialect.SQLITE: """CASE WHEN t.value IS NULL THEN json_object('key', t.key)
    ELSE json_object('key', t.key, 'value', t.value) END""",
}


def json_list(item: str, order: str) -> str:
    """PostgreSQL's aggregate: a JSON list, as text, of items that are JSON; null for none."""
    return f"'[' || string_agg({item}, ',' ORDER BY {order}) || ']'"


# `+t.key` keeps SQLite from reading all tags in the primary key's order: 1,000 versions in 17 ms, not 6 s.
_TAGS = {
    Dialect.POSTGRESQL: f"""
  (SELECT {json_list(TAG_JSON[Dialect.POSTGRESQL], "t.key")}
   FROM model_version_tags t WHERE {_OF_VERSION.format("t")})""",
    Dialect.SQLITE: f"""
  (SELECT json_group_array(json(item)) FROM (SELECT {TAG_JSON[Dialect.SQLITE]} AS item
     FROM model_version_tags t WHERE {_OF_VERSION.format("t")} ORDER BY +t.key))""",
}
_ALIASES = {
    Dialect.POSTGRESQL: f"""
  (SELECT {json_list("to_json(a.alias)::text", "a.alias")} FROM registered_model_aliases a
   WHERE {_OF_VERSION.format("a")})""",
    Dialect.SQLITE: f"""
  (SELECT json_group_array(alias) FROM (
     SELECT a.alias FROM registered_model_aliases a WHERE {_OF_VERSION.format("a")} ORDER BY a.alias))""",
}
SELECT = {
    dialect: f"SELECT {COLUMNS}, {_TAGS[dialect]}, {_ALIASES[dialect]} FROM model_versions v" for dialect in Dialect
}
_THERE = "v.workspace = :workspace AND v.name = :name AND v.current_stage <> 'Deleted_Internal'"


def _both(rest: str) -> Sql:
    return Sql(
        postgresql=f"{SELECT[Dialect.POSTGRESQL]} {rest}",
        sqlite=f"{SELECT[Dialect.SQLITE]} {rest}",
    )


GET = _both(f"WHERE {_THERE} AND v.version = :version")
GET_BY_ALIAS = _both(f"""
WHERE {_THERE} AND v.version = (SELECT version FROM registered_model_aliases
  WHERE workspace = :workspace AND name = :name AND alias = :alias)
""")
LATEST = _both(f"WHERE {_THERE} ORDER BY v.version DESC LIMIT 1")
LATEST_OF_STAGE = _both(f"WHERE {_THERE} AND v.current_stage = :stage ORDER BY v.version DESC LIMIT 1")
_LATEST = """(SELECT workspace, name, max(version) AS version FROM model_versions
  WHERE workspace = :workspace AND name IN :names AND current_stage <> 'Deleted_Internal'
  GROUP BY workspace, name, current_stage)"""
# The latest of each stage.
LATEST_OF_STAGES = _both(f"WHERE (v.workspace, v.name, v.version) IN {_LATEST} ORDER BY v.name, v.version")
# The same without aliases, which are in the models' rows. PostgreSQL takes them by the key (of 100 models: 1.6 ms, not
# 2.6) only if it must.
LATEST_OF_MODELS = Sql(
    postgresql=f"""
SELECT {COLUMNS}, {_TAGS[Dialect.POSTGRESQL]}, NULL FROM {_LATEST} latest CROSS JOIN LATERAL (
  SELECT * FROM model_versions one WHERE one.workspace = latest.workspace AND one.name = latest.name
    AND one.version = latest.version OFFSET 0) v
ORDER BY v.name, v.version
""",
    sqlite=f"""
SELECT {COLUMNS}, {_TAGS[Dialect.SQLITE]}, NULL FROM model_versions v
WHERE (v.workspace, v.name, v.version) IN {_LATEST} ORDER BY v.name, v.version
""",
)
# Where the files of a model version are (SqlAlchemyStore.get_model_version_download_uri).
SOURCE = Sql(f"""
SELECT CASE WHEN v.storage_location IS NULL OR v.storage_location = '' THEN v.source ELSE v.storage_location END
FROM model_versions v WHERE {_THERE} AND v.version = :version
""")
ALIAS = Sql(
    "SELECT version FROM registered_model_aliases WHERE workspace = :workspace AND name = :name AND alias = :alias"
)

# Its lock on the model's row makes two new versions come one after the other, each with a number of its own.
TOUCH_MODEL = Sql("""
UPDATE registered_models SET last_updated_time = :now WHERE workspace = :workspace AND name = :name RETURNING 1
""")
_INSERT = """
INSERT INTO model_versions (workspace, name, version, creation_time, last_updated_time, description, current_stage,
  source, storage_location, run_id, run_link, status)
SELECT m.workspace, m.name, coalesce((SELECT max(version) FROM model_versions
    WHERE workspace = :workspace AND name = :name), 0) + 1,
  CAST(:now AS bigint), CAST(:now AS bigint), CAST(:description AS varchar), 'None', CAST(:source AS varchar),
  CAST(:storage_location AS varchar), CAST(:run_id AS varchar), CAST(:run_link AS varchar), 'READY'
FROM {model} m WHERE m.workspace = :workspace AND m.name = :name
RETURNING {returning}"""
CREATE = Sql(_INSERT.format(model="registered_models", returning="version"))
# after CREATE, in its transaction
TAG_NEW = Sql("""
INSERT INTO model_version_tags (workspace, name, version, key, value)
SELECT workspace, name, max(version), CAST(:key AS varchar), CAST(:value AS text) FROM model_versions
WHERE workspace = :workspace AND name = :name GROUP BY workspace, name
""")
# The new version joins the list in the logged model's tag (AbstractStore.set_model_versions_tags, whose JSON it is).
# `start`: of the new item, up to the number.
_LINK = """
INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value)
SELECT m.model_id, m.experiment_id, 'mlflow.modelVersions', '[' || CAST(:start AS text) || max(v.version) || '}}]'
FROM logged_models m, {versions} v
WHERE m.model_id = :model_id AND v.workspace = :workspace AND v.name = :name GROUP BY m.model_id, m.experiment_id
ON CONFLICT (model_id, tag_key) DO UPDATE SET tag_value = CASE
  WHEN length(logged_model_tags.tag_value) <= 2 THEN excluded.tag_value
  ELSE substr(logged_model_tags.tag_value, 1, length(logged_model_tags.tag_value) - 1) || ', '
    || substr(excluded.tag_value, 2) END"""
# after CREATE, in its transaction
LINK_LOGGED_MODEL = Sql(_LINK.format(versions="model_versions"))
# All of that in one statement, and one round trip; PostgreSQL only. Of two at once the second takes the number of the
# first, as its snapshot is older than its lock: it raises Duplicate, and comes again with the statements above.
CREATE_AT_ONCE = Sql(f"""
WITH touched AS (
  UPDATE registered_models SET last_updated_time = :now WHERE workspace = :workspace AND name = :name
  RETURNING workspace, name
), made AS ({_INSERT.format(model="touched", returning="workspace, name, version")}
), tagged AS (
  INSERT INTO model_version_tags (workspace, name, version, key, value)
  SELECT made.workspace, made.name, made.version, tag.key, tag.value
  FROM made, unnest(CAST(:keys AS varchar[]), CAST(:values AS text[])) AS tag (key, value)
), linked AS ({_LINK.format(versions="made")}
)
SELECT version FROM made
""")
_OF = "workspace = :workspace AND name = :name AND version = :version"
_ACTIVE = f"{_OF} AND current_stage <> 'Deleted_Internal'"
UPDATE = Sql(f"""
UPDATE model_versions SET description = :description, last_updated_time = :now WHERE {_ACTIVE} RETURNING 1
""")
TRANSITION = Sql(f"""
UPDATE model_versions SET current_stage = :stage, last_updated_time = :now WHERE {_ACTIVE} RETURNING 1
""")
ARCHIVE_OTHERS = Sql("""
UPDATE model_versions SET current_stage = 'Archived', last_updated_time = :now
WHERE workspace = :workspace AND name = :name AND version <> :version AND current_stage = :stage
""")
DELETE = Sql(f"""
UPDATE model_versions SET current_stage = 'Deleted_Internal', last_updated_time = :now, description = NULL,
  user_id = NULL, source = 'REDACTED-SOURCE-PATH', run_id = 'REDACTED-RUN-ID', run_link = 'REDACTED-RUN-LINK',
  status_message = NULL
WHERE {_ACTIVE} RETURNING 1
""")
DELETE_ALIASES = Sql(f"DELETE FROM registered_model_aliases WHERE {_OF}")
SET_TAG = Sql(f"""
INSERT INTO model_version_tags (workspace, name, version, key, value)
SELECT workspace, name, version, CAST(:key AS varchar), CAST(:value AS text) FROM model_versions WHERE {_ACTIVE}
ON CONFLICT (workspace, key, name, version) DO UPDATE SET value = excluded.value RETURNING 1
""")
EXISTS = Sql(f"SELECT 1 FROM model_versions WHERE {_ACTIVE}")
DELETE_TAG = Sql(f"DELETE FROM model_version_tags WHERE {_OF} AND key = :key")
SET_ALIAS = Sql(f"""
INSERT INTO registered_model_aliases (workspace, name, alias, version)
SELECT workspace, name, CAST(:alias AS varchar), version FROM model_versions WHERE {_ACTIVE}
ON CONFLICT (workspace, name, alias) DO UPDATE SET version = excluded.version RETURNING 1
""")

# What a new version's source lies in.
RUN = Sql("""
SELECT r.artifact_uri FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id
WHERE r.run_uuid = :run_id AND e.workspace = :workspace
""")
LOGGED_MODEL = Sql("""
SELECT m.artifact_location, m.source_run_id FROM logged_models m
JOIN experiments e ON e.experiment_id = m.experiment_id
WHERE m.model_id = :model_id AND m.lifecycle_stage <> 'deleted' AND e.workspace = :workspace
""")
