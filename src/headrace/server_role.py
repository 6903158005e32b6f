"""The role that the server logs in with, beside the master user who owns MLflow's tables (sql/server_role.sql)."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from typing import Any

from headrace.database import connect
from headrace.database_url import PostgresURL
from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.sql.files import read

_PASSWORD_BYTES = 24
_OF_IAM = """
    SELECT 1 FROM pg_auth_members
    JOIN pg_roles member ON member.oid = pg_auth_members.member
    JOIN pg_roles role ON role.oid = pg_auth_members.roleid
    WHERE member.rolname = %s AND role.rolname = 'rds_iam'
"""


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


def log_in_by_token(settings: Settings, role: str) -> None:
    """From now on RDS lets the role in by tokens of IAM, and by no password. Raises ConfigurationError."""
    _alter(settings, role, "by tokens of IAM", lambda _: read("role_of_iam", role=role))


def log_in_by_password(settings: Settings, role: str, password: str) -> None:
    """From now on RDS lets the role in by this password, and by no token. Raises ConfigurationError."""
    _alter(
        settings,
        role,
        "by a password",
        lambda connection: read("role_of_password", role=role, password=_verifier(password, role, connection)),
    )


def set_password(settings: Settings, role: str, password: str) -> None:
    """Another password for a role that is there; its connections live on. Raises ConfigurationError."""
    from psycopg2 import sql

    def statement(connection: Any) -> Any:
        verifier = sql.Literal(_verifier(password, role, connection))
        return sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), verifier)

    _alter(settings, role, "with another password", statement)


def _alter(settings: Settings, role: str, how: str, statement: Callable[[Any], Any]) -> None:
    """One transaction."""
    import psycopg2

    database = settings.database
    assert isinstance(database, PostgresURL)
    try:
        with contextlib.closing(connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement(connection))
    except psycopg2.Error as error:
        raise ConfigurationError(
            f"The role {role} could not be made to log in {how} on {database.shown}: {str(error).strip()}."
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
            return
        cursor.execute(_OF_IAM, (role,))
        if cursor.fetchone():  # since a database is of before a change to passwords
            cursor.execute(read("role_of_password", role=role, password=verifier))
