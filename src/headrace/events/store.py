"""The tables headrace_events (who is told what) and headrace_deliveries (what is to be told), on both backends.

A delivery is taken by pushing its next time out for LEASE_MS in the statement that finds it: several instances take
each once, and what was under way in one that died comes again.
"""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from headrace.clock import now_ms
from headrace.db import own_tables
from headrace.db.database import Database
from headrace.db.names import names_of_experiments
from headrace.db.query import Bound, Sql
from headrace.errors import AlreadyExists, ConfigurationError
from headrace.events.subscriptions import Subscription

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_VARIABLE = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
LEASE_MS = 120_000
KEPT_MS = 30 * 24 * 3600 * 1000  # what was told, or given up
_TABLES = (
    """CREATE TABLE IF NOT EXISTS headrace_events (
  id varchar(32) PRIMARY KEY, name varchar(256) NOT NULL UNIQUE, format varchar(16) NOT NULL, kinds text NOT NULL,
  created_at bigint NOT NULL, url text NOT NULL, secret text NOT NULL, experiment_id integer, metric varchar(250),
  above double precision, below double precision, link text NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS headrace_deliveries (
  id varchar(36) PRIMARY KEY, subscription_id varchar(32) NOT NULL REFERENCES headrace_events (id) ON DELETE CASCADE,
  kind varchar(64) NOT NULL, subject varchar(1000) NOT NULL, data text NOT NULL, at bigint NOT NULL,
  attempts integer NOT NULL, next_at bigint, delivered_at bigint, error varchar(500),
  UNIQUE (subscription_id, subject))""",
    "CREATE INDEX IF NOT EXISTS headrace_deliveries_next ON headrace_deliveries (next_at)",
    "CREATE TABLE IF NOT EXISTS headrace_events_key (id integer PRIMARY KEY, value varchar(64) NOT NULL)",
)
_KEY = Sql("SELECT value FROM headrace_events_key WHERE id = 1")
_SET_KEY = Sql("INSERT INTO headrace_events_key (id, value) VALUES (1, :value) ON CONFLICT (id) DO NOTHING")
_FIELDS = "id, name, format, kinds, created_at, url, secret, experiment_id, metric, above, below, link"
_ALL = Sql(f"SELECT {_FIELDS} FROM headrace_events ORDER BY name")
_ADD = Sql(f"""
INSERT INTO headrace_events ({_FIELDS})
VALUES (:id, :name, :format, :kinds, :created_at, :url, :secret, :experiment_id, :metric, :above, :below, :link)
ON CONFLICT (name) DO NOTHING RETURNING 1
""")
_REMOVE = (
    Sql("""
DELETE FROM headrace_deliveries WHERE subscription_id IN (SELECT id FROM headrace_events WHERE name = :name)
"""),
    Sql("DELETE FROM headrace_events WHERE name = :name RETURNING 1"),
)
_NOTE = """
INSERT INTO headrace_deliveries (id, subscription_id, kind, subject, data, at, attempts, next_at)
SELECT CAST(:id AS varchar), s.id, CAST(:kind AS varchar), CAST(:subject AS varchar), CAST(:data AS text),
  CAST(:at AS bigint), 0, CAST(:at AS bigint)
FROM headrace_events s WHERE s.id = :subscription_id{of_run}
ON CONFLICT (subscription_id, subject) DO NOTHING
"""
NOTE = Sql(_NOTE.format(of_run=""))
NOTE_OF_RUN = Sql(
    _NOTE.format(
        of_run="""
  AND EXISTS (SELECT 1 FROM runs r WHERE r.run_uuid = :run_id
    AND (s.experiment_id IS NULL OR r.experiment_id = s.experiment_id))"""
    )
)
_TAKEN = "id, subscription_id, kind, data, at, attempts"
_DUE = """
SELECT id FROM headrace_deliveries WHERE next_at <= :now AND subscription_id NOT IN :but ORDER BY next_at LIMIT :most"""
_TAKE = "UPDATE headrace_deliveries SET next_at = :until, attempts = attempts + 1 WHERE id IN ({due}) RETURNING {taken}"
TAKE = Sql(
    postgresql=_TAKE.format(due=f"{_DUE} FOR UPDATE SKIP LOCKED", taken=_TAKEN),
    sqlite=_TAKE.format(due=_DUE, taken=_TAKEN),
)
_DONE = Sql("UPDATE headrace_deliveries SET next_at = NULL, delivered_at = :now, error = NULL WHERE id = :id")
_FAILED = Sql("UPDATE headrace_deliveries SET next_at = :next_at, error = :error WHERE id = :id")
# The others for that receiver wait as long.
_PUT_OFF = Sql("""
UPDATE headrace_deliveries SET next_at = :next_at WHERE subscription_id = :subscription_id AND next_at < :next_at
""")
_FORGET = Sql("DELETE FROM headrace_deliveries WHERE next_at IS NULL AND at < :before")
_COUNTS = Sql("""
SELECT subscription_id, sum(CASE WHEN delivered_at IS NOT NULL THEN 1 ELSE 0 END) AS delivered,
  sum(CASE WHEN next_at IS NOT NULL THEN 1 ELSE 0 END) AS waiting,
  sum(CASE WHEN next_at IS NULL AND delivered_at IS NULL THEN 1 ELSE 0 END) AS given_up
FROM headrace_deliveries GROUP BY subscription_id
""")
_ERRORS = Sql("""
SELECT subscription_id, error, max(at) FROM headrace_deliveries WHERE error IS NOT NULL
GROUP BY subscription_id, error ORDER BY max(at)
""")
_EXPERIMENT = Sql("""
SELECT experiment_id FROM experiments WHERE name = :name OR CAST(experiment_id AS varchar) = :name
ORDER BY CASE WHEN name = :name THEN 0 ELSE 1 END
""")


