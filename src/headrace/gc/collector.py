"""What was deleted long enough ago goes for good: first its files, then its rows, in portions.

Between two portions the collector rests for three times as long as the last one took, so that a server beside it loses
a quarter of the database's time at most. Broken off at any moment it goes on where it was; two at once do no harm.

Unlike `mlflow gc` it keeps what a registered model version is loaded from, and an experiment that has runs that are
not deleted, and says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from msgspec import Struct

from headrace.artifacts.locations import Locations, Place
from headrace.db.database import Database
from headrace.db.own_tables import NEXT_VERSION, exists
from headrace.db.query import Runnable, Sql
from headrace.errors import Declined, HeadraceError
from headrace.gc import sql
from headrace.resources.experiments import removal_sql
from headrace.resources.traces import deletion
from headrace.uri import models_in, runs_in

RUNS_AT_ONCE = 100
METRICS_AT_ONCE = 1_000  # rows of a transaction: PostgreSQL takes 4 ms, which a write beside it may have to wait
REST = 3  # times as long as the portion before
FOLDERS_AT_ONCE = 8
DEFAULT_EXPERIMENT = 0  # clients that name none log to it


class Kept(Struct, frozen=True):
    """What was meant and is still there. `kind`: run, logged model or experiment."""

    kind: str
    id: str
    reason: str


class Report(Struct):
    """What is gone, or would go, so far."""

    experiments: int = 0
    runs: int = 0
    metrics: int = 0
    logged_models: int = 0
    traces: int = 0
    kept: list[Kept] = []


class Named(Struct, frozen=True):
    """What alone is to go, by its ids."""

    experiments: Sequence[int] = ()
    runs: Sequence[str] = ()
    logged_models: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.experiments or self.runs or self.logged_models)


class Loaded(Struct, frozen=True):
    """What registered versions are loaded from: run or model id -> the version."""

    runs: dict[str, str]
    models: dict[str, str]


class Collector:
    """One pass.

    `before`: ms since 1970; what was deleted then or earlier goes. `registered_too`: also what a registered version
    is loaded from. `dry`: only counts. `told` hears of each step.
    """

    def __init__(
        self,
        db: Database,
        locations: Locations,
        before: int,
        *,
        registered_too: bool = False,
        dry: bool = False,
        told: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._db, self._locations, self._before = db, locations, before
        self._registered_too, self._dry, self._told = registered_too, dry, told
        self._folders = asyncio.Semaphore(FOLDERS_AT_ONCE)
        self._loaded = Loaded({}, {})
        self._done: list[int] = []  # experiments that are gone, or would go
        self.report = Report()

    async def collect(self, named: Named = Named()) -> Report:  # noqa: B008  (it is frozen)
        """Everything that is old enough, or what is named. Raises HeadraceError where the database fails."""
        if not self._registered_too:
            self._loaded = await self._loads()
        if named:
            await self._collect_named(named)
            return self.report
        for row in await self._db.rows(sql.EXPERIMENTS(before=self._before)):
            await self._experiment(row)
        async for runs in self._portions(sql.RUNS, before=self._before, done=self._done):
            await self._runs(runs)
        async for models in self._portions(sql.MODELS, before=self._before, done=self._done):
            await self._models(models)
        return self.report

    async def _collect_named(self, named: Named) -> None:
        experiments = await self._db.rows(sql.EXPERIMENTS_NAMED(ids=list(named.experiments)))
        for row in self._due("experiment", named.experiments, experiments):
            await self._experiment(row)
        runs = await self._db.rows(sql.RUNS_NAMED(ids=list(named.runs)))
        await self._runs(self._due("run", named.runs, runs))
        models = await self._db.rows(sql.MODELS_NAMED(ids=list(named.logged_models)))
        await self._models(self._due("logged model", named.logged_models, models))

    def _due(self, kind: str, wanted: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
        """Those of the rows (id, location, lifecycle_stage, deleted at) that may go."""
        for missing in set(wanted) - {row[0] for row in rows}:
            self._keep(kind, missing, "is not there")
        due = []
        for row in rows:
            if row[2] != "deleted":
                self._keep(kind, row[0], "is not deleted: delete it first")
            elif row[3] is None or row[3] > self._before:
                self._keep(kind, row[0], "was deleted later than that")
            else:
                due.append(row)
        return due

    async def _portions(self, statement: Sql, **values: Any) -> AsyncIterator[Sequence[Any]]:
        after = ""
        while rows := await self._db.rows(statement(**values, after=after, most=RUNS_AT_ONCE)):
            yield rows
            after = rows[-1][0]

    async def _loads(self) -> Loaded:
        runs, models = {}, {}
        for name, version, run_id, source in await self._db.rows(sql.VERSIONS()):
            shown = f"{name} version {version}"
            if run_id:
                runs[run_id] = shown
            runs.update(dict.fromkeys(runs_in(source or ""), shown))
            models.update(dict.fromkeys(models_in(source or ""), shown))
        return Loaded(runs, models)

    # ---- an experiment ---------------------------------------------------------------------------------------------

    async def _experiment(self, row: Any) -> None:
        number, location = row[0], row[1]
        if reason := await self._why_experiment_stays(number):
            self._keep("experiment", number, reason)
            return
        if not self._dry and not await self._transact(sql.MARK_EXPERIMENT(experiment_id=number)):
            self._keep("experiment", number, "was restored")
            return
        kept = len(self.report.kept)
        try:
            await self._traces(number)
            async for models in self._portions(sql.MODELS_OF, experiment_id=number):
                await self._models(models)
            async for runs in self._portions(sql.RUNS_OF, experiment_id=number):
                await self._runs(runs)
            if len(self.report.kept) > kept:
                raise Declined("something in it stays")
            if not self._dry:
                await self._folder_of_experiment(number, location)
                await self._gone_experiment(number)
        except HeadraceError as error:
            self._keep("experiment", number, str(error))
            return
        self._done.append(number)
        self.report.experiments += 1
        self._told(self.report)

    async def _why_experiment_stays(self, number: int) -> str:
        if number == DEFAULT_EXPERIMENT:
            return "is the one that clients log to when they name none"
        ((active,),) = await self._db.rows(sql.ACTIVE_RUNS(experiment_id=number))
        if active:
            return f"has {active} runs that are not deleted"
        if await self._db.rows(sql.ARCHIVED_TRACE(experiment_id=number)):
            return "has traces that MLflow has archived: `mlflow gc` knows where"
        for statement, loaded in ((sql.RUNS_OF, self._loaded.runs), (sql.MODELS_OF, self._loaded.models)):
            async for rows in self._portions(statement, experiment_id=number):
                for each in rows:
                    try:
                        self._place_of(each, loaded)
                    except Declined as reason:
                        return f"holds {each[0]}: {reason}"
        return ""

    async def _traces(self, number: int) -> None:
        if self._dry:
            ((count,),) = await self._db.rows(sql.COUNT_TRACES(experiment_id=number))
            self.report.traces += count
            return
        async for portion in deletion.portions(self._db, number, deletion.ALL):
            self.report.traces += portion
            self._told(self.report)

    async def _folder_of_experiment(self, number: int, location: str | None) -> None:
        """What is left in it: traces' files, and those that no run knows."""
        if not location or location.rstrip("/").rpartition("/")[2] != str(number):
            return  # a folder of the user's own choice may hold other things, too
        there = location.rstrip("/") + "/"
        ((others,),) = await self._db.rows(sql.LOCATED_THERE(experiment_id=number, location=there))
        if not others:
            await self._delete_folder(self._locations.own_folder(location, str(number)))

    async def _gone_experiment(self, number: int) -> None:
        statements = list(removal_sql.REST_OF_EXPERIMENT)
        if await self._db.rows(exists("headrace_grants")):
            statements += [sql.DROP_GRANTS, NEXT_VERSION]
        statements.append(sql.GONE_EXPERIMENT)
        await self._transact(*(each(experiment_id=number, experiment_text=str(number)) for each in statements))

    # ---- runs and logged models ------------------------------------------------------------------------------------

    async def _runs(self, rows: Sequence[Any]) -> None:
        places = self._that_can_go("run", rows, self._loaded.runs)
        ids = list(places)
        if not ids:
            return
        if self._dry:
            ((metrics,),) = await self._db.rows(sql.COUNT_METRICS(ids=ids))
            self.report.metrics += metrics
        else:
            marked = {row[0]: places[row[0]] for row in await self._transact(sql.MARK_RUNS(ids=ids))}
            ids = await self._without_files("run", marked)
            await self._metrics(ids)
            statements = [each(ids=ids) for each in removal_sql.REST_OF_RUNS]
            ids = [row[0] for row in await self._transact(*statements, sql.GONE_RUNS(ids=ids))]
        self.report.runs += len(ids)
        self._told(self.report)

    async def _metrics(self, ids: list[str]) -> None:
        portion = METRICS_AT_ONCE
        while portion == METRICS_AT_ONCE:
            portion = len(await self._transact(sql.METRICS(ids=ids, most=METRICS_AT_ONCE)))
            self.report.metrics += portion
            self._told(self.report)

    async def _models(self, rows: Sequence[Any]) -> None:
        places = self._that_can_go("logged model", rows, self._loaded.models)
        ids = list(places)
        if ids and not self._dry:
            ids = await self._without_files("logged model", places)
            statements = [each(ids=ids) for each in removal_sql.REST_OF_MODELS]
            ids = [row[0] for row in await self._transact(*statements, sql.GONE_MODELS(ids=ids))]
        self.report.logged_models += len(ids)
        self._told(self.report)

    def _that_can_go(self, kind: str, rows: Sequence[Any], loaded: dict[str, str]) -> dict[str, Place]:
        """The ids of those that nobody loads, with their files' place where that is one that Headrace deletes."""
        going = {}
        for row in rows:
            try:
                going[row[0]] = self._place_of(row, loaded)
            except Declined as reason:
                self._keep(kind, row[0], str(reason))
        return going

    def _place_of(self, row: Any, loaded: dict[str, str]) -> Place:
        """Raises Declined where it stays."""
        if row[0] in loaded:
            raise Declined(f"{loaded[row[0]]} is loaded from it")
        return self._locations.own_folder(row[1], row[0])

    async def _without_files(self, kind: str, places: dict[str, Place]) -> list[str]:
        """The ids whose files are gone; of the others the report says why."""

        async def one(which: str, place: Place) -> str | None:
            try:
                await self._delete_folder(place)
            except HeadraceError as error:
                self._keep(kind, which, f"{error} The next gc goes on with it.")
                return None
            return which

        done = await asyncio.gather(*(one(*each) for each in places.items()))
        return [which for which in done if which is not None]

    async def _delete_folder(self, place: Place) -> None:
        """Raises Unavailable, Forbidden."""
        async with self._folders:
            await place.store.delete(place.path)

    async def _transact(self, *statements: Runnable) -> Sequence[Any]:
        """The rows of the last one; then a rest."""
        begin = time.monotonic()
        rows = (await self._db.transact(statements))[-1]
        await asyncio.sleep(REST * (time.monotonic() - begin))
        return rows

    def _keep(self, kind: str, which: Any, reason: str) -> None:
        kept = Kept(kind, str(which), reason)
        if kept not in self.report.kept:
            self.report.kept.append(kept)
