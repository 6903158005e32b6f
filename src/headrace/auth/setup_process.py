"""A process that makes the tables of users, and the first administrator's token where nobody was set up yet.

It is configured through headrace.child. What it prints goes to the server's log: the token is shown there this once.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from headrace import child
from headrace.auth import sessions, tokens
from headrace.auth.accounts import Accounts, Token, opened_accounts
from headrace.auth.audit_table import AuditTable
from headrace.auth.identities import Identities
from headrace.auth.principals import ADMIN
from headrace.clock import now_ms
from headrace.errors import HeadraceError
from headrace.settings import Settings


def main() -> None:
    """Do it, and end; with 1 and a line that says why where it can't be done."""
    parent = child.Parent()
    configuration = parent.read_configuration()
    parent.when_gone(lambda: os._exit(1))
    settings = msgspec.convert(configuration["settings"], Settings)
    try:
        made = asyncio.run(_set_up(settings, configuration["url"]))
    except HeadraceError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    if made is not None:
        token, link = made
        print("nobody was set up yet, so here is the first administrator's token. It is shown this once:")
        print(f"  export MLFLOW_TRACKING_URI={configuration['url']}")
        print(f"  export MLFLOW_TRACKING_TOKEN={token}")
        print("a browser is signed in by this link, once, within an hour; `headrace user link admin` makes another:")
        print(f"  {link}")
        print("more users and tokens: `headrace user --help`, with the database's options of `headrace serve`")


async def _set_up(settings: Settings, url: str) -> tuple[str, str] | None:
    """The first administrator's token and link, where nobody was set up yet."""
    async with opened_accounts(settings) as accounts:
        await accounts.set_up()
        if settings.oidc_issuer or settings.alb_arn:
            await Identities(accounts).set_up()
        if settings.audit_table:
            await AuditTable(accounts.store).set_up()
        if settings.admin_token or not await accounts.is_empty():
            return None
        if not await accounts.add_user(ADMIN, "admin", None):
            return None  # another instance was quicker
        return await make_token(accounts, ADMIN, "first", "admin"), await make_link(accounts, ADMIN, url)


async def make_token(accounts: Accounts, user: str, name: str, role: str, expires_at: int | None = None) -> str:
    """A new token of a user, to be shown once. `expires_at`: milliseconds since 1970."""
    token = tokens.new_token()
    kept = Token(tokens.new_id(), user, name, role, now_ms(), expires_at, None)
    await accounts.add_token(kept, tokens.hash_of(token))
    return token


async def make_link(accounts: Accounts, user: str, url: str) -> str:
    """An address of the server at `url` that begins a session of a user, once, within LINK_LIFETIME_MS."""
    issued = now_ms()
    link = sessions.Session(tokens.new_id(), user, issued, issued + sessions.LINK_LIFETIME_MS)
    secret, _ = await accounts.state()
    return f"{url.rstrip('/')}/headrace/sign-in?link={sessions.seal(link, secret, 'link')}"


if __name__ == "__main__":
    main()