class Taken(Struct, frozen=True):
    """A delivery that this process is to make. `attempts`: this one counts."""

    id: str
    subscription_id: str
    kind: str
    data: str
    at: int
    attempts: int


class Counted(Struct):
    """What became of a subscription's deliveries of the last 30 days; `error`: the newest of those that failed."""

    delivered: int = 0
    waiting: int = 0
    given_up: int = 0
    error: str = ""


class EventStore:
    """Works on the connections of a database. Every method may raise Declined, Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def set_up(self) -> None:
        """Make the tables, where they are missing."""
        from cryptography.fernet import Fernet

        tables = own_tables.making(self._db.dialect, *_TABLES)
        await self._db.transact([*tables, _SET_KEY(value=Fernet.generate_key().decode())])

    async def key(self) -> str:
        """The database's own, which is made where there is none: a role that may make no tables can read it."""
        if not await self.exists():
            await self.set_up()
        return str((await self._db.rows(_KEY()))[0][0])

    async def exists(self) -> bool:
        """Whether its tables are there: before that nobody has subscribed."""
        return bool(await self._db.rows(own_tables.exists("headrace_events_key")))

    async def add(self, subscription: Subscription) -> None:
        """Keep one, its URL and secret encrypted. Raises AlreadyExists."""
        await self.set_up()
        cipher = await self._cipher()
        fields = msgspec.structs.asdict(subscription) | {
            "kinds": msgspec.json.encode(subscription.kinds).decode(),
            "url": cipher.encrypt(subscription.url.encode()).decode(),
            "secret": cipher.encrypt(subscription.secret.encode()).decode() if subscription.secret else "",
        }
        [added] = await self._db.transact([_ADD(**fields)])
        if not added:
            raise AlreadyExists(f"There is a subscription {subscription.name} already.")

    async def remove(self, name: str) -> bool:
        """With what waits for it; False where there is none of that name."""
        if not await self.exists():
            return False
        _, removed = await self._db.transact([statement(name=name) for statement in _REMOVE])
        return bool(removed)

    async def subscriptions(self, with_secrets: bool = False) -> list[Subscription]:
        """All of them by name, their URLs and secrets only where they are asked for: empty where they were encrypted
        with another key. Raises ConfigurationError for a key that is none."""
        if not await self.exists():
            return []
        rows = [dict(row) for row in await self._db.rows(_ALL())]
        cipher = await self._cipher() if with_secrets and rows else None
        return [_subscription(row, cipher) for row in rows]

    async def counts(self) -> dict[str, Counted]:
        """By subscription."""
        counted: dict[str, Counted] = {}
        if not await self.exists():
            return counted
        for subscription_id, delivered, waiting, given_up in await self._db.rows(_COUNTS()):
            counted[subscription_id] = Counted(int(delivered), int(waiting), int(given_up))
        for subscription_id, error, _ in await self._db.rows(_ERRORS()):
            counted[subscription_id].error = error
        return counted

    async def experiment(self, name: str) -> int | None:
        """The id of an experiment of this name, or with this id."""
        rows = await self._db.rows(_EXPERIMENT(name=name))
        return int(rows[0][0]) if rows else None

    async def names(self, experiment_ids: Iterable[int]) -> dict[int, str]:
        """Of those experiments that there are."""
        return await names_of_experiments(self._db, experiment_ids)

    async def note(self, notes: Sequence[Bound]) -> None:
        """Keep them, all or none."""
        await self._db.transact(notes)

    async def take(self, most: int, but: Sequence[str] = ()) -> list[Taken]:
        """Deliveries that are due, which no other process takes for LEASE_MS. `but`: not to these subscriptions."""
        now = now_ms()
        [rows] = await self._db.transact([TAKE(now=now, until=now + LEASE_MS, most=most, but=list(but))])
        return [Taken(*row) for row in rows]

    async def done(self, taken: Taken) -> None:
        """It was taken by who it is for."""
        await self._db.transact([_DONE(id=taken.id, now=now_ms())])

    async def failed(self, taken: Taken, error: str, next_at: int | None) -> None:
        """It was not, and is tried again at `next_at` (milliseconds since 1970); None: never."""
        error = error.replace("\0", "")[:500]
        statements = [_FAILED(id=taken.id, error=error, next_at=next_at)]
        if next_at is not None:
            statements.append(_PUT_OFF(subscription_id=taken.subscription_id, next_at=next_at))
        await self._db.transact(statements)

    async def forget(self) -> None:
        """Drop what was told, or given up, KEPT_MS ago."""
        await self._db.transact([_FORGET(before=now_ms() - KEPT_MS)])

    async def _cipher(self) -> MultiFernet:
        """Encrypts with the variable's key where it is set, decrypts with that or the database's own."""
        from cryptography.fernet import Fernet, MultiFernet

        keys = [row[0] for row in await self._db.rows(_KEY())]
        if given := os.environ.get(KEY_VARIABLE):
            keys.insert(0, given)
        try:
            return MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise ConfigurationError(
                f"{KEY_VARIABLE} is no key of Fernet. Make one: python -c "
                "'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
            ) from None


