"""A copy from its two ends: opens them, does all, closes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.copy import sql
from headrace.copy.copier import Copier
from headrace.copy.experiments import Experiments
from headrace.copy.files import Files, Place
from headrace.copy.options import Options
from headrace.copy.registry import Registry
from headrace.copy.report import Report
from headrace.copy.store import Nothing, Source, Store
from headrace.errors import ConfigurationError, Declined
from headrace.settings import Settings

_SERVED = "mlflow-artifacts:"


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
        rows = await experiments.selected(options.experiments)
        files = None
        if options.artifacts:
            served = await source.rows(sql.SERVED(ids=[row[0] for row in rows], scheme=_SERVED))
            place = _source_place(options, [row[0] for row in served])
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
    finally:
        await source.close()
        await store.close()
    return report


def _source_place(options: Options, served: Sequence[str]) -> Place:
    given = options.source_artifacts
    if served and given is None and options.source_server is None:
        raise ConfigurationError(
            f"The artifacts of {served[0]!r} are behind the source's server ({_SERVED}). Say where that keeps them, "
            "with --source-artifacts URI (its --artifacts-destination), or copy --without-artifacts."
        )
    if given is not None and "://" not in given and not Path(given).is_dir():
        raise ConfigurationError(f"There is no folder {given}. Look at --source-artifacts.")
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
