"""One copy: from the rows of a source to those of a target, portion by portion, files first.

A portion is one transaction, and a run, a model or a trace is in one portion with all that it has: what is at the
target is whole. A second copy finds what is there by its id, compares how many rows it has, and adds what is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from headrace.copy import sql, tables
from headrace.copy.experiments import Experiment, Experiments
from headrace.copy.files import Files
from headrace.copy.parallel import each, tasks
from headrace.copy.report import Report
from headrace.copy.store import Source, Store, Writer
from headrace.copy.tables import Table
from headrace.db.query import Sql
from headrace.errors import ApiError, Declined, Unavailable

IDS_AT_ONCE = 100
_UNFINISHED = ("RUNNING", "SCHEDULED")
_BETWEEN = ("inputs", "input_tags", "entity_associations")  # no foreign key: they may be there before the run is

Change = Callable[[dict[str, Any]], dict[str, Any] | None]


class Kind(NamedTuple):
    """What is copied whole. `field`: of the report; `below`: its files' folder in that of its experiment."""

    name: str
    field: str
    key: str
    below: str
    ids: Sql
    there: Sql
    counts: Sql
    table: Table
    children: tuple[Table, ...]


RUN = Kind("run", "runs", "run_uuid", "", sql.RUNS, sql.RUNS_THERE, sql.RUN_COUNTS, tables.RUNS, tables.OF_RUN)
MODEL = Kind(
    "logged model", "logged_models", "model_id", "models/",
    sql.MODELS, sql.MODELS_THERE, sql.MODEL_COUNTS, tables.MODELS, tables.OF_MODEL,
)  # fmt: skip
TRACE = Kind(
    "trace", "traces", "request_id", "traces/",
    sql.TRACES, sql.TRACES_THERE, sql.TRACE_COUNTS, tables.TRACES, tables.OF_TRACE,
)  # fmt: skip


class Copier:
    """`files`: None where artifacts stay where they are. `told` hears of each portion."""

    def __init__(
        self,
        source: Source,
        target: Store,
        experiments: Experiments,
        files: Files | None,
        report: Report,
        *,
        dry: bool,
        told: Callable[[Report], None],
    ) -> None:
        self._source, self._target, self._experiments, self._files = source, target, experiments, files
        self.report, self._dry, self._told = report, dry, told

    async def copy(self, rows: Iterable[Any]) -> list[Experiment]:
        """These experiments, with all that is in them. Raises HeadraceError where a database fails."""
        if not self._dry:
            await self._experiments.workspaces()
        placed = [there for row in rows if (there := await self._experiments.place(row)) is not None]
        for kind in (RUN, MODEL, TRACE):  # a model's metrics are of runs
            for there in placed:
                await self._all(kind, there)
        if not self._dry:
            for there in placed:
                await self._experiments.issues(there)
        return placed

    async def _all(self, kind: Kind, there: Experiment) -> None:
        async def portions() -> AsyncIterator[Sequence[Any]]:
            after = ""
            values = {"experiment_id": there.source_id, "most": IDS_AT_ONCE}
            while rows := await self._source.rows(kind.ids(**values, after=after)):
                yield rows
                after = rows[-1][0]

        async def one(rows: Sequence[Any]) -> None:
            await Portion(self, kind, there, rows).copy()
            self._told(self.report)

        await each(portions(), one, 1 if self._dry else self._target.at_once)


