"""`headrace runs`: runs of the server's database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli.accounts import as_json
from headrace.cli.stores import with_settings
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.copy.move import Moved


@click.group()
def runs() -> None:
    """Move runs between experiments."""


@runs.command()
@click.argument("run_ids", metavar="RUN_ID...", nargs=-1, required=True)
@click.option("--to", metavar="EXPERIMENT", required=True, help="The experiment's name or id.")
@click.option("--without-artifacts", is_flag=True, help="Leave files in the folder of the experiment where they are.")
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@as_json
@with_settings("backend_store_uri", "artifacts_destination")
def move(
    settings: Settings, run_ids: tuple[str, ...], to: str, without_artifacts: bool, dry_run: bool, json: bool
) -> int:
    """Move runs to another experiment, with their nested runs, models, traces and files.

    Works beside a running server. What has not ended stays.
    """
    from headrace.database import check

    check(settings)
    moved = asyncio.run(_move(settings, run_ids, to, artifacts=not without_artifacts, dry=dry_run))
    if json:
        click.echo(msgspec.json.encode(moved).decode())
    else:
        what = "would move" if dry_run else "moved"
        click.echo(
            f"{what}: {len(moved.runs):,} runs, {moved.logged_models:,} logged models, {moved.traces:,} traces, "
            f"{moved.files:,} files"
        )
        for left in moved.left:
            click.echo(f"left: {left.kind} {left.id}: {left.reason}")
    return 1 if moved.left else 0


async def _move(settings: Settings, run_ids: tuple[str, ...], to: str, artifacts: bool, dry: bool) -> Moved:
    from headrace.copy.files import Place
    from headrace.copy.move import Mover
    from headrace.db import open_database

    database = open_database(settings)
    assert database is not None  # database.check has looked
    await database.connect()
    try:
        place = Place(settings.artifacts_destination) if artifacts else None
        return await Mover(database, place, dry).move(run_ids, to)
    finally:
        await database.close()
