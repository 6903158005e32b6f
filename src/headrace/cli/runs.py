"""`headrace runs`: runs of the server's database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from headrace.cli.accounts import as_json
from headrace.cli.output import GOES_ON, if_broken_off, print_report
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
@if_broken_off(GOES_ON)
def move(
    settings: Settings, run_ids: tuple[str, ...], to: str, without_artifacts: bool, dry_run: bool, json: bool
) -> int:
    """Move runs to another experiment, with their nested runs, models, traces and files.

    Works beside a running server. What has not ended stays.
    """
    from headrace.database import check

    check(settings)
    moved = asyncio.run(_move(settings, run_ids, to, artifacts=not without_artifacts, dry=dry_run))
    counted = (
        f"{'would move' if dry_run else 'moved'}: {len(moved.runs):,} runs, {moved.logged_models:,} logged models, "
        f"{moved.traces:,} traces, {moved.files:,} files"
    )
    left = (f"left: {each.kind} {each.id}: {each.reason}" for each in moved.left)
    print_report(moved, json, (counted, *left))
    return 1 if moved.left else 0


async def _move(settings: Settings, run_ids: tuple[str, ...], to: str, artifacts: bool, dry: bool) -> Moved:
    from headrace.copy.files import Place
    from headrace.copy.move import Mover
    from headrace.db import connected

    async with connected(settings) as database:  # database.check has looked
        place = Place(settings.artifacts_destination) if artifacts else None
        return await Mover(database, place, dry).move(run_ids, to)
