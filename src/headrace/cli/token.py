"""`headrace token`: the tokens there are. `headrace user token` makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli.accounts import as_json, print_table, to_look_at_accounts, with_accounts

if TYPE_CHECKING:
    from headrace.auth.accounts import Accounts


@click.group()
def token() -> None:
    """List and revoke tokens; `headrace user token` makes one."""


@token.command("list")
@click.option("--user", "user", help="Only this user's.")
@as_json
@to_look_at_accounts
async def show(accounts: Accounts, user: str | None, json: bool) -> None:
    """List the tokens, the newest first."""
    print_table([msgspec.to_builtins(each) for each in await accounts.tokens(user)], json)


@token.command()
@click.argument("token_id", metavar="ID")
@with_accounts
async def revoke(accounts: Accounts, token_id: str) -> None:
    """Revoke a token by its id: within 5 seconds it works on no server any more."""
    if not await accounts.revoke_token(token_id):
        raise click.ClickException(f"There is no token {token_id}. `headrace token list` shows them.")
    click.echo("Revoked.")
