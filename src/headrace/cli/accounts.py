"""What the commands about users share: the database's option, an open database, and how they print.

What they need of db/ and auth/ is imported when they run: `headrace serve` is to stay small.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from socket import gethostname
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.cli.serve import option
from headrace.settings.resolve import resolve
from headrace.settings.table import SETTINGS

if TYPE_CHECKING:
    from headrace.auth.accounts import Accounts

Command = Callable[..., Awaitable[None]]
as_json = click.option("--json", "json", is_flag=True, help="Print JSON.")


def with_accounts(command: Command) -> Any:
    """Give a command `--backend-store-uri` and, as its first argument, the users and tokens of that database.

    That it was done, and with what, is in headrace_audit where the database has that.
    """
    return _with_accounts(command, audited=True)


def to_look_at_accounts(command: Command) -> Any:
    """As `with_accounts`, for a command that changes nothing and leaves no line."""
    return _with_accounts(command, audited=False)


def _with_accounts(command: Command, audited: bool) -> Any:
    @wraps(command)
    def run(backend_store_uri: str | None, **values: Any) -> None:
        flags = {} if backend_store_uri is None else {"backend_store_uri": backend_store_uri}
        settings = resolve(flags, os.environ, serves=False)
        from headrace.auth.accounts import opened_accounts
        from headrace.database import check

        check(settings)

        async def work() -> None:
            async with opened_accounts(settings) as accounts:
                await accounts.set_up()
                await command(accounts, **values)
                if audited:
                    await _write_audit(accounts, values)

        asyncio.run(work())

    (setting,) = (setting for setting in SETTINGS if setting.name == "backend_store_uri")
    return option(setting)(run)


async def _write_audit(accounts: Accounts, given: dict[str, Any]) -> None:
    """Who has just done what, into headrace_audit. Raises ClickException where it is there and can't be written."""
    from headrace.auth.audit_table import AuditTable, Entry
    from headrace.clock import now_ms
    from headrace.errors import Declined

    _, _, command = click.get_current_context().command_path.partition(" ")
    objects = {name: _text("", value) for name, value in given.items() if name != "json" and value is not None}
    table = AuditTable(accounts.store)
    entry = Entry(now_ms(), _shell_user(), _shell(), gethostname(), "headrace", command, 0, objects)
    try:
        if await table.exists():
            await table.add([entry])
    except Declined as error:
        raise click.ClickException(f"It is done, but headrace_audit does not say so: {error}.") from None


def _shell_user() -> str:
    """Not from a variable, which everybody can set."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's
        return str(os.getuid())


def _shell() -> str:
    by = os.environ.get("SUDO_USER")
    return f"command line, sudo by {by}" if by else "command line"


def ask_password() -> str:
    """A new password, typed twice or the first line of the standard input, as it is kept. Raises ClickException."""
    from headrace.auth.passwords import MAX_LENGTH, MIN_LENGTH, hash_password

    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise click.ClickException(f"A password has {MIN_LENGTH} characters or more, and {MAX_LENGTH} at most.")
    return hash_password(password)


def no_such_user(name: str) -> click.ClickException:
    """What to say, and what to do."""
    return click.ClickException(f"There is no user {name}. `headrace user list` shows who there is.")


def print_table(rows: Sequence[dict[str, Any]], json: bool) -> None:
    """Rows as JSON, or as columns with the keys above them; times are milliseconds since 1970 and shown in UTC."""
    if json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    if not rows:
        click.echo("None.")
        return
    texts = [list(rows[0]), *([_text(key, value) for key, value in row.items()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key.endswith("_at"):
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    text = ", ".join(value) or "-" if isinstance(value, tuple | list) else str(value)
    return in_one_line(text)


def in_one_line(text: str) -> str:
    """A name with a line's end, or with what a terminal takes for a command, as it stays in its row."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
