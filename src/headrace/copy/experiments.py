"""Which experiment at the target an experiment of the source becomes, and what hangs on it without a run.

One of the same name (and workspace) takes what is copied; where there is none, it is made, with the id that it had if
that is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from headrace.copy import sql, tables
from headrace.copy.report import Report
from headrace.copy.store import Source, Store
from headrace.entities import DEFAULT_WORKSPACE
from headrace.errors import ConfigurationError

_LARGEST_ID = 2**31 - 1  # PostgreSQL's integer


class Experiment(Struct):
    """One that is copied: its id at the source, its id and its artifacts' location at the target."""

    source_id: int
    target_id: int
    location: str
    datasets: dict[str, str] = {}  # uuid at the source -> at the target, where that is another


async def selected(source: Source, names: Sequence[str]) -> list[Any]:
    """The source's rows: those of these names, or all. Raises ConfigurationError."""
    rows = await source.rows(sql.EXPERIMENTS())
    if not names:
        return list(rows)
    if missing := set(names) - {row[1] for row in rows}:
        raise ConfigurationError(
            f"There is no experiment {sorted(missing)[0]!r} in {source.shown}. Look at --experiment."
        )
    return [row for row in rows if row[1] in names]


class Experiments:
    """`root`: where the target's server has the artifacts of new experiments; None: locations stay what they are."""

    def __init__(
        self, source: Source, target: Store, report: Report, *, root: str | None, into: str | None, dry: bool
    ) -> None:
        self._source, self._target, self._report = source, target, report
        self._root, self._into, self._dry = root, into, dry

    async def place(self, row: Any) -> Experiment | None:
        """Find or make its place; None where it is left, of which the report says why."""
        number, name, workspace, stage, _ = row
        name_there = self._into or name
        found = await self._target.rows(sql.EXPERIMENT_NAMED(workspace=workspace, name=name_there))
        if found:
            if found[0][3] == "deleted" and stage != "deleted":
                self._report.leave(
                    "experiment", name, f"{name_there} is deleted at the target. Restore it, or name another --into"
                )
                return None
            there = Experiment(number, found[0][0], found[0][4] or "")
        else:
            there = await self._make(row, name_there)
            self._report.experiments += 1
        if there.target_id != number:
            self._report.map("experiment", number, there.target_id)
        if not self._dry:
            await self._fill(there)
        return there

    async def _make(self, row: Any, name: str) -> Experiment:
        number = row[0]
        taken = number > _LARGEST_ID or await self._target.rows(sql.ID_TAKEN(experiment_id=number))
        target_id = await self._next_id() if taken else number
        made = Experiment(number, target_id, self._location(row, target_id))
        if not self._dry:

            def change(found: dict[str, Any]) -> dict[str, Any]:
                return found | {"experiment_id": target_id, "name": name, "artifact_location": made.location}

            rows = self._source.read(tables.EXPERIMENTS, ids=[number]).changed(tables.EXPERIMENTS, change)
            async with self._target.transaction() as writer:
                await writer.put(tables.EXPERIMENTS, rows, fresh=True)
                await writer.rows(sql.ADVANCE_IDS())
        return made

    async def _next_id(self) -> int:
        rows = await self._target.rows(sql.NEXT_ID())
        return int(rows[0][0]) if rows else 1

    def _location(self, row: Any, target_id: int) -> str:
        """As stock gives a new experiment its artifacts' place (_get_artifact_location)."""
        if self._root is None:
            return row[4] or ""
        root = self._root if self._root.endswith("/") else f"{self._root}/"
        return f"{root}{target_id}" if row[2] == DEFAULT_WORKSPACE else f"{root}workspaces/{row[2]}/{target_id}"

    async def _fill(self, there: Experiment) -> None:
        """Its tags, datasets, scorers, label schemas and review queues, as far as they are not there."""

        def change(found: dict[str, Any]) -> dict[str, Any]:
            return found | {"experiment_id": there.target_id} if "experiment_id" in found else found

        source_ids, target = {"ids": [there.source_id]}, {"experiment_id": there.target_id}
        async with self._target.transaction() as writer:
            for table in tables.OF_EXPERIMENT:
                await writer.put(table, self._source.read(table, **source_ids).changed(table, change))
            datasets = {tuple(row[:2]): row[2] for row in await writer.rows(sql.DATASETS(**target))}
            for name, digest, uuid in await self._source.rows(sql.DATASETS(experiment_id=there.source_id)):
                if datasets[name, digest] != uuid:
                    there.datasets[uuid] = datasets[name, digest]
            # of a scorer or a queue whose name is taken nothing more is copied
            scorers = [row[0] for row in await self._source.rows(sql.SCORERS_OF(experiment_id=there.source_id))]
            queues = [row[0] for row in await self._source.rows(sql.QUEUES_OF(experiment_id=there.source_id))]
            schemas = {row[0] for row in await writer.rows(sql.SCHEMAS(**target))}
            scorers = [row[0] for row in await writer.rows(sql.SCORERS(ids=scorers))]
            queues = [row[0] for row in await writer.rows(sql.QUEUES(ids=queues))]

            def of_schema(found: dict[str, Any]) -> dict[str, Any] | None:
                return found if "schema_id" not in found or found["schema_id"] in schemas else None

            for table in tables.OF_SCORERS:
                await writer.put(table, self._source.read(table, ids=scorers).changed(table, change))
            for table in tables.OF_QUEUES:
                await writer.put(table, self._source.read(table, ids=queues).changed(table, of_schema))

    async def issues(self, there: Experiment) -> None:
        """After the runs, which some are of."""
        named = await self._source.rows(sql.RUNS_OF_ISSUES(experiment_id=there.source_id))
        async with self._target.transaction() as writer:
            runs = {row[0] for row in await writer.rows(sql.RUN_IDS(ids=[row[0] for row in named if row[0]]))}

            def change(found: dict[str, Any]) -> dict[str, Any]:
                run = found["source_run_id"]
                return found | {"experiment_id": there.target_id, "source_run_id": run if run in runs else None}

            table = tables.ISSUES
            await writer.put(table, self._source.read(table, ids=[there.source_id]).changed(table, change))

    async def workspaces(self) -> None:
        """Those that are not there, with the target's artifact root where artifacts move."""
        names = [row[0] for row in await self._source.rows(sql.WORKSPACES())]

        def change(found: dict[str, Any]) -> dict[str, Any]:
            return found if self._root is None else found | {"default_artifact_root": None}

        table = tables.WORKSPACES
        async with self._target.transaction() as writer:
            await writer.put(table, self._source.read(table, ids=names).changed(table, change))
