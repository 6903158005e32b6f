"""Registered models with their versions, tags and aliases; evaluation datasets with their records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from headrace.copy import sql, tables
from headrace.copy.experiments import Experiment
from headrace.copy.report import Report
from headrace.copy.store import Source, Store
from headrace.uri import models_in, runs_in

AT_ONCE = 100
_PROMPT_EXPERIMENTS = "_mlflow_experiment_ids"  # the tag of a prompt: ",1,2,"


class Registry:
    """`only`: no more than what belongs to these experiments; `moved`: their files have other places at the target."""

    def __init__(
        self,
        source: Source,
        target: Store,
        placed: Iterable[Experiment],
        report: Report,
        *,
        only: bool,
        moved: bool,
        dry: bool,
        told: Callable[[Report], None],
    ) -> None:
        self._source, self._target, self._report = source, target, report
        self._experiments = {each.source_id: each.target_id for each in placed}
        self._only, self._moved, self._dry, self._told = only, moved, dry, told

    async def copy(self) -> None:
        """All of it, model by model. Raises HeadraceError where a database fails."""
        async for workspace, name in self._names():
            await self._model({"workspace": workspace, "name": name})
            self._told(self._report)
        async for ids in self._datasets():
            await self._evaluation_datasets(ids)
            self._told(self._report)

    async def _names(self) -> AsyncIterator[Any]:
        place = {"workspace": "", "name": ""}
        while rows := await self._source.rows(sql.REGISTERED_MODELS(**place, most=AT_ONCE)):
            for row in rows:
                yield row
            place = {"workspace": rows[-1][0], "name": rows[-1][1]}

    async def _model(self, which: dict[str, str]) -> None:
        versions = await self._source.rows(sql.VERSIONS(**which))
        places = await self._places(self._source, versions)
        if self._only:
            versions = [row for row in versions if any(p[1] in self._experiments for p in self._of(row, places))]
            if not versions:
                return
        there = await self._target.rows(sql.VERSIONS(**which))
        numbers = self._numbers(which["name"], versions, there)
        new = [row[0] for row in versions if numbers[row[0]] not in {row[0] for row in there}]
        self._report.model_versions += len(new)
        if not await self._target.rows(sql.REGISTERED_MODEL_THERE(**which)):
            self._report.registered_models += 1
        if not self._dry:
            await self._write(which, numbers, new, await self._moves(places))

    def _numbers(self, name: str, versions: Sequence[Any], there: Sequence[Any]) -> dict[int, int]:
        """Version at the source -> at the target. One that was copied before is known by its time and its run."""
        copied = {(row[1], row[2]): row[0] for row in there}
        taken = {row[0] for row in there}
        free = max([0, *taken, *(row[0] for row in versions)]) + 1
        numbers = {}
        for version, created, run, *_ in versions:
            if (known := copied.get((created, run))) is not None:
                numbers[version] = known
            elif version not in taken:
                numbers[version] = version
            else:
                numbers[version], free = free, free + 1
            if numbers[version] != version:
                self._report.map(f"version of {name}", version, numbers[version])
        return numbers

    async def _write(self, which: dict[str, str], numbers: dict[int, int], new: list[int], moves: list[Any]) -> None:
        def number(row: dict[str, Any]) -> dict[str, Any] | None:
            return row | {"version": numbers[row["version"]]} if row["version"] in numbers else None

        def version(row: dict[str, Any]) -> dict[str, Any] | None:
            if row["version"] not in new:
                return None
            return number(row | {column: _moved(row[column], moves) for column in ("source", "storage_location")})

        def tag(row: dict[str, Any]) -> dict[str, Any]:
            if row["key"] != _PROMPT_EXPERIMENTS:
                return row
            named = [int(each) for each in row["value"].split(",") if each.isdecimal()]
            ids = [str(self._experiments[each]) for each in named if each in self._experiments]
            return row | {"value": f",{','.join(ids)},"}

        changes = (
            (tables.REGISTERED_MODELS, None),
            (tables.REGISTERED_MODEL_TAGS, tag),
            (tables.VERSIONS, version),
            (tables.VERSION_TAGS, number),
            (tables.ALIASES, number),
        )
        values = {"workspace": which["workspace"], "ids": [which["name"]]}
        async with self._target.transaction() as writer:
            for table, change in changes:
                rows = self._source.read(table, **values)
                await writer.put(table, rows if change is None else rows.changed(table, change))
            there = {row[0]: row[1] for row in await writer.rows(sql.ALIASES(**which))}
        for alias, at in await self._source.rows(sql.ALIASES(**which)):
            if at in numbers and there[alias] != numbers[at]:
                self._report.leave(f"alias of {which['name']}", alias, f"it is of version {there[alias]} at the target")

    def _of(self, version: Any, places: dict[str, Any]) -> list[Any]:
        """The places of the runs and models that a version is of."""
        _, _, run, source, _ = version
        named = {run, *runs_in(source or ""), *models_in(source or "")}
        return [places[each] for each in named if each in places]

    async def _places(self, store: Source, versions: Sequence[Any]) -> dict[str, Any]:
        """Run or model -> its id, experiment, URI."""
        runs = {row[2] for row in versions if row[2]}
        models: set[str] = set()
        for row in versions:
            for uri in (row[3] or "", row[4] or ""):
                runs |= set(runs_in(uri))
                models |= set(models_in(uri))
        return await self._located(store, sorted(runs), sorted(models))

    async def _located(self, store: Source, runs: list[str], models: list[str]) -> dict[str, Any]:
        return {row[0]: row for row in await store.rows(sql.FILES_OF(run_ids=runs, model_ids=models))}

    async def _moves(self, places: dict[str, Any]) -> list[tuple[str, str]]:
        """Where the files of these were and are."""
        if not self._moved:
            return []
        models = [each for each in places if each.startswith("m-")]
        there = await self._located(self._target, [each for each in places if each not in models], models)
        return [(row[2], there[which][2]) for which, row in places.items() if which in there and row[2]]

    # ---- evaluation datasets ---------------------------------------------------------------------------------------

    async def _datasets(self) -> AsyncIterator[list[str]]:
        after = ""
        while rows := await self._source.rows(sql.EVALUATION_DATASETS(after=after, most=AT_ONCE)):
            ids = [row[0] for row in rows]
            after = ids[-1]
            if self._only:
                of = await self._source.rows(sql.EXPERIMENTS_OF_DATASETS(ids=ids))
                ids = sorted({row[0] for row in of if int(row[1]) in self._experiments})
            yield ids

    async def _evaluation_datasets(self, ids: list[str]) -> None:
        there = {row[0] for row in await self._target.rows(sql.EVALUATION_DATASETS_THERE(ids=ids))}
        self._report.evaluation_datasets += len(set(ids) - there)
        if self._dry:
            return

        def associate(row: dict[str, Any]) -> dict[str, Any] | None:
            if row["destination_type"] != "experiment":
                return row
            number = self._experiments.get(int(row["destination_id"]))
            return None if number is None else row | {"destination_id": str(number)}

        async with self._target.transaction() as writer:
            for table in (tables.EVALUATION_DATASETS, *tables.OF_EVALUATION_DATASET):
                rows = self._source.read(table, ids=ids)
                await writer.put(table, rows.changed(table, associate) if table.name == "entity_associations" else rows)


def _moved(uri: str | None, moves: list[tuple[str, str]]) -> str | None:
    for before, now in moves:
        if uri is not None and f"{uri}/".startswith(f"{before.rstrip('/')}/"):
            return now.rstrip("/") + uri[len(before.rstrip("/")) :]
    return uri
