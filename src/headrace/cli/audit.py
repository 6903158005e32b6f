"""`headrace audit`: what the table headrace_audit holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli.accounts import as_json, print_table, to_look_at_accounts
from headrace.settings.values import parse_age

if TYPE_CHECKING:
    from headrace.auth.accounts import Accounts


def _period(context: click.Context, parameter: click.Parameter, text: str) -> int:
    """Milliseconds."""
    try:
        return int(parse_age(text) * 1000)
    except ValueError:
        raise click.BadParameter("a period is a number with m, h or d, such as 7d") from None


@click.command()
@click.option("--user", "user", help="Only what this user did.")
@click.option("--since", default="7d", show_default=True, callback=_period, help="How far back: 30m, 12h, 7d.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@as_json
@to_look_at_accounts
async def audit(accounts: Accounts, user: str | None, since: int, limit: int, json: bool) -> None:
    """Who did what, the newest first; needs a server with --audit-table."""
    from headrace.auth.audit_table import AuditTable
    from headrace.clock import now_ms

    table = AuditTable(accounts.store)
    if not await table.exists():
        raise click.ClickException("There is no table headrace_audit. `headrace serve --audit-table` makes it.")
    entries = await table.entries(now_ms() - since, user, limit)
    rows = [msgspec.to_builtins(entry) for entry in entries]
    if not json:
        rows = [_line(row) for row in rows]
    print_table(rows, json)


def _line(row: dict[str, object]) -> dict[str, object]:
    objects = row.pop("objects")
    assert isinstance(objects, dict)
    return {"done_at": row.pop("at")} | row | {"objects": " ".join(f"{key}={value}" for key, value in objects.items())}
