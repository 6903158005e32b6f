"""`headrace copy`: from one server's stores to another's."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from headrace import database_url
from headrace.cli.accounts import as_json
from headrace.cli.stores import with_settings
from headrace.database_url import PostgresURL, SqliteURL
from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.uri import redact

if TYPE_CHECKING:
    from headrace.copy.report import Report
    from headrace.copy.store import Source, Store
    from headrace.copy.whole import Options


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--experiment", "experiments", metavar="NAME", multiple=True, help="Only this one. Can be repeated.")
@click.option("--into", metavar="NAME", help="The experiment at the target, for one --experiment.")
@click.option(
    "--source-artifacts",
    metavar="URI",
    help="Where the source's server keeps its artifacts: its --artifacts-destination.",
)
@click.option("--without-artifacts", is_flag=True, help="Leave artifacts, and what the rows say of them, as they are.")
@click.option("--dry-run", is_flag=True, help="Only say what would be copied.")
@as_json
@with_settings("artifacts_destination", "default_artifact_root", store="target")
def copy(
    settings: Settings,
    source: str,
    target: str,
    experiments: tuple[str, ...],
    into: str | None,
    source_artifacts: str | None,
    without_artifacts: bool,
    dry_run: bool,
    json: bool,
) -> int:
    """Copy experiments, runs, models, traces and their artifacts from one database to another.

    SOURCE and TARGET are URLs of databases (postgresql://, sqlite:///PATH). Started again it copies what is missing.
    """
    from headrace.copy.whole import Options

    if into is not None and len(experiments) != 1:
        raise click.UsageError("--into needs exactly one --experiment.")
    if _place(source) == _place(target):
        raise click.UsageError("SOURCE and TARGET are the same database.")
    options = Options(experiments, into, source_artifacts, not without_artifacts, dry_run)
    report = asyncio.run(_copy(_source(source), _target(settings, dry_run), settings, options))
    _show(report, json, "would be copied" if dry_run else "copied")
    return 1 if report.left else 0


async def _copy(source: Source, target: Store | None, settings: Settings, options: Options) -> Report:
    from headrace.copy.whole import copy as copy_all

    return await copy_all(source, target, settings, options, _progress())


def _place(url: str) -> object:
    """The same for two URLs of one database."""
    database = database_url.parse(url)
    if isinstance(database, PostgresURL):
        return database.hosts, database.name, database.settings
    return os.path.realpath(database.path) if isinstance(database, SqliteURL) else url


def _source(text: str) -> Source:
    """Raises ConfigurationError for what can't be read, SchemaOutOfDate."""
    from headrace.copy.whole import open_store
    from headrace.database import is_made

    database = database_url.parse(text)
    if not isinstance(database, PostgresURL | SqliteURL):
        raise ConfigurationError(
            f"{redact(text)} is no source that can be copied. Name a database: postgresql://... or sqlite:///PATH."
        )
    if not is_made(database, writes=False):
        raise ConfigurationError(f"There are no tables of MLflow in {database.shown}. Look at SOURCE.")
    return open_store(database, writes=False)


def _target(settings: Settings, dry: bool) -> Store | None:
    """Its tables are made where they are not there; in a dry run it is None then."""
    from headrace.copy.whole import open_store
    from headrace.database import is_made, prepare

    database = settings.database
    if not isinstance(database, PostgresURL | SqliteURL):
        raise ConfigurationError(
            f"{redact(settings.backend_store_uri)} is no target that can be written. Name a database: "
            "postgresql://... or sqlite:///PATH."
        )
    if dry:
        return open_store(database, writes=True) if is_made(database) else None
    prepare(settings, lambda line: click.echo(line, err=True))
    return open_store(database, writes=True)


def _counted(report: Report) -> str:
    return (
        f"{report.experiments:,} experiments, {report.runs:,} runs with {report.metrics:,} points of metrics, "
        f"{report.logged_models:,} logged models, {report.traces:,} traces, {report.model_versions:,} versions of "
        f"{report.registered_models:,} new registered models, {report.evaluation_datasets:,} evaluation datasets, "
        f"{report.files:,} files ({report.bytes:,} bytes)"
    )


def _progress() -> Callable[[Report], None]:
    """On a terminal a line that changes."""
    if not sys.stderr.isatty():
        return lambda _: None
    begin = time.monotonic()

    def tell(report: Report) -> None:
        rate = report.metrics / max(time.monotonic() - begin, 0.1)
        click.echo(f"\r{_counted(report)}, {rate:,.0f} points/s ...\x1b[K", nl=False, err=True)

    return tell


def _show(report: Report, json: bool, what: str) -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if json:
        click.echo(msgspec.json.encode(report).decode())
        return
    click.echo(f"{what}: {_counted(report)}")
    if report.completed:
        click.echo(f"{report.completed:,} runs, models and traces were there and lacked something")
    for mapped in report.mapped:
        click.echo(f"other id: {mapped.kind} {mapped.source} is {mapped.target} at the target")
    for left in report.left:
        click.echo(f"left: {left.kind} {left.id}: {left.reason}")
