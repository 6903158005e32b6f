"""The statements of accounts.py, with parameters, for both dialects. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.db.own_tables import making
from headrace.db.query import Dialect, Query, Statement

if TYPE_CHECKING:
    from headrace.auth.accounts import Grant, Token

_TABLES = (
    """headrace_users (
  name varchar(256) PRIMARY KEY, role varchar(16) NOT NULL, password varchar(512), disabled_at bigint,
  sessions_after bigint NOT NULL, created_at bigint NOT NULL)""",
    """headrace_groups (
  user_name varchar(256) NOT NULL REFERENCES headrace_users (name) ON DELETE CASCADE, group_name varchar(256) NOT NULL,
  PRIMARY KEY (user_name, group_name))""",
    """headrace_tokens (
  id varchar(32) PRIMARY KEY, user_name varchar(256) NOT NULL REFERENCES headrace_users (name) ON DELETE CASCADE,
  name varchar(256) NOT NULL, role varchar(16) NOT NULL, created_at bigint NOT NULL, expires_at bigint,
  last_used_at bigint, hash varchar(64) NOT NULL UNIQUE)""",
    """headrace_grants (
  grantee varchar(300) NOT NULL, kind varchar(32) NOT NULL, object varchar(320) NOT NULL,
  permission varchar(16) NOT NULL, PRIMARY KEY (grantee, kind, object))""",
    """headrace_ended_sessions (
  id varchar(32) PRIMARY KEY, expires_at bigint NOT NULL)""",
    """headrace_failed_logins (
  key varchar(64) PRIMARY KEY, failures integer NOT NULL, last_at bigint NOT NULL)""",
    """headrace_state (
  name varchar(32) PRIMARY KEY, value varchar(256) NOT NULL)""",
)
_FIELDS = "id, user_name, name, role, created_at, expires_at, last_used_at"


def set_up(secret: str, dialect: Dialect) -> list[Query]:
    """Tables, secret and version, each where it is missing."""
    tables = making(dialect, *(f"CREATE TABLE IF NOT EXISTS {table}" for table in _TABLES))
    return [*tables, _initial("secret", secret, dialect), _initial("version", "1", dialect)]


def _initial(name: str, value: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        f"INSERT INTO headrace_state (name, value) VALUES ({sql.bind(name)}, {sql.bind(value)}) ON CONFLICT DO NOTHING"
    )


def state(dialect: Dialect) -> Query:
    """(name, value)."""
    return Query("SELECT name, value FROM headrace_state", [])


def any_user(dialect: Dialect) -> Query:
    return Query("SELECT 1 FROM headrace_users LIMIT 1", [])


def users(dialect: Dialect, name: str | None = None) -> Query:
    """The fields of User, without groups, by name."""
    sql = Statement(dialect)
    where = "" if name is None else f" WHERE name = {sql.bind(name)}"
    return sql.query(
        f"SELECT name, role, password, disabled_at, sessions_after, created_at FROM headrace_users{where} ORDER BY name"
    )


def groups(names: Sequence[str], dialect: Dialect) -> Query:
    """(user, group)."""
    sql = Statement(dialect)
    return sql.query(f"SELECT user_name, group_name FROM headrace_groups WHERE {sql.in_list('user_name', names)}")


def add_user(name: str, role: str, password: str | None, now: int, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    values = ", ".join(sql.bind(value) for value in (name, role, password, now, now))
    return sql.query(
        f"INSERT INTO headrace_users (name, role, password, sessions_after, created_at) VALUES ({values})"
        " ON CONFLICT DO NOTHING RETURNING 1"
    )


def set_password(name: str, password: str | None, now: int, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        f"UPDATE headrace_users SET password = {sql.bind(password)}, sessions_after = {sql.bind(now)}"
        f" WHERE name = {sql.bind(name)} RETURNING 1"
    )


def rehash_password(name: str, old: str, new: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        f"UPDATE headrace_users SET password = {sql.bind(new)}"
        f" WHERE name = {sql.bind(name)} AND password = {sql.bind(old)}"
    )


def set_role(name: str, role: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(f"UPDATE headrace_users SET role = {sql.bind(role)} WHERE name = {sql.bind(name)} RETURNING 1")


def disable(name: str, now: int, disabled: bool, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        f"UPDATE headrace_users SET disabled_at = {sql.bind(now if disabled else None)},"
        f" sessions_after = {sql.bind(now)} WHERE name = {sql.bind(name)} RETURNING 1"
    )


def leave_groups(name: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(f"DELETE FROM headrace_groups WHERE user_name = {sql.bind(name)}")


def join_group(name: str, group: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        f"INSERT INTO headrace_groups (user_name, group_name) VALUES ({sql.bind(name)}, {sql.bind(group)})"
    )


def add_token(token: Token, hashed: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    fields = (token.id, token.user, token.name, token.role, token.created_at, token.expires_at, None, hashed)
    return sql.query(
        f"INSERT INTO headrace_tokens ({_FIELDS}, hash) VALUES ({', '.join(sql.bind(value) for value in fields)})"
    )


def token(hashed: str, dialect: Dialect) -> Query:
    """The fields of Token."""
    sql = Statement(dialect)
    return sql.query(f"SELECT {_FIELDS} FROM headrace_tokens WHERE hash = {sql.bind(hashed)}")


def tokens(user: str | None, dialect: Dialect) -> Query:
    """The fields of Token, the newest first."""
    sql = Statement(dialect)
    where = "" if user is None else f" WHERE user_name = {sql.bind(user)}"
    return sql.query(f"SELECT {_FIELDS} FROM headrace_tokens{where} ORDER BY created_at DESC, id")


def delete_token(token_id: str, user: str | None, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    of_user = "" if user is None else f" AND user_name = {sql.bind(user)}"
    return sql.query(f"DELETE FROM headrace_tokens WHERE id = {sql.bind(token_id)}{of_user} RETURNING 1")


def used(token_id: str, at: int, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    when = sql.bind(at)
    return sql.query(
        f"UPDATE headrace_tokens SET last_used_at = {when}"
        f" WHERE id = {sql.bind(token_id)} AND (last_used_at IS NULL OR last_used_at < {when})"
    )


def end_session(session_id: str, expires_at: int, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        "INSERT INTO headrace_ended_sessions (id, expires_at)"
        f" VALUES ({sql.bind(session_id)}, {sql.bind(expires_at)}) ON CONFLICT DO NOTHING RETURNING 1"
    )


def forget_sessions(now: int, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(f"DELETE FROM headrace_ended_sessions WHERE expires_at < {sql.bind(now)}")


def ended_session(session_id: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(f"SELECT 1 FROM headrace_ended_sessions WHERE id = {sql.bind(session_id)}")


def failures(keys: Sequence[str], dialect: Dialect) -> Query:
    """(key, failures, last_at)."""
    sql = Statement(dialect)
    return sql.query(f"SELECT key, failures, last_at FROM headrace_failed_logins WHERE {sql.in_list('key', keys)}")


def add_failure(key: str, at: int, since: int, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    values = f"{sql.bind(key)}, 1, {sql.bind(at)}"
    counted = f"CASE WHEN old.last_at < {sql.bind(since)} THEN 1 ELSE old.failures + 1 END"
    return sql.query(
        f"INSERT INTO headrace_failed_logins AS old (key, failures, last_at) VALUES ({values})"
        f" ON CONFLICT (key) DO UPDATE SET failures = {counted}, last_at = excluded.last_at"
    )


def forget_failures(key: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(f"DELETE FROM headrace_failed_logins WHERE key = {sql.bind(key)}")


def forget_old_failures(before: int, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(f"DELETE FROM headrace_failed_logins WHERE last_at < {sql.bind(before)}")


def grants(grantees: Sequence[str] | None, dialect: Dialect) -> Query:
    """The fields of Grant, in order."""
    sql = Statement(dialect)
    where = "" if grantees is None else f" WHERE {sql.in_list('grantee', grantees)}"
    return sql.query(
        f"SELECT grantee, kind, object, permission FROM headrace_grants{where} ORDER BY kind, object, grantee"
    )


def grant(given: Grant, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    values = ", ".join(sql.bind(value) for value in (given.grantee, given.kind, given.object, given.permission))
    return sql.query(
        f"INSERT INTO headrace_grants (grantee, kind, object, permission) VALUES ({values})"
        " ON CONFLICT (grantee, kind, object) DO UPDATE SET permission = excluded.permission"
    )


def delete_grant(grantee: str, kind: str, name: str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        f"DELETE FROM headrace_grants WHERE grantee = {sql.bind(grantee)} AND kind = {sql.bind(kind)}"
        f" AND object = {sql.bind(name)} RETURNING 1"
    )
