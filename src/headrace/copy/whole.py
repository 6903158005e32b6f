"""A copy from its two ends: opens them, does all, closes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headrace.copy import sql
from headrace.copy.copier import Copier
from headrace.copy.experiments import Experiments, selected
from headrace.copy.files import Files, Place
from headrace.copy.options import Options
from headrace.copy.registry import Registry
from headrace.copy.report import Report
from headrace.copy.store import Nothing, Source, Store
from headrace.errors import ConfigurationError, Declined
from headrace.settings import Settings

_SERVED = "mlflow-artifacts:"


def check_places(settings: Settings, options: Options) -> None:
    """Raises ConfigurationError for a place of artifacts that can't be used, before a server is read for minutes."""
    if not options.artifacts:
        return
    given = options.source_artifacts
    if given is not None and "://" not in given and not Path(given).is_dir():
        raise ConfigurationError(f"There is no folder {given}. Look at --source-artifacts.")
    _target_place(settings)


async def check(source: Source, options: Options) -> None:
    """Raises ConfigurationError for what can't be copied as it is asked for, before a target is made. Closes it."""
    try:
        rows = await selected(source, options.experiments)
        if options.artifacts:
            _source_place(options, await _served(source, rows))
    finally:
        await source.close()


async def copy(
    source: Source, target: Store | None, settings: Settings, options: Options, told: Callable[[Report], None]
) -> Report:
    """`settings`: the target server's; `target` is None where a dry run finds none. Closes both.

    Raises ConfigurationError for what can't be copied as it is asked for, Unavailable where a database goes away.
    """
    report = Report()
    store: Store = target or Nothing()
    try:
        experiments = Experiments(
            source,
            store,
            report,
            root=settings.default_artifact_root if options.artifacts else None,
            into=options.into,
            dry=options.dry,
        )
        rows = await selected(source, options.experiments)
        files = None
        if options.artifacts:
            place = _source_place(options, await _served(source, rows))
            files = Files(place, _target_place(settings), report, options.dry)
        copier = Copier(source, store, experiments, files, report, dry=options.dry, told=told)
        placed = await copier.copy(rows)
        await Registry(
            source,
            store,
            placed,
            report,
            only=bool(options.experiments),
            moved=options.artifacts,
            dry=options.dry,
            told=told,
        ).copy()
        if not options.dry:
            await store.finish()
    finally:
        await source.close()
        await store.close()
    return report


async def _served(source: Source, experiments: Sequence[Any]) -> list[str]:
    """The names of those of them whose artifacts are behind the source's server."""
    return [row[0] for row in await source.rows(sql.SERVED(ids=[row[0] for row in experiments], scheme=_SERVED))]


def _source_place(options: Options, served: Sequence[str]) -> Place:
    given = options.source_artifacts
    if served and given is None and options.source_server is None:
        raise ConfigurationError(
            f"The artifacts of {served[0]!r} are behind the source's server ({_SERVED}). Say where that keeps them, "
            "with --source-artifacts URI (its --artifacts-destination), or copy --without-artifacts."
        )
    return Place(given, options.source_server)


def _target_place(settings: Settings) -> Place:
    place = Place(settings.artifacts_destination)
    try:
        place.find(settings.default_artifact_root)
    except Declined as reason:
        raise ConfigurationError(
            f"Headrace can't write artifacts to {settings.default_artifact_root}: {reason}. Look at "
            "--artifacts-destination and --default-artifact-root, or copy --without-artifacts."
        ) from None
    return place
