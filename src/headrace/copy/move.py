"""`headrace runs move`: runs to another experiment of the same server.

With a run go its nested runs, the models that it logged, its traces, and its datasets, which belong to an experiment.
Its files go, too: who may read them is decided by the experiment whose folder they are in, and gc removes that folder
with the experiment. Files are copied first, then all rows change in one transaction, then the old files go. Servers
with --grants keep in mind in which experiment a run is: the version of the accounts tells them to look again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from headrace.clock import DAY_MS, now_ms
from headrace.copy import move_sql as sql
from headrace.copy.files import Files, Place
from headrace.copy.report import Left, Report
from headrace.db.database import Database
from headrace.db.own_tables import NEXT_VERSION, exists
from headrace.db.query import Runnable
from headrace.errors import ApiError, ConfigurationError, Declined
from headrace.resources.traces import change_sql


class Moved(Struct):
    """What has moved, or would; `left`: what has not, and why."""

    runs: list[str] = field(default_factory=list)
    logged_models: int = 0
    traces: int = 0
    files: int = 0
    left: list[Left] = field(default_factory=list)


class Mover:
    """`place`: the server's artifacts; None: they stay where they are. `dry`: only says what would move."""

    def __init__(self, db: Database, place: Place | None, dry: bool) -> None:
        self._db, self._place, self._dry = db, place, dry
        self._copied = Report()
        self.moved = Moved()
        self._told: list[Runnable] = []

    async def move(self, ids: Sequence[str], to: str) -> Moved:
        """To the experiment of that name, or id. Raises ConfigurationError where there is none."""
        experiment = await self._experiment(to)
        if await self._db.rows(exists("headrace_state")):
            self._told = [NEXT_VERSION()]
        wanted = list(dict.fromkeys(ids))
        for which in wanted:  # grows by nested runs
            rows = await self._db.rows(sql.RUN(run_id=which))
            if reason := self._why_it_stays(rows, experiment):
                self.moved.left.append(Left("run", which, reason))
                continue
            nested = await self._db.rows(sql.NESTED(run_id=which))
            wanted += [row[0] for row in nested if row[0] not in wanted]
            try:
                await self._one(which, rows[0][1], experiment)
            except (Declined, ApiError) as error:
                self.moved.left.append(Left("run", which, str(error)))
        self.moved.files = self._copied.files
        return self.moved

    async def _experiment(self, to: str) -> Any:
        """(id, artifact location, workspace)."""
        number = int(to) if to.isdecimal() and len(to) < 10 else -1
        rows = await self._db.rows(sql.EXPERIMENT(name=to, experiment_id=number))
        if len(rows) != 1:
            raise ConfigurationError(
                f"There are {len(rows)} experiments {to!r} that are not deleted. "
                + ("Name one by its id." if rows else "Look at --to, or make it first.")
            )
        return rows[0]

    def _why_it_stays(self, rows: Sequence[Any], experiment: Any) -> str:
        if not rows:
            return "is not there"
        _, _, status, number, workspace = rows[0]
        if number == experiment[0]:
            return "is there already"
        if workspace != experiment[2]:
            return f"is in the workspace {workspace}, and the experiment in {experiment[2]}"
        if status in ("RUNNING", "SCHEDULED"):
            return "has not ended: its client goes on writing to where it began"
        return ""

    async def _one(self, run_id: str, uri: str | None, experiment: Any) -> None:
        to, location, _ = experiment
        models = await self._db.rows(sql.MODELS(run_id=run_id))
        traces = await self._db.rows(sql.TRACES(run_id=run_id))
        places = [("", run_id, uri), *(("models/", *row) for row in models), *(("traces/", *row) for row in traces)]
        moves: list[tuple[str, str, str]] = []  # id, from, to
        if self._place is not None:
            if not location:
                raise Declined("the experiment has no place for its files")
            for below, own, there in places:
                if there and f"/{own}/" in f"{there}/":
                    moves.append((own, there.rstrip("/"), f"{location.rstrip('/')}/{below}{own}/artifacts"))
            files = Files(self._place, self._place, self._copied, self._dry)
            for own, there, new in moves:
                await files.copy(own, there, new)
        if not self._dry:
            await self._db.change(
                sql.MOVE(run_id=run_id, to=to),
                *_rest(run_id, to, [row[0] for row in models], [row[0] for row in traces], moves),
                *self._told,
            )
            for own, there, new in moves:
                await self._remove(own, there, new)
        self.moved.runs.append(run_id)
        self.moved.logged_models += len(models)
        self.moved.traces += len(traces)

    async def _remove(self, own: str, there: str, new: str) -> None:
        assert self._place is not None
        if self._place.absolute(there) == self._place.absolute(new):
            return
        store, path = self._place.find(
            there.removesuffix("/artifacts") if there.endswith(f"/{own}/artifacts") else there
        )
        try:
            await store.delete(path)
        except ApiError as error:
            self.moved.left.append(Left("old files of", own, f"at {there}: {error}"))


def _rest(run_id: str, to: int, models: list[str], traces: list[str], moves: Sequence[Any]) -> list[Runnable]:
    statements: list[Runnable] = [each(run_id=run_id, to=to) for each in sql.DATASETS]
    if models:
        statements += [each(ids=models, to=to) for each in sql.OF_MODELS]
    if traces:
        rebuild = change_sql.QUEUE_REBUILDS(trace_ids=traces, eligible=now_ms() - DAY_MS)
        statements += [rebuild, *(each(ids=traces, to=to) for each in sql.OF_TRACES), rebuild]
    for own, before, now in moves:
        statements += [each(own=own, now=now) for each in sql.LOCATED]
        statements += [each(before=before, now=now) for each in sql.VERSIONS]
    return statements
