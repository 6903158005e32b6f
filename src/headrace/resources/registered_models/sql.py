"""The statements of registered models. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Dialect, Sql
from headrace.resources.model_versions.sql import TAG_JSON, json_list

# A model's columns, then its tags and aliases as JSON lists (null, or empty, where there are none).
_OF_MODEL = "{0}.workspace = v.workspace AND {0}.name = v.name"
_ALIAS_JSON = """'{"alias":' || to_json(a.alias)::text || ',"version":"' || a.version || '"}'"""
_LISTS = {
    Dialect.POSTGRESQL: f"""
  (SELECT {json_list(TAG_JSON[Dialect.POSTGRESQL], "t.key")}
   FROM registered_model_tags t WHERE {_OF_MODEL.format("t")}),
  (SELECT {json_list(_ALIAS_JSON, "a.alias")}
   FROM registered_model_aliases a WHERE {_OF_MODEL.format("a")})""",
    Dialect.SQLITE: f"""
  (SELECT json_group_array(json(item)) FROM (SELECT {TAG_JSON[Dialect.SQLITE]} AS item
     FROM registered_model_tags t WHERE {_OF_MODEL.format("t")} ORDER BY +t.key)),
  (SELECT json_group_array(json(item)) FROM (
     SELECT json_object('alias', a.alias, 'version', CAST(a.version AS varchar)) AS item
     FROM registered_model_aliases a WHERE {_OF_MODEL.format("a")} ORDER BY a.alias))""",
}
SELECT = {
    dialect: f"""SELECT v.name, v.creation_time, v.last_updated_time, v.description, {lists}
FROM registered_models v"""
    for dialect, lists in _LISTS.items()
}
GET = Sql(
    postgresql=f"{SELECT[Dialect.POSTGRESQL]} WHERE v.workspace = :workspace AND v.name = :name",
    sqlite=f"{SELECT[Dialect.SQLITE]} WHERE v.workspace = :workspace AND v.name = :name",
)
TAGS = Sql("""
SELECT name, key, value FROM registered_model_tags WHERE workspace = :workspace AND name IN :names ORDER BY name, key
""")
CREATE = Sql("""
INSERT INTO registered_models (workspace, name, creation_time, last_updated_time, description)
VALUES (:workspace, :name, :now, :now, :description) RETURNING name
""")
TAG_NEW = Sql("""
INSERT INTO registered_model_tags (workspace, name, key, value) VALUES (:workspace, :name, :key, :value)
""")
UPDATE = Sql("""
UPDATE registered_models SET description = :description, last_updated_time = :now
WHERE workspace = :workspace AND name = :name RETURNING name
""")
# What refers to the name follows it (ON UPDATE CASCADE).
RENAME = Sql("""
UPDATE registered_models SET name = :new_name, last_updated_time = :now
WHERE workspace = :workspace AND name = :name RETURNING name
""")
TOUCH_VERSIONS = Sql("""
UPDATE model_versions SET last_updated_time = :now WHERE workspace = :workspace AND name = :new_name
""")
LOCK = Sql(
    postgresql="SELECT 1 FROM registered_models WHERE workspace = :workspace AND name = :name FOR UPDATE",
    sqlite="SELECT 1 FROM registered_models WHERE workspace = :workspace AND name = :name",
)
DELETE_ALL = (
    Sql("DELETE FROM model_version_tags WHERE workspace = :workspace AND name = :name"),
    Sql("DELETE FROM registered_model_aliases WHERE workspace = :workspace AND name = :name"),
    Sql("DELETE FROM registered_model_tags WHERE workspace = :workspace AND name = :name"),
    Sql("DELETE FROM model_versions WHERE workspace = :workspace AND name = :name"),
    Sql("DELETE FROM registered_models WHERE workspace = :workspace AND name = :name"),
)
SET_TAG = Sql("""
INSERT INTO registered_model_tags (workspace, name, key, value)
SELECT workspace, name, CAST(:key AS varchar), CAST(:value AS text) FROM registered_models
WHERE workspace = :workspace AND name = :name
ON CONFLICT (workspace, key, name) DO UPDATE SET value = excluded.value RETURNING 1
""")
DELETE_TAG = Sql("DELETE FROM registered_model_tags WHERE workspace = :workspace AND name = :name AND key = :key")
DELETE_ALIAS = Sql("""
DELETE FROM registered_model_aliases WHERE workspace = :workspace AND name = :name AND alias = :alias
""")

GRANT_NEW = Sql("""
INSERT INTO headrace_grants (grantee, kind, object, permission) VALUES (:grantee, 'model', :key, 'manage')
ON CONFLICT (grantee, kind, object) DO UPDATE SET permission = 'manage'
""")
MOVE_GRANTS = Sql("UPDATE headrace_grants SET object = :new_key WHERE kind = 'model' AND object = :key")
DROP_GRANTS = Sql("DELETE FROM headrace_grants WHERE kind = 'model' AND object = :key")
