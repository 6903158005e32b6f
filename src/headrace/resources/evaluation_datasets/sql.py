"""The statements of evaluation datasets. No value is ever part of a text.

A dataset's row is locked before its records change: two changes at the same time count each other's records.
"""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Sql

COLUMNS = (
    "d.dataset_id, d.name, d.schema, d.profile, d.digest, d.created_time, d.last_update_time, d.created_by,"
    " d.last_updated_by"
)
COLUMN_COUNT = COLUMNS.count(",") + 1
_MINE = "workspace = :workspace AND dataset_id = :dataset_id"
_IS_MINE = f"EXISTS (SELECT 1 FROM evaluation_datasets WHERE {_MINE})"
_LINK = "source_type = 'evaluation_dataset' AND destination_type = 'experiment'"

GET = Sql(f"SELECT {COLUMNS} FROM evaluation_datasets d WHERE {_MINE}")
TAGS = Sql("SELECT dataset_id, key, value FROM evaluation_dataset_tags WHERE dataset_id IN :dataset_ids ORDER BY key")

CREATE = Sql("""
INSERT INTO evaluation_datasets
  (dataset_id, name, digest, created_time, last_update_time, created_by, last_updated_by, workspace)
VALUES (:dataset_id, :name, :digest, :now, :now, CAST(:user AS varchar), CAST(:user AS varchar), :workspace)
RETURNING dataset_id
""")
TAG_NEW = Sql("INSERT INTO evaluation_dataset_tags (dataset_id, key, value) VALUES (:dataset_id, :key, :value)")
SET_TAG = Sql("""
INSERT INTO evaluation_dataset_tags (dataset_id, key, value) VALUES (:dataset_id, :key, :value)
ON CONFLICT (dataset_id, key) DO UPDATE SET value = excluded.value
""")
DELETE_TAG = Sql(f"DELETE FROM evaluation_dataset_tags WHERE dataset_id = :dataset_id AND key = :key AND {_IS_MINE}")
LOCK = Sql(
    postgresql=f"SELECT name, schema FROM evaluation_datasets WHERE {_MINE} FOR UPDATE",
    sqlite=f"SELECT name, schema FROM evaluation_datasets WHERE {_MINE}",
)
DELETE_ALL = (
    Sql("DELETE FROM evaluation_dataset_records WHERE dataset_id = :dataset_id"),
    Sql("DELETE FROM evaluation_dataset_tags WHERE dataset_id = :dataset_id"),
    Sql("DELETE FROM entity_associations WHERE source_type = 'evaluation_dataset' AND source_id = :dataset_id"),
    Sql("""
    DELETE FROM entity_associations WHERE destination_type = 'evaluation_dataset' AND destination_id = :dataset_id
    """),
    Sql("DELETE FROM evaluation_datasets WHERE dataset_id = :dataset_id"),
)

# --- experiments

LINK = Sql("""
INSERT INTO entity_associations
  (association_id, source_type, source_id, destination_type, destination_id, created_time)
VALUES (:association_id, 'evaluation_dataset', :dataset_id, 'experiment', :experiment_id, :now)
ON CONFLICT (source_type, source_id, destination_type, destination_id) DO NOTHING
""")
UNLINK = Sql(f"""
DELETE FROM entity_associations
WHERE source_id = :dataset_id AND {_LINK} AND destination_id IN :experiment_ids RETURNING 1
""")
EXPERIMENTS = Sql(f"""
SELECT destination_id FROM entity_associations WHERE source_id = :dataset_id AND {_LINK} AND {_IS_MINE}
ORDER BY created_time, destination_id
""")
TOUCH = Sql(f"UPDATE evaluation_datasets SET last_update_time = :now WHERE {_MINE} RETURNING 1")

# --- records

