"""`headrace usage`: which experiment takes how much."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.cli.accounts import as_json, print_table
from headrace.cli.output import end_progress, if_broken_off, show_progress
from headrace.cli.stores import with_settings
from headrace.errors import ConfigurationError, Declined
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.usage import Usage


@click.command()
@click.option("--experiment", "experiments", multiple=True, metavar="NAME|ID", help="Only this one; can be repeated.")
@click.option("--no-artifacts", is_flag=True, help="Only the database: list no files, which takes a while in S3.")
@as_json
@with_settings("backend_store_uri", "artifacts_destination")
@if_broken_off("It changes nothing.")
def usage(settings: Settings, experiments: tuple[str, ...], no_artifacts: bool, json: bool) -> None:
    """Rows and bytes of each experiment, deleted ones too, the largest first.

    Works beside a running server, and changes nothing.
    """
    from headrace.database import check
    from headrace.db.database import TableChanged

    check(settings)
    try:
        found = asyncio.run(_measure(settings, experiments, artifacts=not no_artifacts))
    except TableChanged:
        raise
    except Declined as reason:
        raise ConfigurationError(f"{reason}. `headrace usage` shows which there are.") from None
    if json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    print_table([_line(each) for each in found], json=False)
    for each in found:
        if each.why:
            click.echo(f"no artifacts of {each.name}: {each.why}", err=True)


async def _measure(settings: Settings, experiments: tuple[str, ...], artifacts: bool) -> list[Usage]:
    from headrace.artifacts.locations import Locations
    from headrace.db import connected
    from headrace.usage import measure

    async with connected(settings) as database:  # database.check has looked
        locations = Locations(settings) if artifacts else None
        return await measure(database, locations, experiments, _progress)


def _progress(done: int, of: int) -> None:
    if done < of:
        show_progress(f"artifacts of {done:,} of {of:,} experiments")
    else:
        end_progress()


def _line(usage: Usage) -> dict[str, Any]:
    name = usage.name if usage.lifecycle_stage == "active" else f"{usage.name} ({usage.lifecycle_stage})"
    from headrace.usage import COUNTED

    return {
        "id": usage.experiment_id,
        "experiment": name,
        **{what: f"{getattr(usage, what):,}" for what in COUNTED},
        "database": _size(usage.database_bytes),
        "files": None if usage.artifacts is None else f"{usage.artifacts:,}",
        "artifacts": _size(usage.artifact_bytes),
    }


def _size(count: int | None) -> str | None:
    from headrace.usage import shown_bytes

    return None if count is None else shown_bytes(count)
