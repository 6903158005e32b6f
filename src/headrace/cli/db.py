"""`headrace db`: the tables of MLflow's database."""

from __future__ import annotations

import os
import sys

import click

from headrace import uri
from headrace.cli.indexes import indexes
from headrace.cli.output import GOES_ON, if_broken_off
from headrace.cli.stores import with_stores
from headrace.database_url import PostgresURL
from headrace.settings import Settings


@click.group()
def db() -> None:
    """Create and upgrade the database."""


@db.command()
@click.option(
    "--server-role",
    metavar="NAME",
    help="Make a role for the server, too, that may work with the data and no more.",
)
@click.option(
    "--ssm-prefix",
    metavar="PREFIX",
    help="Generate the role's password, and store both in AWS Systems Manager: PREFIX/DB_USER and PREFIX/DB_PASS.",
)
@click.option("--kms-key", metavar="ID", help="The key that encrypts DB_PASS there; by default the account's for SSM.")
@click.option("--password-stdin", is_flag=True, help="Read the role's password from standard input instead.")
@with_stores
@if_broken_off(GOES_ON)
def create(
    settings: Settings, server_role: str | None, ssm_prefix: str | None, kms_key: str | None, password_stdin: bool
) -> None:
    """Create the database and MLflow's tables in it, where they don't exist.

    `headrace serve` does that, too. With --server-role, run it as the database's master user, whose password the
    server then needs no more. The role's password is never shown.
    """
    from headrace.database import prepare

    if server_role is not None and (ssm_prefix is None) is not password_stdin:
        raise click.UsageError("--server-role needs either --ssm-prefix or --password-stdin, for its password.")
    if server_role is not None and (not isinstance(settings.database, PostgresURL)):
        raise click.UsageError("--server-role is for PostgreSQL: name the database with --backend-store-uri.")
    prepare(settings, click.echo)
    click.echo(f"{uri.redact(settings.backend_store_uri)} is ready.")
    if server_role is not None:
        _create_server_role(settings, server_role, ssm_prefix, kms_key)


def _create_server_role(settings: Settings, server_role: str, ssm_prefix: str | None, kms_key: str | None) -> None:
    from headrace.cli.indexes import build_indexes
    from headrace.server_role import create_server_role, new_password

    password = new_password() if ssm_prefix else sys.stdin.readline().rstrip("\n")
    build_indexes(settings)  # the owner's work, as the tables are
    create_server_role(settings, server_role, password)
    click.echo(f"The role {server_role} may work with its data.")
    if ssm_prefix is not None:
        from headrace import ssm

        ssm.write_login(ssm_prefix, os.environ, server_role, password, kms_key)
        click.echo(f"Its name and its password are in SSM, as DB_USER and DB_PASS below {ssm_prefix}.")


@db.command()
@with_stores
@if_broken_off("Nothing of it is half done. Start the same command again.")
def upgrade(settings: Settings) -> None:
    """Upgrade the database to the schema of the installed MLflow, by MLflow's own migrations.

    Make a backup first, and stop every server that uses the database.
    """
    from headrace.database import upgrade as upgrade_stores

    upgrade_stores(settings, click.echo)
    click.echo(f"{uri.redact(settings.backend_store_uri)} has the schema of the installed MLflow.")


db.add_command(indexes)