RECORD_COLUMNS = (
    "dataset_record_id, dataset_id, inputs, expectations, tags, source, source_id, source_type, created_time,"
    " last_update_time, created_by, last_updated_by, outputs"
)
RECORDS = Sql(f"""
SELECT {RECORD_COLUMNS} FROM evaluation_dataset_records
WHERE dataset_id = :dataset_id AND {_IS_MINE} ORDER BY created_time, dataset_record_id LIMIT :limit OFFSET :offset
""")
RECORDS_AFTER = Sql(f"""
SELECT {RECORD_COLUMNS} FROM evaluation_dataset_records
WHERE dataset_id = :dataset_id AND {_IS_MINE}
  AND (created_time > :time OR (created_time = :time AND dataset_record_id > :record_id))
ORDER BY created_time, dataset_record_id LIMIT :limit
""")
SAME_INPUTS = Sql("""
SELECT input_hash, dataset_record_id, outputs, expectations, tags, last_updated_by FROM evaluation_dataset_records
WHERE dataset_id = :dataset_id AND input_hash IN :hashes
""")
# `rows`: a JSON list of objects, whose JSON is text. One statement for any number of records.
_TEXTS = ("dataset_record_id", "source_id", "source_type", "created_by", "last_updated_by", "input_hash")
_JSON = ("inputs", "outputs", "expectations", "tags", "source")
_NEW = ", ".join((*_TEXTS, *_JSON))
_POSTGRES_ROWS = (
    f"json_to_recordset(CAST(:rows AS json)) AS r ({', '.join(f'{name} text' for name in (*_TEXTS, *_JSON))})"
)
ADD_RECORDS = Sql(
    postgresql=f"""
INSERT INTO evaluation_dataset_records (dataset_id, created_time, last_update_time, {_NEW})
SELECT CAST(:dataset_id AS varchar), CAST(:now AS bigint), CAST(:now AS bigint), {", ".join(_TEXTS)},
  {", ".join(f"CAST({name} AS json)" for name in _JSON)} FROM {_POSTGRES_ROWS}
""",
    sqlite=f"""
INSERT INTO evaluation_dataset_records (dataset_id, created_time, last_update_time, {_NEW})
SELECT :dataset_id, :now, :now, {", ".join(f"json_extract(value, '$.{name}')" for name in (*_TEXTS, *_JSON))}
FROM json_each(:rows)
""",
)
CHANGE_RECORDS = Sql(
    postgresql=f"""
UPDATE evaluation_dataset_records e SET outputs = CAST(r.outputs AS json), tags = CAST(r.tags AS json),
  expectations = CAST(r.expectations AS json), last_updated_by = r.last_updated_by, last_update_time = :now
FROM {_POSTGRES_ROWS} WHERE e.dataset_record_id = r.dataset_record_id
""",
    sqlite="""
UPDATE evaluation_dataset_records SET outputs = json_extract(r.value, '$.outputs'),
  tags = json_extract(r.value, '$.tags'), expectations = json_extract(r.value, '$.expectations'),
  last_updated_by = json_extract(r.value, '$.last_updated_by'), last_update_time = :now
FROM json_each(:rows) r WHERE dataset_record_id = json_extract(r.value, '$.dataset_record_id')
""",
)
_COUNT = "(SELECT COUNT(*) FROM evaluation_dataset_records r WHERE r.dataset_id = :dataset_id)"
_PROFILE = f"""'{{"num_records": ' || CAST({_COUNT} AS varchar) || '}}'"""
RECORDS_CHANGED = Sql(f"""
UPDATE evaluation_datasets SET last_update_time = :now, last_updated_by = CAST(:user AS varchar), digest = :digest,
  schema = COALESCE(CAST(:schema AS varchar), schema), profile = CASE {_COUNT} WHEN 0 THEN profile ELSE {_PROFILE} END
WHERE {_MINE}
""")
DELETE_RECORDS = Sql(f"""
DELETE FROM evaluation_dataset_records
WHERE dataset_id = :dataset_id AND dataset_record_id IN :record_ids AND {_IS_MINE} RETURNING 1
""")
# SqlAlchemyStore.delete_dataset_records writes null in JSON for none.
RECORDS_DELETED = Sql(f"""
UPDATE evaluation_datasets SET profile = CASE {_COUNT} WHEN 0 THEN 'null' ELSE {_PROFILE} END
WHERE {_MINE} AND profile IS NOT NULL
""")
