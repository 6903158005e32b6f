"""Why there is no connection to PostgreSQL: whether to wait may help, and what to do about it."""

from __future__ import annotations

import os
import re
import socket
import ssl

import asyncpg

from headrace.database_url import PostgresURL
from headrace.db.tls import Unreadable
from headrace.errors import ConfigurationError

# what to do about a PgBouncer that ends a connection at its first transaction
NO_TRANSACTIONS = "PgBouncer's pool_mode = statement allows no transactions. Set it to transaction or session."
# What asking PostgreSQL may raise where it refuses, or is not there any more. InternalClientError is what asyncpg has
# to say when the server has ended the connection, and the end itself has not come here yet.
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_TEMPORARY = ("08", "53", "57P", "55000")  # the last: ALLOW_CONNECTIONS is false, as while it is restored
# PgBouncer has one SQLSTATE for all that it says, 08P01.
_POOLER_WAITS = re.compile(r"connect to server|server (login|conn)|try again later|query_wait_timeout|shutting down")


class NotWritable(ConnectionError):
    """Servers answered, and none of them is what target_session_attrs asks for."""


def is_temporary(error: Exception) -> bool:
    """Whether to wait may help: the server is not up, restarts, or is full."""
    if isinstance(error, asyncpg.ProtocolViolationError):
        return _POOLER_WAITS.search(str(error)) is not None
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_TEMPORARY)
    return isinstance(error, OSError) and not isinstance(error, ssl.SSLCertVerificationError | Unreadable)


_BY_SQLSTATE = {
    "28P01": "it refuses the password of the role {user}. Look at the password (in the URL, PGPASSWORD, PGPASSFILE or "
    "PASSWORD)",
    "28000": "it does not let the role {user} in: {words}. Look at the role's name, at pg_hba.conf on the server and, "
    "with tokens of IAM, at the grant of rds_iam and the right rds-db:connect",
    "28": "it does not let the role {user} in: {words}. Look at the role's name, and at pg_hba.conf on the server",
    "3D000": "it does not exist. `headrace db create` makes it, if the role {user} may",
    "42501": "the role {user} has not got the rights that this needs: {words}. Let its owner grant them, or use the "
    "owner's role",
    "42P01": "{words}: it is of another MLflow. An older one becomes the installed MLflow's by `headrace db upgrade`",
    "42703": "{words}: it is of another MLflow. An older one becomes the installed MLflow's by `headrace db upgrade`",
    "42704": "{words}. Look at `options` in the URL, or PGOPTIONS",
    "25006": "{words}. Look at default_transaction_read_only, and at which server is the primary",
    "53300": "the server has no connection left: {words}. Raise max_connections or close others",
    "57P03": "it is starting or stopping. Try again in a moment",
    "57": "the server was stopped: {words}. Try again in a moment",
    "08": "{words}. Look at the server, or at the pooler in front of it",
}


def allows_no_transactions(error: Exception) -> bool:
    """Whether a pooler has refused one; a lost connection is what asyncpg makes of it."""
    return "statement pooling mode" in str(error)


def explain(error: Exception, database: PostgresURL) -> ConfigurationError:
    """One line: what happened, where, and what to do next."""
    if allows_no_transactions(error):
        return ConfigurationError(f"The database {database.shown} can't be used: {NO_TRANSACTIONS}")
    words = " ".join(str(error).split())
    state = (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
    if state == "08P01" and "authentication failed" in words:  # PgBouncer's
        state = "28P01"
    for length in (5, 2):
        if (text := _BY_SQLSTATE.get(state[:length])) is not None:
            said = text.format(user=database.user, words=words)
            return ConfigurationError(f"The database {database.shown} can't be used: {said}.")
    if isinstance(error, ssl.SSLCertVerificationError):
        said = (
            f"the certificate of the server can't be trusted: {error.verify_message}. Look at sslmode and sslrootcert"
        )
    elif isinstance(error, Unreadable):
        said = words
    elif isinstance(error, NotWritable):
        said = f"{words}. Look at which server is the primary, and at target_session_attrs"
    elif isinstance(error, socket.gaierror):
        said = (
            f"the host's name is unknown ({error.strerror}). Look at the host in --backend-store-uri (or HOST, PGHOST)"
        )
    elif isinstance(error, TimeoutError):
        said = "nothing answers there in time. Look at the host and port, at firewalls and security groups"
    elif isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else words
        said = f"{reason}. Look at the host and port, and at whether the server is up"
    else:
        said = f"{words}. Look at the database's own log"
    return ConfigurationError(f"The database {database.shown} can't be used: {said}.")