def note(subscription: Subscription, kind: str, subject: str, data: dict[str, Any], run_id: str | None = None) -> Bound:
    """A row to be delivered; one with the same subject is there once."""
    values = {
        "id": str(uuid.uuid4()),
        "subscription_id": subscription.id,
        "kind": kind,
        "subject": subject,
        "data": msgspec.json.encode(data).decode(),
        "at": now_ms(),
    }
    return NOTE(**values) if run_id is None else NOTE_OF_RUN(run_id=run_id, **values)


def new_id() -> str:
    """Of a subscription."""
    return uuid.uuid4().hex


def new_secret() -> str:
    """To sign with: 256 random bits."""
    return secrets.token_urlsafe(32)


async def listed(store: EventStore) -> list[dict[str, Any]]:
    """The subscriptions for who looks at them, without what is secret."""
    counts, rows = await store.counts(), []
    subscriptions = await store.subscriptions(with_secrets=True)
    names = await store.names(each.experiment_id for each in subscriptions if each.experiment_id is not None)
    for each in subscriptions:
        fields = msgspec.structs.asdict(each)
        del fields["id"], fields["secret"], fields["link"]
        counted = counts.get(each.id, Counted())
        experiment = None if each.experiment_id is None else names.get(each.experiment_id)
        fields |= {"url": each.address, "experiment": experiment}
        rows.append(fields | msgspec.structs.asdict(counted) | {"error": counted.error or None})
    return rows


def _subscription(row: dict[str, Any], cipher: MultiFernet | None) -> Subscription:
    row["kinds"] = tuple(msgspec.json.decode(row["kinds"]))
    for field in ("url", "secret"):
        if cipher is None:
            row[field] = ""
        elif row[field]:
            row[field] = _decrypted(row[field], cipher)
    return Subscription(**row)


def _decrypted(text: str, cipher: MultiFernet) -> str:
    """Empty where it was encrypted with another key."""
    from cryptography.fernet import InvalidToken

    try:
        return cipher.decrypt(text.encode()).decode()
    except InvalidToken:
        return ""
