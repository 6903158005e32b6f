"""`headrace gc`: what was deleted goes for good."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import click

from headrace.cli.accounts import as_json
from headrace.cli.output import GOES_ON, if_broken_off, print_report, show_progress
from headrace.cli.stores import with_settings
from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.settings.values import parse_age_or_zero

if TYPE_CHECKING:
    from headrace.gc.collector import Named, Report


def _age(context: click.Context, parameter: click.Parameter, text: str | None) -> float:
    """Seconds."""
    try:
        return parse_age_or_zero(text) if text else 0.0
    except ValueError:
        raise click.BadParameter(f"{text!r} is not {parse_age_or_zero.__doc__}") from None


def _ids(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()] if text else []


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int]:
    ids = _ids(context, parameter, text)
    if wrong := [each for each in ids if not each.isdecimal()]:
        raise click.BadParameter(f"{wrong[0]!r} is no id of an experiment, which is a number")
    return list(map(int, ids))


@click.command()
@click.option("--older-than", metavar="AGE", callback=_age, help="Only what was deleted longer ago: 30d, 2d8h.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--run-ids", metavar="IDS", callback=_ids, help="Only these runs, separated by commas.")
@click.option("--experiment-ids", metavar="IDS", callback=_numbers, help="Only these experiments, with all in them.")
@click.option("--logged-model-ids", metavar="IDS", callback=_ids, help="Only these logged models.")
@click.option("--registered-too", is_flag=True, help="Also what a registered model version is loaded from.")
@click.option("--yes", is_flag=True, help="On a terminal: don't ask.")
@as_json
@with_settings("backend_store_uri", "registry_store_uri", "artifacts_destination")
@if_broken_off(GOES_ON)
def gc(
    settings: Settings,
    older_than: float,
    dry_run: bool,
    run_ids: list[str],
    experiment_ids: list[int],
    logged_model_ids: list[str],
    registered_too: bool,
    yes: bool,
    json: bool,
) -> int:
    """Remove for good what was deleted: runs, experiments with their traces, logged models; rows and files.

    Works beside a running server, in portions, and can be broken off and started again. It can't be undone.
    """
    from headrace.database import check
    from headrace.gc.collector import Named

    if not settings.models_here and not registered_too:
        raise ConfigurationError(
            "The registry is in a database of its own, where gc can't see which versions are loaded from a run. "
            "With --registered-too it does not look."
        )
    check(settings)
    named = Named(experiment_ids, run_ids, logged_model_ids)
    before = int((time.time() - older_than) * 1000)
    ask = sys.stdin.isatty() and not (yes or dry_run or json)
    report = asyncio.run(_collect(settings, named, before, registered_too, dry=dry_run or ask))
    if ask:
        _show(report, json, "would go")
        click.confirm("Remove them for good?", abort=True)
        report = asyncio.run(_collect(settings, named, before, registered_too, dry=False))
    _show(report, json, "would go" if dry_run else "gone for good")
    return 1 if named and report.kept else 0


async def _collect(settings: Settings, named: Named, before: int, registered_too: bool, dry: bool) -> Report:
    from headrace.artifacts.locations import Locations
    from headrace.db import connected
    from headrace.gc.collector import Collector

    async with connected(settings) as database:  # database.check has looked
        return await Collector(
            database,
            Locations(settings),
            before,
            registered_too=registered_too,
            dry=dry,
            told=lambda report: show_progress(_counted(report)),
        ).collect(named)


def _counted(report: Report) -> str:
    return (
        f"{report.experiments:,} experiments, {report.runs:,} runs with {report.metrics:,} points of metrics, "
        f"{report.logged_models:,} logged models, {report.traces:,} traces"
    )


def _show(report: Report, json: bool, what: str) -> None:
    kept = (f"kept: {each.kind} {each.id}: {each.reason}" for each in report.kept)
    print_report(report, json, (f"{what}: {_counted(report)}", *kept))
