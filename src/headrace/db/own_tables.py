"""Headrace's own tables (headrace_...) beside MLflow's: made where they are missing, by one process at a time."""

from __future__ import annotations

from headrace.db.query import Bound, Dialect, Query, Sql

_LOCK = 0x68656164726175
# Whoever keeps in mind what these tables say of people and their rights reads it again.
NEXT_VERSION = Sql("""
UPDATE headrace_state SET value = CAST(CAST(value AS bigint) + 1 AS varchar) WHERE name = 'version'
""")
_EXISTS = Sql(
    postgresql="SELECT 1 FROM pg_tables WHERE tablename = :name AND schemaname = current_schema()",
    sqlite="SELECT 1 FROM sqlite_master WHERE name = :name",
)


def making(dialect: Dialect, *statements: str) -> list[Query]:
    """The statements of a transaction that makes tables; others that would wait for its end."""
    lock = [f"SELECT pg_advisory_xact_lock({_LOCK})"] if dialect is Dialect.POSTGRESQL else []
    return [Query(text, []) for text in (*lock, *statements)]


def exists(name: str) -> Bound:
    """A row if there is the table."""
    return _EXISTS(name=name)
