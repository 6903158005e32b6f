"""The table headrace_audit: who did what, from where; on both backends. Rows are added and read, and the database
itself refuses to change or remove one (who owns the database can drop the table, of course).
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from headrace.db import own_tables
from headrace.db.database import Database
from headrace.db.query import Dialect, Query, Statement


class Entry(Struct, frozen=True):
    """`at`: milliseconds since 1970. `user` is empty for nobody that we know; `via` says how they were known.

    `objects`: what the request named (run_id, experiment_id, name, ...), texts.
    """

    at: int
    user: str
    via: str
    address: str
    method: str
    path: str
    status: int
    objects: dict[str, str]


_TABLE = """CREATE TABLE IF NOT EXISTS headrace_audit (
  at bigint NOT NULL, user_name varchar(256) NOT NULL, via varchar(300) NOT NULL, address varchar(64) NOT NULL,
  method varchar(16) NOT NULL, path varchar(2000) NOT NULL, status integer NOT NULL, objects text NOT NULL)"""
_INDEX = "CREATE INDEX IF NOT EXISTS headrace_audit_at ON headrace_audit (at)"
_APPEND_ONLY = {
    Dialect.POSTGRESQL: (
        """CREATE OR REPLACE FUNCTION headrace_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'headrace_audit is append-only'; END $$""",
        "DROP TRIGGER IF EXISTS headrace_audit_append_only ON headrace_audit",
        """CREATE TRIGGER headrace_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON headrace_audit
FOR EACH STATEMENT EXECUTE FUNCTION headrace_audit_is_append_only()""",
    ),
    Dialect.SQLITE: tuple(
        f"CREATE TRIGGER IF NOT EXISTS headrace_audit_no_{event} BEFORE {event} ON headrace_audit "
        "BEGIN SELECT RAISE(ABORT, 'headrace_audit is append-only'); END"
        for event in ("update", "delete")
    ),
}
_FIELDS = "at, user_name, via, address, method, path, status, objects"


class AuditTable:
    """Works on the connections of a store. Every method may raise Declined, Unavailable."""

    def __init__(self, store: Database) -> None:
        self._store = store

    async def set_up(self) -> None:
        """Make the table, where it is missing."""
        dialect = self._store.dialect
        await self._store.transact(own_tables.making(dialect, _TABLE, _INDEX, *_APPEND_ONLY[dialect]))

    async def exists(self) -> bool:
        """Whether a server has made the table."""
        return bool(await self._store.rows(own_tables.exists("headrace_audit")))

    async def add(self, entries: Sequence[Entry]) -> None:
        """Keep them, all or none."""
        await self._store.transact([self._insert(entry) for entry in entries])

    def _insert(self, entry: Entry) -> Query:
        sql = Statement(self._store.dialect)
        texts = {"user": 256, "via": 300, "address": 64, "method": 16, "path": 2000}
        cut = {name: getattr(entry, name)[:length].replace("\0", "") for name, length in texts.items()}
        objects = msgspec.json.encode({k: v.replace("\0", "") for k, v in entry.objects.items()}).decode()
        values = ", ".join(sql.bind(value) for value in (entry.at, *cut.values(), entry.status, objects))
        return sql.query(f"INSERT INTO headrace_audit ({_FIELDS}) VALUES ({values})")

    async def entries(self, since: int, user: str | None, limit: int) -> list[Entry]:
        """The newest `limit` of them, the newest first; those from `since` on (milliseconds), of this user."""
        sql = Statement(self._store.dialect)
        where = f"at >= {sql.bind(since)}" + ("" if user is None else f" AND user_name = {sql.bind(user)}")
        query = f"SELECT {_FIELDS} FROM headrace_audit WHERE {where} ORDER BY at DESC LIMIT {sql.bind(limit)}"
        rows = [tuple(row) for row in await self._store.rows(sql.query(query))]
        objects = [_objects(row[7]) for row in rows]
        named = [
            zip(Entry.__struct_fields__, (*row[:7], found), strict=True)
            for row, found in zip(rows, objects, strict=True)
        ]
        return [msgspec.convert(dict(fields), Entry) for fields in named]


def _objects(text: str) -> dict[str, str]:
    """Of a row; one that is broken hides no other."""
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except ValueError:
        return {"unreadable": text}
