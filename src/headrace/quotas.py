"""--quota: how much of an experiment's artifacts and points of metrics there may be, and who is beyond it.

One worker of one server counts now and then, as `headrace usage` does, into the table headrace_usage; every worker
reads what is full every few seconds. A request is looked at only where something is full.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from msgspec import Struct

from headrace.api.decode import decode
from headrace.api.endpoint import Match
from headrace.api.message import Message
from headrace.artifacts.locations import Locations
from headrace.asgi.types import Scope
from headrace.auth.objects import EXPERIMENT_OF, ObjectRef
from headrace.clock import now_ms
from headrace.db.database import Database
from headrace.db.own_tables import making
from headrace.db.query import Sql
from headrace.errors import ApiError, HeadraceError, QuotaExceeded
from headrace.settings import Settings
from headrace.settings.values import parse_quota
from headrace.sweeps import again_and_again, until_done
from headrace.usage import artifacts_of, points_of, shown_bytes

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
EVERY_SECONDS = 3600.0  # without --quota-every
FULL_SHARE = 12  # what is full is counted so many times as often
_REMEMBERED = 10_000  # runs whose experiment is known
# endpoint's path -> what it adds to
_GROWS = {
    ("POST", "2.0/mlflow/runs/log-metric"): "metrics",
    ("POST", "2.0/mlflow/runs/log-batch"): "metrics",
    ("PUT", "2.0/mlflow-artifacts/artifacts/{path:path}"): "artifacts",
    ("POST", "2.0/mlflow-artifacts/mpu/create/{path:path}"): "artifacts",
    ("POST", "2.0/mlflow/artifacts/presigned-upload-url"): "artifacts",
    ("POST", "2.0/mlflow/upload-artifact"): "artifacts",
}
_TABLE = """CREATE TABLE IF NOT EXISTS headrace_usage (
  experiment_id integer PRIMARY KEY, metrics bigint, artifacts bigint, counted_at bigint NOT NULL)"""
_ALL, _FULL = -1, -2  # the rows that say when all, and what is full, were counted last
_TURN = Sql("""
UPDATE headrace_usage SET counted_at = :now WHERE experiment_id = :which AND counted_at <= :before RETURNING 1
""")
_FIRST = Sql("""
INSERT INTO headrace_usage (experiment_id, counted_at) VALUES (:which, 0) ON CONFLICT (experiment_id) DO NOTHING
""")
_KEEP = Sql("""
INSERT INTO headrace_usage (experiment_id, metrics, artifacts, counted_at)
VALUES (:experiment_id, :metrics, :artifacts, :now)
ON CONFLICT (experiment_id) DO UPDATE SET metrics = excluded.metrics, artifacts = excluded.artifacts,
  counted_at = excluded.counted_at
