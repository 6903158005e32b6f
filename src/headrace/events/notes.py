"""What handlers note of events. Where nobody has subscribed, that is a look at an empty dictionary."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from headrace.db.database import Database
from headrace.db.query import Bound
from headrace.errors import HeadraceError
from headrace.events.store import EventStore, note
from headrace.events.subscriptions import ALIAS, METRIC, RUN_KINDS, VERSION, Subscription
from headrace.sweeps import again_and_again

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0  # after which a worker knows of a new subscription
_PASSED = 10_000  # runs that are known to have passed
_LEFT = 10_000  # notes that wait for the database
_UNREAD = "subscriptions to events can't be read"


class Metric(Protocol):
    """A row of `metrics`."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def step(self) -> int: ...
    @property
    def is_nan(self) -> bool: ...


class Events:
    """What a worker knows of the subscriptions. `by_kind` and `by_metric` are empty where there are none."""

    def __init__(self) -> None:
        self.by_kind: dict[str, list[Subscription]] = {}
        self.by_metric: dict[str, list[Subscription]] = {}
        self.subscribed = asyncio.Event()  # set once there is one
        self._store: EventStore | None = None
        self._passed: set[tuple[str, str]] = set()
        self._left: deque[Bound] = deque(maxlen=_LEFT)

    async def begin(self, db: Database) -> None:
        """Read the subscriptions that there are, before the first request. Where they can't be read, `keep` will."""
        self._store = EventStore(db)
        try:
            await self.refresh()
        except HeadraceError as error:
            logger.warning("%s: %s", _UNREAD, error)

    async def keep(self) -> None:
        """Look for subscriptions REFRESH_SECONDS after `begin` and again and again, until it is cancelled."""
        await asyncio.sleep(REFRESH_SECONDS)
        await again_and_again(self.refresh, REFRESH_SECONDS, _UNREAD)

    async def refresh(self) -> None:
        """Read the subscriptions, and note what could not be noted."""
        assert self._store is not None
        by_kind: dict[str, list[Subscription]] = {}
        by_metric: dict[str, list[Subscription]] = {}
        for each in await self._store.subscriptions():
            for kind in each.kinds:
                by_kind.setdefault(kind, []).append(each)
            if METRIC in each.kinds and each.metric is not None:
                by_metric.setdefault(each.metric, []).append(each)
        self.by_kind, self.by_metric = by_kind, by_metric
        if by_kind:
            self.subscribed.set()
        while self._left:
            await self._store.note([self._left[0]])
            self._left.popleft()

    async def run_changed(self, run_id: str, status: str | None, end_time: int | None) -> None:
        """A run has this status now. A request that is sent again is the same event."""
        kind = RUN_KINDS.get(status or "", "")
        data = {"run_id": run_id, "status": status}
        await self._note(
            note(each, kind, f"{kind} {run_id} {end_time}", data, run_id) for each in self.by_kind.get(kind, ())
        )

    async def logged(self, run_id: str, metrics: Iterable[Metric]) -> None:
        """Metrics of a run; one that passes a threshold is told once."""
        notes = []
        for row in metrics:
            for each in self.by_metric.get(row.key, ()):
                if row.is_nan or not each.passes(row.value) or (each.id, run_id) in self._passed:
                    continue
                if len(self._passed) >= _PASSED:
                    self._passed.clear()  # the table knows
                self._passed.add((each.id, run_id))
                data = {"run_id": run_id, "key": row.key, "value": row.value, "step": row.step, "above": each.above,
                        "below": each.below}  # fmt: skip
                notes.append(note(each, METRIC, f"{METRIC} {run_id}", data, run_id))
        await self._note(notes)

    async def version_made(self, workspace: str, name: str, version: int) -> None:
        """A registered model has a new version."""
        data = {"workspace": workspace, "name": name, "version": str(version)}
        subject = f"{VERSION} {workspace} {name} {version}"
        await self._note(note(each, VERSION, subject, data) for each in self.by_kind.get(VERSION, ()))

    async def alias_moved(self, workspace: str, name: str, alias: str, version: int, at: int) -> None:
        """An alias is new, or is another version's than before. `at`: milliseconds since 1970."""
        data = {"workspace": workspace, "name": name, "alias": alias, "version": str(version)}
        subject = f"{ALIAS} {workspace} {name} {alias} {version} {at}"
        await self._note(note(each, ALIAS, subject, data) for each in self.by_kind.get(ALIAS, ()))

    async def _note(self, notes: Iterable[Bound]) -> None:
        """The request is done by now, and is answered so whatever becomes of the notes."""
        found = list(notes)
        if not found or self._store is None:
            return
        try:
            await self._store.note(found)
        except HeadraceError as error:
            logger.warning("events can't be noted, trying again: %s", error)
            self._left.extend(found)


def without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """A copy without these keys."""
    return {key: value for key, value in data.items() if key not in names}


# For who has no subscriptions at all: a command, a test.
NOBODY = Events()
