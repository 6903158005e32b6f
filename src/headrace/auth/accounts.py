"""Users, groups, tokens, grants and ended sessions: what auth/ asks of the database, on both backends.

The tables are Headrace's own, made when they are missing, and can be dropped. Times are milliseconds since 1970. Each
change that takes something away moves `version`, which every worker looks at: it then forgets whom it knows.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from headrace.auth import account_sql as sql
from headrace.clock import now_ms
from headrace.database_url import SqliteURL
from headrace.db import connected
from headrace.db.database import Database, NotPermitted
from headrace.db.own_tables import NEXT_VERSION
from headrace.db.query import Query, Runnable
from headrace.errors import ConfigurationError, Declined, Unavailable
from headrace.settings import DATA_DIRECTORY, Settings


class User(Struct, frozen=True):
    """`password`: argon2's text, None for one who has none. Sessions from before `sessions_after` have ended."""

    name: str
    role: str
    password: str | None
    disabled_at: int | None
    sessions_after: int
    created_at: int
    groups: tuple[str, ...] = ()


class Token(Struct, frozen=True):
    """A token of a user; what it is made of is not kept."""

    id: str
    user: str
    name: str
    role: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None


class Grant(Struct, frozen=True):
    """`kind`: experiment (`object` is its id), model (its name; WORKSPACE/NAME in another workspace than the default
    one), or workspace (its name). `grantee`: user:NAME or group:NAME."""

    grantee: str
    kind: str
    object: str
    permission: str


class Accounts:
    """Works on the connections of a store. Every method may raise Unavailable."""

    def __init__(self, store: Database) -> None:
        self._store = store

    @property
    def store(self) -> Database:
        """Whose connections these are."""
        return self._store

    async def set_up(self) -> None:
        """Make the tables and the secret, where they are missing."""
        await self._transact(sql.set_up(secrets.token_hex(32), self._store.dialect))

    async def is_empty(self) -> bool:
        """Whether nobody was set up yet."""
        return not await self._rows(sql.any_user(self._store.dialect))

    async def state(self) -> tuple[bytes, str]:
        """The secret that sessions are signed with, and the version."""
        found = dict(tuple(row) for row in await self._rows(sql.state(self._store.dialect)))
        return bytes.fromhex(found["secret"]), found["version"]

    # Users

    async def user(self, name: str) -> User | None:
        """The user, disabled or not, with groups."""
        found = await self._users(sql.users(self._store.dialect, name))
        return found[0] if found else None

    async def users(self) -> list[User]:
        """All of them, by name."""
        return await self._users(sql.users(self._store.dialect))

    async def _users(self, query: Query) -> list[User]:
        rows = await self._rows(query)
        members = await self._rows(sql.groups([row[0] for row in rows], self._store.dialect)) if rows else []
        groups: dict[str, list[str]] = {}
        for user, group in members:
            groups.setdefault(user, []).append(group)
        return [
            User(name, role, password, disabled_at, sessions_after, created_at, tuple(sorted(groups.get(name, ()))))
            for name, role, password, disabled_at, sessions_after, created_at in rows
        ]

    async def add_user(self, name: str, role: str, password: str | None) -> bool:
        """Add a user; False where there is one of that name."""
        return bool(await self._change(sql.add_user(name, role, password, now_ms(), self._store.dialect)))

    async def set_password(self, name: str, password: str | None) -> bool:
        """A new password, which ends the user's sessions; False where there is no such user."""
        return bool(await self._revoke(sql.set_password(name, password, now_ms(), self._store.dialect)))

    async def rehash_password(self, name: str, old: str, new: str) -> None:
        """The same password, hashed anew: sessions go on. Does nothing where it has changed meanwhile."""
        await self._change(sql.rehash_password(name, old, new, self._store.dialect))

    async def set_role(self, name: str, role: str) -> bool:
        """Another role; False where there is no such user."""
        return bool(await self._revoke(sql.set_role(name, role, self._store.dialect)))

    async def disable(self, name: str, disabled: bool) -> bool:
        """Lock a user out, or let them in again; False where there is no such user. Ends the sessions."""
        return bool(await self._revoke(sql.disable(name, now_ms(), disabled, self._store.dialect)))

    async def set_groups(self, name: str, groups: Sequence[str]) -> None:
        """The groups of a user, all of them."""
        dialect = self._store.dialect
        queries = [sql.leave_groups(name, dialect), *(sql.join_group(name, group, dialect) for group in set(groups))]
        # the version first: its row is locked then, and two sign-ins of the same user at once come one after the other
        await self._transact([NEXT_VERSION(), *queries])

    # Tokens

    async def add_token(self, token: Token, hashed: str) -> None:
        """Keep a token by its hash."""
        await self._change(sql.add_token(token, hashed, self._store.dialect))

    async def token(self, hashed: str) -> Token | None:
        """The token with this hash."""
        rows = await self._rows(sql.token(hashed, self._store.dialect))
        return Token(*rows[0]) if rows else None

    async def tokens(self, user: str | None = None) -> list[Token]:
        """A user's tokens, or everybody's, the newest first."""
        return [Token(*row) for row in await self._rows(sql.tokens(user, self._store.dialect))]

    async def revoke_token(self, token_id: str, user: str | None = None) -> bool:
        """Forget a token (of this user); False where there is none."""
        return bool(await self._revoke(sql.delete_token(token_id, user, self._store.dialect)))

    async def used(self, when: dict[str, int]) -> None:
        """Token id -> when it was used last. Does not move the version."""
        await self._transact([sql.used(token_id, at, self._store.dialect) for token_id, at in sorted(when.items())])

    # Sessions

    async def end_session(self, session_id: str, expires_at: int) -> bool:
        """Remember that a session (or a link) has ended, until it would have by itself; False where it had already."""
        ended = await self._revoke(
            sql.end_session(session_id, expires_at, self._store.dialect),
            sql.forget_sessions(now_ms(), self._store.dialect),
        )
        return bool(ended)

    async def has_ended(self, session_id: str) -> bool:
        """Whether the session was ended."""
        return bool(await self._rows(sql.ended_session(session_id, self._store.dialect)))

    # Failed logins

    async def failures(self, keys: Sequence[str]) -> Sequence[tuple[str, int, int]]:
        """(key, how many, when the last was) of those keys that have failed."""
        rows = await self._rows(sql.failures(keys, self._store.dialect))
        return [(row[0], row[1], row[2]) for row in rows]

    async def add_failure(self, key: str, at: int, since: int) -> None:
        """Count a failure of a key; those from before `since` count no more."""
        await self._change(sql.add_failure(key, at, since, self._store.dialect))

    async def forget_failures(self, key: str) -> None:
        """The key has not failed."""
        await self._change(sql.forget_failures(key, self._store.dialect))

    async def forget_old_failures(self, before: int) -> None:
        """Forget those whose last failure was before that."""
        await self._change(sql.forget_old_failures(before, self._store.dialect))

    # Grants

    async def grants(self, grantees: Sequence[str] | None = None) -> list[Grant]:
        """What is granted to any of these, or to anybody."""
        return [Grant(*row) for row in await self._rows(sql.grants(grantees, self._store.dialect))]

    async def grant(self, grant: Grant) -> None:
        """Grant, or change what was granted."""
        await self._revoke(sql.grant(grant, self._store.dialect))

    async def revoke_grant(self, grantee: str, kind: str, name: str) -> bool:
        """Take a grant away; False where there is none."""
        return bool(await self._revoke(sql.delete_grant(grantee, kind, name, self._store.dialect)))

    async def _rows(self, query: Query) -> Sequence[Any]:
        try:
            return await self._store.rows(query)
        except Declined as error:
            raise _broken(error) from error

    async def _transact(self, queries: Sequence[Runnable]) -> Sequence[Sequence[Any]]:
        try:
            return await self._store.transact(queries)
        except Declined as error:
            raise _broken(error) from error

    async def _change(self, *queries: Runnable) -> Sequence[Any]:
        """The rows of the first statement."""
        return (await self._transact(queries))[0]

    async def _revoke(self, *queries: Query) -> Sequence[Any]:
        return await self._change(*queries, NEXT_VERSION())