""")
_COUNTED = Sql("""
SELECT u.experiment_id, e.name, u.metrics, u.artifacts FROM headrace_usage u
JOIN experiments e ON e.experiment_id = u.experiment_id
""")
_EXPERIMENTS = Sql("""
SELECT experiment_id, name, artifact_location FROM experiments WHERE lifecycle_stage = 'active' ORDER BY experiment_id
""")


class Excess(Struct, frozen=True):
    """An experiment that has more of something than it may: points, or bytes."""

    name: str
    used: int
    allowed: int


class Quotas:
    """What a worker knows of what is full: experiment -> metrics or artifacts -> how far."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self.full: dict[int, dict[str, Excess]] = {}
        self._limits = parse_quota(settings.quota)
        self._every_ms = int((settings.quota_every or EVERY_SECONDS) * 1000)
        self._db = db
        self._locations = Locations(settings)
        self._experiments: dict[tuple[str, str], int] = {}  # (kind, id) -> experiment

    async def keep(self) -> None:
        """Read what is full, until it is cancelled."""
        await self._set_up()
        await again_and_again(self.read, LOOK_SECONDS, "what is full by --quota can't be read")

    async def keep_counting(self) -> None:
        """Count, until it is cancelled: one worker of each server does."""
        await self._set_up()
        await again_and_again(self.count, LOOK_SECONDS, "what --quota limits can't be counted")

    async def _set_up(self) -> None:
        firsts = [_FIRST(which=which) for which in (_ALL, _FULL)]

        async def make() -> None:
            await self._db.transact([*making(self._db.dialect, _TABLE), *firsts])

        await until_done(make, LOOK_SECONDS, "the table headrace_usage can't be made")

    async def count(self) -> None:
        """Count all that is limited, or only what is full, if either is due and no other server is at it."""
        if await self._is_turn(_ALL, self._every_ms):
            await self._is_turn(_FULL, 0)  # that counts for what is full, too
            await self._count(None)
        elif self.full and await self._is_turn(_FULL, self._every_ms // FULL_SHARE):
            await self._count(set(self.full))

    async def read(self) -> None:
        """What the last count says."""
        self._experiments.clear()  # runs move
        full: dict[int, dict[str, Excess]] = {}
        for number, name, metrics, artifacts in await self._db.rows(_COUNTED()):
            limits = self._limits_of(number, name)
            for what, used in (("metrics", metrics), ("artifacts", artifacts)):
                if used is not None and what in limits and used > limits[what]:
                    full.setdefault(number, {})[what] = Excess(name, used, limits[what])
        self.full = full

    async def check_request(self, match: Match, scope: Scope, body: bytes, message: Message | None = None) -> None:
        """Raises QuotaExceeded for a request, whoever answers it, that would add to an experiment which has too much.

        `message`: what `body` says, where that is known.
        """
        what = _GROWS.get((match.endpoint.method, match.endpoint.path))
        if what is None or not self.full:
            return
        try:
            message = message or decode(match, scope, body, None)
            objects = match.endpoint.target.objects(message)
        except ApiError:  # it names nothing: whoever answers it says so
            return
        if what == "artifacts" or getattr(message, "metrics", True):  # not a batch of params and tags
            await self.check(what, objects)

    async def check(self, what: str, objects: Sequence[ObjectRef]) -> None:
        """Raises QuotaExceeded where one of the objects is in an experiment that has too much of this."""
        for each in objects:
            number = int(each.id) if each.kind == "experiment" else await self._experiment_of(each)
            if number is not None and (excess := self.full.get(number, {}).get(what)) is not None:
                raise _refusal(number, what, excess)

    async def _experiment_of(self, each: ObjectRef) -> int | None:
        key = each.kind, each.id
        if key not in self._experiments:
            rows = await self._db.rows(EXPERIMENT_OF[each.kind](ids=[each.id]))
            if not rows:
                return None
            if len(self._experiments) >= _REMEMBERED:
                self._experiments.clear()
            self._experiments[key] = int(rows[0][1])
        return self._experiments[key]

    def _limits_of(self, number: int, name: str) -> Mapping[str, int]:
        return self._limits.get("", {}) | self._limits.get(str(number), {}) | self._limits.get(name, {})

    async def _is_turn(self, which: int, every_ms: int) -> bool:
        now = now_ms()
        [mine] = await self._db.transact([_TURN(which=which, now=now, before=now - every_ms)])
        return bool(mine)

    async def _count(self, only: set[int] | None) -> None:
        for number, name, location in await self._db.rows(_EXPERIMENTS()):
            limits = self._limits_of(number, name)
            if not limits or (only is not None and number not in only):
                continue
            metrics = await points_of(self._db, number) if "metrics" in limits else None
            size = None
            if "artifacts" in limits:
                try:
                    size = (await artifacts_of(self._db, self._locations, number, location)).bytes
                except HeadraceError as reason:
                    logger.warning("--quota: the artifacts of %s can't be counted: %s", name, reason)
            await self._db.transact([_KEEP(experiment_id=number, metrics=metrics, artifacts=size, now=now_ms())])
        await self.read()


def _refusal(number: int, what: str, excess: Excess) -> QuotaExceeded:
    if what == "artifacts":
        used, allowed, more = (shown_bytes(n) for n in (excess.used, excess.allowed, excess.used - excess.allowed))
        whose = "its artifacts are"
    else:
        used, allowed, more = (f"{n:,} points" for n in (excess.used, excess.allowed, excess.used - excess.allowed))
        whose = "its metrics are"
    return QuotaExceeded(
        f"Experiment {excess.name} ({number}) is full: {whose} {used}, {more} more than the {allowed} of --quota. "
        "Delete runs of it that nobody needs and let who runs the server run `headrace gc`, which frees what was "
        "deleted; `headrace usage` shows who takes how much. It is counted again every few minutes."
    )
