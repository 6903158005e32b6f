"""The role that the server logs in with, beside the master user who owns MLflow's tables (sql/server_role.sql)."""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

from headrace.database import connect
from headrace.database_url import PostgresURL
from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.sql.files import read

_PASSWORD_BYTES = 24


def new_password() -> str:
    """192 random bits, of letters, digits, "-" and "_"."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def create_server_role(settings: Settings, role: str, password: str | None) -> None:
    """Make `role` if it does not exist, give it the password and its rights. Doing it again does no harm.

    Without a password it logs in by tokens of IAM alone. Then RDS asks the master user for one, too, who is a member.
    The backend store is on PostgreSQL, and its user owns MLflow's tables, which exist. Raises ConfigurationError where
    that user may not.
    """
    import psycopg2

    database = settings.database
    assert isinstance(database, PostgresURL)
    if role == database.user:
        raise ConfigurationError(f"--server-role {role} is the user that makes it. Choose another name.")
    if password == "":
        raise ConfigurationError("The password of --server-role is empty.")
    try:
        _grant(database, role, password)
    except psycopg2.Error as error:
        raise ConfigurationError(
            f"The role {role} could not be made on {database.shown}: {str(error).strip()}.\n"
            "Run this as the database's master user, who made MLflow's tables."
        ) from None


def join_owners(settings: Settings) -> list[str]:
    """Make the user a member of the roles whose the database and its tables are; their names.

    So it may grant rights on them, and migrate them. What `create_server_role` takes from everybody those roles keep,
    so that an older server goes on. Raises ConfigurationError where the user may not.
    """
    import psycopg2

    database = settings.database
    assert isinstance(database, PostgresURL)
    joined = []
    try:
        opened = connect(database)
    except psycopg2.OperationalError as error:
        raise ConfigurationError(
            f"{database.user} can't log in at {database.shown}: {str(error).strip()}.\nLook at the password, and at "
            "the name of the database."
        ) from None
    try:
        with contextlib.closing(opened) as connection, connection.cursor() as cursor:
            cursor.execute(read("owners"))
            for owner, is_member in cursor.fetchall():
                if not is_member:
                    cursor.execute(read("join_owner", owner=owner))
                    joined.append(owner)
                cursor.execute(read("keep_owner", owner=owner, database=database.name))
    except psycopg2.Error as error:
        raise ConfigurationError(
            f"{database.user} may not become a member of the roles whose MLflow's tables on {database.shown} are: "
            f"{str(error).strip()}.\nAs each of them, or as who has made them: GRANT THE_ROLE TO {database.user}."
        ) from None
    return joined


def set_password(settings: Settings, role: str, password: str) -> None:
    """Another password for a role that is there; its connections live on. Raises ConfigurationError."""
    import psycopg2
    from psycopg2 import sql

    database = settings.database
    assert isinstance(database, PostgresURL)
    try:
        with contextlib.closing(connect(database)) as connection, connection.cursor() as cursor:
            verifier = sql.Literal(_verifier(password, role, connection))
            cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), verifier))
    except psycopg2.Error as error:
        raise ConfigurationError(
            f"The role {role} could not get another password on {database.shown}: {str(error).strip()}."
        ) from None


def _verifier(password: str, role: str, connection: Any) -> str:
    """The server's log may show statements: it sees this, not the password."""
    from psycopg2.extensions import encrypt_password

    return str(encrypt_password(password, role, connection, "scram-sha-256"))


def _grant(database: PostgresURL, role: str, password: str | None) -> None:
    with contextlib.closing(connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
        if not cursor.fetchone():
            cursor.execute(read("create_role", role=role))
        verifier = _verifier(password or new_password(), role, connection)
        cursor.execute(read("server_role", database=database.name, role=role, password=verifier))
        if password is None:
            cursor.execute(read("role_of_iam", role=role))