class Portion:
    """Some runs, models or traces of an experiment: rows of (id, where its files are, status)."""

    def __init__(self, copier: Copier, kind: Kind, there: Experiment, rows: Sequence[Any]) -> None:
        self._copier, self._kind, self._there, self._rows = copier, kind, there, rows
        self._source, self._target = copier._source, copier._target
        self._report, self._files, self._dry = copier.report, copier._files, copier._dry
        self._uris: dict[str, str] = {}  # where files are at the target, of those whose files were copied
        self._failed: set[str] = set()  # those whose files could not be copied now

    async def copy(self) -> None:
        """Copy what is not there, and what those that are there lack."""
        known = {row[0]: row for row in await self._target.rows(self._kind.there(ids=[row[0] for row in self._rows]))}
        if self._files is not None:
            async with tasks() as group:
                for which, uri, _ in self._rows:
                    group.create_task(self._copy_files(self._files, which, uri, known.get(which)))
        new = [row[0] for row in self._rows if row[0] not in known and row[0] not in self._failed]
        await self._put(new, True)
        await self._put(await self._behind(known), False)

    async def _copy_files(self, files: Files, which: str, uri: str | None, known: Any) -> None:
        if not uri:
            return
        target = known[1] if known is not None else None
        if not target:
            target = f"{self._there.location.rstrip('/')}/{self._kind.below}{which}/artifacts"
        try:
            await files.copy(which, uri, target)
        except Declined as error:
            self._report.leave(f"files of {self._kind.name}", which, f"they stay at {uri}: {error}")
        except ApiError as error:  # without them it is not whole
            self._failed.add(which)
            self._report.leave(self._kind.name, which, f"its files at {uri} could not be copied: {error}")
        else:
            self._uris[which] = target

    async def _behind(self, known: dict[str, Any]) -> list[str]:
        """Those of them that have fewer rows than at the source, or have not ended there."""
        if not known:
            return []
        counts = self._kind.counts(ids=list(known))
        there = {(row[0], row[1]): row[2] for row in await self._target.rows(counts)}
        missing = {row[0] for row in await self._source.rows(counts) if row[2] > there.get((row[0], row[1]), 0)}
        for which, _, status in self._rows:
            if which in known and known[which][2] in _UNFINISHED and status != known[which][2]:
                missing.add(which)
        return sorted(missing)

    async def _put(self, ids: Sequence[str], fresh: bool) -> None:
        """In one transaction, or, where the database refuses that, each in its own."""
        if not ids:
            return
        try:
            metrics = await self._count(ids) if self._dry else await self._transact(list(ids), fresh)
        except Unavailable:
            raise
        except (Declined, ApiError) as error:
            if len(ids) == 1:
                self._report.leave(self._kind.name, ids[0], error)
                return
            for which in ids:
                await self._put([which], fresh)
            return
        self._report.metrics += metrics
        counted = self._kind.field if fresh else "completed"
        setattr(self._report, counted, getattr(self._report, counted) + len(ids))

    async def _count(self, ids: Sequence[str]) -> int:
        """The points that the source has of them."""
        rows = await self._source.rows(self._kind.counts(ids=list(ids))) if self._kind is RUN else []
        return sum(row[2] for row in rows if row[1] == "metrics")

    async def _transact(self, ids: list[str], fresh: bool) -> int:
        """The points that are new."""
        metrics = 0
        async with self._target.transaction() as writer:
            changes = await self._changes(writer, ids)
            for table in (self._kind.table, *self._kind.children):
                rows = self._source.read(table, ids=ids)
                if (change := changes.get(table.name)) is not None:
                    rows = rows.changed(table, change)
                count = await writer.put(table, rows, fresh and table.name not in _BETWEEN)
                metrics += count if table.name == "metrics" else 0
                if fresh and table is tables.RUNS:
                    await writer.trust()
        return metrics

    async def _changes(self, writer: Writer, ids: list[str]) -> dict[str, Change]:
        """What is not the same at the target, by table."""
        there = self._there

        def place(row: dict[str, Any]) -> dict[str, Any]:
            return row | {"experiment_id": there.target_id}

        changes: dict[str, Change] = {}
        if there.target_id != there.source_id:
            changes |= dict.fromkeys(
                ("runs", "logged_models", "logged_model_params", "logged_model_tags", "trace_info", "spans"), place
            )
            changes["assessments"] = lambda row: row if row["experiment_id"] is None else place(row)
        if there.datasets:
            changes["inputs"] = lambda row: row | {"source_id": there.datasets.get(row["source_id"], row["source_id"])}
        if self._kind is MODEL:
            named = [row[0] for row in await self._source.rows(sql.RUNS_OF_MODELS(ids=ids))]
            runs = {row[0] for row in await writer.rows(sql.RUN_IDS(ids=named))}

            def metric(row: dict[str, Any]) -> dict[str, Any] | None:
                dataset = there.datasets.get(row["dataset_uuid"], row["dataset_uuid"])
                return place(row) | {"dataset_uuid": dataset} if row["run_id"] in runs else None

            changes["logged_model_metrics"] = metric
        if self._uris:
            column = {"run": "artifact_uri", "logged model": "artifact_location", "trace": "value"}[self._kind.name]
            table = "trace_tags" if self._kind is TRACE else self._kind.table.name
            before, key = changes.get(table), self._kind.key

            def locate(row: dict[str, Any]) -> dict[str, Any] | None:
                if row.get("key", "mlflow.artifactLocation") == "mlflow.artifactLocation" and row[key] in self._uris:
                    row = row | {column: self._uris[row[key]]}
                return row if before is None else before(row)

            changes[table] = locate
        return changes
