"""Connections of libpq while a password is replaced: its file has two then, of which libpq takes the first alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.database_url import PostgresURL

_REFUSED = ("password authentication failed", "PAM authentication failed")  # the second is RDS's for tokens of IAM


def with_each_password(connect: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """`connect(**given)`, psycopg2's, once more with the next password of `passfile` where one is refused."""
    import psycopg2

    passwords: list[str] = []
    if "passfile" in given and not given.get("password"):
        database = PostgresURL(url="", parameters={name: str(value) for name, value in given.items()})
        passwords = database.passwords_for(database.hosts[0])
    for password in passwords[:-1]:
        try:
            return connect(**{**given, "password": password})
        except psycopg2.OperationalError as error:
            if not any(words in str(error) for words in _REFUSED):
                raise
    return connect(**given, **({"password": passwords[-1]} if passwords else {}))


def let_engines_try_each() -> None:
    """From now on every engine of SQLAlchemy's in this process connects so."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "do_connect")
    def connect(dialect: Any, _: Any, arguments: list[Any], given: dict[str, Any]) -> Any:
        if "passfile" not in given:
            return None  # as without us
        return with_each_password(lambda **more: dialect.connect(*arguments, **more), given)
