"""What was noted is told: taken from the table, told, and taken again later where that failed.

No redirect is followed, no proxy asked, and nothing but the status of the answer is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import httpcore
import msgspec

from headrace.clock import now_ms
from headrace.db.database import Database
from headrace.db.query import Sql
from headrace.errors import HeadraceError, NotFound
from headrace.events import formats
from headrace.events.addresses import PublicOnly
from headrace.events.formats import Event
from headrace.events.notes import Events, without
from headrace.events.store import KEY_VARIABLE, LEASE_MS, EventStore, Taken
from headrace.events.subscriptions import ALIAS, VERSION, Subscription
from headrace.settings import Settings
from headrace.sweeps import again_and_again

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks for what is due
PATIENCE_SECONDS = 1.0  # a receiver that takes longer is told beside the next rounds
AT_ONCE = 20
ANSWER_SECONDS = 15.0
FIRST_WAIT, LONGEST_WAIT = 5.0, 3600.0  # seconds between two attempts, doubled each time
GIVE_UP_MS = 24 * 3600 * 1000
FORGET_SECONDS = 3600.0

_RUN = Sql("""
SELECT r.name, r.status, r.start_time, r.end_time, r.experiment_id, e.name AS experiment_name, e.workspace
FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id WHERE r.run_uuid = :run_id
""")
_METRICS = Sql("SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = :run_id ORDER BY key LIMIT 100")
_VERSION = Sql("""
SELECT source, run_id, description FROM model_versions
WHERE workspace = :workspace AND name = :name AND version = :version
""")
_TAGS = Sql("""
SELECT key, value FROM model_version_tags
WHERE workspace = :workspace AND name = :name AND version = :version ORDER BY key
""")


class Untold(Exception):
    """It was not taken. The text says why; `wait`: how many seconds the receiver wants to be left alone."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class Sender:
    """Tells events over HTTPS; `allow_private`: over HTTP and to any address, too."""

    def __init__(self, allow_private: bool) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=AT_ONCE,
            max_keepalive_connections=0,  # an address is looked at anew each time
            network_backend=PublicOnly(allow_private),
        )
        self._allow_private = allow_private

    async def tell(self, to: Subscription, delivery_id: str, event: Event, workspace: str | None = None) -> int:
        """The status of the answer, a 2xx. Raises Untold."""
        if not to.url:
            raise Untold(f"its URL was encrypted with another {KEY_VARIABLE}: set that, or add {to.name} again")
        if urlsplit(to.url).scheme != "https" and not self._allow_private:
            raise Untold("http:// is for --events-allow-private only")
        content = formats.body(to.format, event, to.link, workspace)
        headers = formats.headers(delivery_id, int(time.time()), content, to.secret)
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._pool.stream("POST", to.url, headers=headers, content=content) as answer,
            ):
                status, wait = answer.status, _retry_after(answer.headers)
        except TimeoutError:
            raise Untold(f"no answer within {ANSWER_SECONDS:g} s") from None
        except (
            httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol,
            ssl.SSLError, OSError, ValueError,
        ) as error:  # fmt: skip
            raise Untold(str(error) or type(error).__name__) from None
        if not 200 <= status < 300:
            raise Untold(f"the answer was {status}", wait)
        return status

    async def close(self) -> None:
        """End its connections."""
        await self._pool.aclose()


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return min(float(value), LONGEST_WAIT)
    return 0.0


async def try_out(store: EventStore, name: str, kind: str | None, allow_private: bool) -> int:
    """Tell a subscription of an event that never was; the status of the answer. Raises Untold, NotFound."""
    found = [each for each in await store.subscriptions(with_secrets=True) if each.name == name]
    if not found:
        raise NotFound(f"There is no subscription {name}. `headrace events list` shows which there are.")
    [to] = found
    kind = kind or to.kinds[0]
    sender = Sender(allow_private)
    try:
        return await sender.tell(to, str(uuid.uuid4()), Event(kind, now_ms(), formats.example(kind)))
    finally:
        await sender.close()


async def keep(db: Database, settings: Settings, events: Events) -> None:
    """Deliver what is due, until it is cancelled; only `events` is looked at where nobody has subscribed."""
    delivery = Delivery(db, settings)
    forgotten = 0.0

    async def look() -> None:
        nonlocal forgotten
        if not events.by_kind:
            return
        while await delivery.round():
            pass
        if time.monotonic() - forgotten > FORGET_SECONDS or not forgotten:
            await EventStore(db).forget()
            forgotten = time.monotonic()

    try:
        await again_and_again(look, LOOK_SECONDS, "events can't be delivered")
    finally:
        await delivery.close()


