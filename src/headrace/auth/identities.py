"""Which of our users is whom at a provider of single sign-on: the table headrace_identities, on both backends."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from headrace.auth.accounts import Accounts
from headrace.db.own_tables import making
from headrace.db.query import Statement
from headrace.errors import Declined, Unavailable

_TABLE = """CREATE TABLE IF NOT EXISTS headrace_identities (
  subject varchar(700) PRIMARY KEY,
  user_name varchar(256) NOT NULL REFERENCES headrace_users (name) ON DELETE CASCADE)"""


class Identities:
    """Works on the connections of accounts. Every method may raise Unavailable."""

    def __init__(self, accounts: Accounts) -> None:
        self._store = accounts.store

    async def set_up(self) -> None:
        """Make the table, where it is missing."""
        await self._store.transact(making(self._store.dialect, _TABLE))

    async def user(self, subject: str) -> str | None:
        """The name of the user who is this subject; None for nobody yet."""
        sql = Statement(self._store.dialect)
        query = sql.query(f"SELECT user_name FROM headrace_identities WHERE subject = {sql.bind(subject)}")
        try:
            rows = await self._store.rows(query)
        except Declined as error:
            raise Unavailable("headrace_identities can't be read. Start the server again, which makes it.") from error
        return str(rows[0][0]) if rows else None

    async def add(self, subject: str, user: str) -> None:
        """From now on the subject is this user, unless it is one already."""
        sql = Statement(self._store.dialect)
        values = f"{sql.bind(subject)}, {sql.bind(user)}"
        text = f"INSERT INTO headrace_identities (subject, user_name) VALUES ({values}) ON CONFLICT DO NOTHING"
        try:
            await self._store.transact([sql.query(text)])
        except Declined as error:
            raise Unavailable("headrace_identities can't be written to. Try again.") from error