def _broken(error: Declined) -> Unavailable:
    if isinstance(error, NotPermitted):
        return Unavailable(
            f"This role can't make or use Headrace's own tables: {error}. Use the role that owns MLflow's tables, or "
            "let it grant what is missing: `headrace db create --server-role`."
        )
    return Unavailable(f"Headrace's own tables can't be used: {error}. Start the server again, which makes them.")


def accounts_of(store: Database | None) -> Accounts:
    """The users and tokens in the database of a store, which is not None where `Settings.protected`."""
    assert store is not None
    return Accounts(store)


@asynccontextmanager
async def opened_accounts(settings: Settings) -> AsyncIterator[Accounts]:
    """The users and tokens of these settings' database, for a process that does nothing else with it.

    Raises ConfigurationError, Unavailable.
    """
    if not settings.native:
        raise ConfigurationError("Users are kept on PostgreSQL or SQLite. Look at --backend-store-uri.")
    _make_private(settings)
    async with connected(settings) as store:
        yield Accounts(store)


def _make_private(settings: Settings) -> None:
    """Who can read a SQLite file can forge sessions with its secret; SQLite gives a log the rights of its database."""
    if not isinstance(settings.database, SqliteURL):
        return
    path = settings.database.path
    folder = os.path.dirname(os.path.abspath(path))
    own = [folder] if os.path.basename(folder) == DATA_DIRECTORY else []
    for each in (path, f"{path}-wal", f"{path}-shm", *own):
        if not os.path.exists(each) or not (mode := os.stat(each).st_mode & 0o777) & 0o077:
            continue
        try:
            os.chmod(each, mode & 0o700)
        except OSError as error:
            print(
                f"others on this machine may read {each}, which holds the secret that signs sessions, and its rights "
                f"can't be changed ({error.strerror}). Let its owner run: chmod go= {each}",
                file=sys.stderr,
            )
