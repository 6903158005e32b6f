"""`headrace copy`: from one server's stores to another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from headrace.cli.accounts import as_json
from headrace.cli.output import GOES_ON, if_broken_off, print_report, show_progress
from headrace.cli.stores import with_settings
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.copy.options import Options
    from headrace.copy.report import Report
    from headrace.copy.store import Store


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--experiment", "experiments", metavar="NAME", multiple=True, help="Only this one. Can be repeated.")
@click.option("--into", metavar="NAME", help="With one --experiment: its name at the target.")
@click.option(
    "--source-artifacts",
    metavar="URI",
    help="Where the source's server keeps its artifacts: its --artifacts-destination.",
)
@click.option("--without-artifacts", is_flag=True, help="Leave artifacts, and what the rows say of them, as they are.")
@click.option("--dry-run", is_flag=True, help="Only say what would be copied.")
@as_json
@with_settings("artifacts_destination", "default_artifact_root", store="target")
@if_broken_off(GOES_ON)
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

    SOURCE and TARGET are URLs of databases (postgresql://, sqlite:///PATH) or servers (http://...); SOURCE can be a
    folder of runs, too: MLflow's (./mlruns), TensorBoard's, W&B's (./wandb). Started again it copies what is missing.
    """
    from headrace.copy import ends
    from headrace.copy.options import Options

    if into is not None and len(experiments) != 1:
        raise click.UsageError("--into needs exactly one --experiment.")
    if ends.place(source) == ends.place(target):
        raise click.UsageError("SOURCE and TARGET are the same database.")
    if without_artifacts and ends.is_unpacked(source):
        raise click.UsageError("--without-artifacts is for files that stay where they are; those of SOURCE do not.")
    server = source if ends.is_server(source) else None
    options = Options(experiments, into, source_artifacts, server, not without_artifacts, dry_run)
    report = (_to_server if ends.is_server(target) else _to_database)(source, target, settings, options)
    print_report(report, json, _lines(report, "would be copied" if dry_run else "copied"))
    return 1 if report.left else 0


def _to_server(source: str, target: str, _: Settings, options: Options) -> Report:
    from headrace.copy import ends
    from headrace.copy.clients import Clients

    ends.reach(target)
    with ends.source_url(source) as url:
        return Clients(url, target, options, _progress()).copy()


def _to_database(source: str, _: str, settings: Settings, options: Options) -> Report:
    """`settings` names it."""
    from headrace.copy import ends, whole

    def target(dry: bool) -> Store | None:
        return ends.target(settings, dry, lambda line: click.echo(line, err=True))

    whole.check_places(settings, options)
    with ends.source(source, options.experiments, lambda: asyncio.run(ends.ended_runs(target(True)))) as read:
        asyncio.run(whole.check(ends.open_store(read, writes=False), options))
        there = target(options.dry)
        return asyncio.run(whole.copy(ends.open_store(read, writes=False), there, settings, options, _progress()))


def _counted(report: Report) -> str:
    return (
        f"{report.experiments:,} experiments, {report.runs:,} runs with {report.metrics:,} points of metrics, "
        f"{report.logged_models:,} logged models, {report.traces:,} traces, {report.model_versions:,} versions of "
        f"{report.registered_models:,} new registered models, {report.evaluation_datasets:,} evaluation datasets, "
        f"{report.files:,} files ({report.bytes:,} bytes)"
    )


def _progress() -> Callable[[Report], None]:
    begin = time.monotonic()

    def tell(report: Report) -> None:
        rate = report.metrics / max(time.monotonic() - begin, 0.1)
        show_progress(f"{_counted(report)}, {rate:,.0f} points/s")

    return tell


def _lines(report: Report, what: str) -> Iterator[str]:
    yield f"{what}: {_counted(report)}"
    if report.completed:
        yield f"{report.completed:,} runs, models and traces were there and lacked something"
    for mapped in report.mapped:
        yield f"other id: {mapped.kind} {mapped.source} is {mapped.target} at the target"
    for left in report.left:
        yield f"left: {left.kind} {left.id}: {left.reason}"