class Delivery:
    """Deliveries of one process."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db, self._store = db, EventStore(db)
        self._allow_private, self._workspaces = settings.events_allow_private, settings.enable_workspaces
        self._sender: Sender | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}  # by receiver

    async def round(self) -> int:
        """Begin some of the deliveries that are due, and wait a while for them; how many there were.

        A receiver is told of one thing at a time, and one that is slow holds up no other.
        """
        await self._wait()
        taken = await self._store.take(AT_ONCE - len(self._under_way), list(self._under_way))
        if not taken:
            return 0
        try:
            known = {each.id: each for each in await self._store.subscriptions(with_secrets=True)}
        except HeadraceError as error:
            for each in taken:
                await self._store.failed(each, str(error), now_ms() + int(LONGEST_WAIT * 1000))
            raise
        # the first to each receiver, then its others: one that is away costs one attempt
        by_receiver: dict[str, list[Taken]] = {}
        for each in sorted(taken, key=lambda each: each.at):
            by_receiver.setdefault(each.subscription_id, []).append(each)
        for to, theirs in by_receiver.items():
            self._under_way[to] = asyncio.create_task(self._to_one(known.get(to), theirs))
        await self._wait(PATIENCE_SECONDS)
        return len(taken)

    async def _wait(self, seconds: float = 0.0) -> None:
        """For all that are under way, so long at most. Raises what one of them did."""
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=seconds)
        ended = {to: task for to, task in self._under_way.items() if task.done()}
        for to in ended:
            del self._under_way[to]
        await asyncio.gather(*ended.values())

    async def _to_one(self, to: Subscription | None, theirs: list[Taken]) -> None:
        if to is None:  # removed meanwhile, and its deliveries with it
            return
        began = now_ms()
        for place, each in enumerate(theirs):
            if now_ms() - began > LEASE_MS / 2:  # they come again when nobody has them any more
                return
            try:
                await self._make(to, each)
            except Untold as error:
                later = now_ms() + int(max(wait_of(each.attempts), error.wait) * 1000)
                gives_up = now_ms() - each.at > GIVE_UP_MS
                logger.warning("event %s to %s: %s%s", each.kind, to.name, error, "; given up" if gives_up else "")
                await self._store.failed(each, str(error), None if gives_up else later)
                for other in theirs[place + 1 :]:
                    await self._store.failed(other, str(error), later)
                return
            await self._store.done(each)

    async def _make(self, to: Subscription, taken: Taken) -> None:
        data = msgspec.json.decode(taken.data)
        workspace, data = await self._filled(taken.kind, data)
        if self._sender is None:
            self._sender = await asyncio.to_thread(Sender, self._allow_private)
        event = Event(taken.kind, taken.at, data)
        await self._sender.tell(to, taken.id, event, workspace if self._workspaces else None)

    async def _filled(self, kind: str, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The workspace, and what the database says of it now."""
        if kind in (VERSION, ALIAS):
            workspace = data["workspace"]
            if kind == ALIAS:
                return workspace, without(data, "workspace")
            key = {"workspace": workspace, "name": data["name"], "version": int(data["version"])}
            rows, tags = await self._db.rows_of(_VERSION(**key), _TAGS(**key))
            found = dict(zip(("source", "run_id", "description"), rows[0] if rows else (None,) * 3, strict=True))
            return workspace, without(data, "workspace") | found | {"tags": {row[0]: row[1] for row in tags}}
        runs, metrics = await self._db.rows_of(_RUN(run_id=data["run_id"]), _METRICS(run_id=data["run_id"]))
        if not runs:  # gone for good meanwhile
            return "default", data
        run = runs[0]
        return run["workspace"] or "default", {
            "run_id": data["run_id"],
            "run_name": run["name"],
            "experiment_id": str(run["experiment_id"]),
            "experiment_name": run["experiment_name"],
            "status": run["status"],
            "start_time": run["start_time"],
            "end_time": run["end_time"],
            "metrics": {row[0]: "NaN" if row[2] else row[1] for row in metrics},
        } | data

    async def close(self) -> None:
        """Leave what is under way, and end its connections."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        if self._sender is not None:
            with contextlib.suppress(Exception):
                await self._sender.close()


def wait_of(attempts: int) -> float:
    """Seconds until the next attempt after so many, a quarter more or less, so that not all come at once."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 20)) * random.uniform(0.75, 1.25)  # noqa: S311
