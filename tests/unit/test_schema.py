"""The schema contract against tables that changed."""

from __future__ import annotations

from headrace.db import schema


def as_postgres_has_them() -> schema.Columns:
    names = {kind: name for name, kind in schema.POSTGRES_TYPES.items()}
    return {
        table: {column.lower(): (names[kind], int(column.isupper())) for column, kind in columns.items()}
        for table, columns in schema.TABLES.items()
    }


def test_tables_as_expected() -> None:
    assert schema.differences(as_postgres_has_them(), schema.POSTGRES_TYPES) == {}


def test_what_changed_is_told() -> None:
    found = as_postgres_has_them()
    del found["inputs"]
    del found["tags"]["value"]
    found["tags"]["extra"] = ("text", 0)
    found["metrics"]["step"] = ("integer", 1)
    found["params"]["run_uuid"] = ("character varying", 0)
    assert schema.differences(found, schema.POSTGRES_TYPES) == {
        "inputs": "it does not exist",
        "tags": "column value is missing; column extra is new",
        "metrics": "column step (in the primary key) has another type",
        "params": "column run_uuid (in the primary key) is missing; column run_uuid is new",
    }
