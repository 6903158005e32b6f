"""Events in the database: who is told, each delivery by one process, again until it is taken."""

from __future__ import annotations

import asyncio
import string
from typing import Any

import pytest
from cryptography.fernet import Fernet

from headrace.clock import now_ms
from headrace.db.database import Database as Store
from headrace.errors import AlreadyExists, ConfigurationError, Unavailable
from headrace.events import delivery as delivering
from headrace.events import store as stored
from headrace.events.delivery import Delivery, Untold
from headrace.events.formats import Event
from headrace.events.notes import Events
from headrace.events.store import KEY_VARIABLE, EventStore, new_id
from headrace.events.subscriptions import ALIAS, METRIC, VERSION, Subscription
from headrace.resources.runs.log_plan import MetricRow
from headrace.settings import Settings
from tests.contract.world import World, run_id
from tests.support.databases import Database


def subscription(name: str, *kinds: str, **fields: Any) -> Subscription:
    known: dict[str, Any] = {"format": "webhook", "created_at": 1, "url": "https://h.example/secret", "secret": "s 3"}
    return Subscription(id=new_id(), name=name, kinds=kinds, **known | fields)


async def told(store: Store, *subscriptions: Subscription) -> tuple[EventStore, Events]:
    """The subscriptions added, and a worker that knows of them."""
    events = Events()
    kept = EventStore(store)
    events._store = kept
    for each in subscriptions:
        await kept.add(each)
    await events.refresh()
    return kept, events


class Receiver:
    """Stands in the place of what sends."""

    def __init__(self, *errors: str) -> None:
        self.errors, self.got = list(errors), []  # type: list[str], list[tuple[str, str, Event, str | None]]

    async def tell(self, to: Subscription, delivery_id: str, event: Event, workspace: str | None = None) -> int:
        if self.errors:
            raise Untold(self.errors.pop(0))
        self.got.append((to.name, delivery_id, event, workspace))
        return 200


def delivery(store: Store, receiver: Receiver) -> Delivery:
    made = Delivery(store, Settings())
    made._sender = receiver  # type: ignore[assignment]
    return made


async def test_nobody(store: Store) -> None:
    kept, events = EventStore(store), Events()
    events._store = kept
    assert await kept.subscriptions() == []
    assert await kept.counts() == {}
    assert not await kept.remove("x")
    await events.refresh()
    assert not events.subscribed.is_set()


async def test_what_is_secret_is_encrypted(store: Store, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _ = await told(store, subscription("a", VERSION))
    with pytest.raises(AlreadyExists, match="a subscription a already"):
        await kept.add(subscription("a", ALIAS))
    [row] = database.query("SELECT url, secret FROM headrace_events")
    assert "secret" not in row["url"]
    assert "s 3" not in row["secret"]  # what is encrypted has no spaces: it is not there by chance
    [known] = await kept.subscriptions()
    assert (known.url, known.secret) == ("", "")
    [known] = await kept.subscriptions(with_secrets=True)
    assert (known.url, known.secret) == ("https://h.example/secret", "s 3")

    monkeypatch.setenv(KEY_VARIABLE, Fernet.generate_key().decode())
    await kept.add(subscription("b", VERSION))
    assert [each.url for each in await kept.subscriptions(with_secrets=True)] == ["https://h.example/secret"] * 2
    monkeypatch.setenv(KEY_VARIABLE, Fernet.generate_key().decode())
    assert [each.url for each in await kept.subscriptions(with_secrets=True)] == ["https://h.example/secret", ""]
    monkeypatch.setenv(KEY_VARIABLE, "no key")
    with pytest.raises(ConfigurationError, match="no key of Fernet"):
        await kept.subscriptions(with_secrets=True)


async def test_runs(store: Store, world: World) -> None:
    world.experiment(1)
    world.experiment(2)
    world.run("a", 1)
    world.run("b", 2)
    kept, events = await told(
        store, subscription("all", "run.failed", "run.finished"), subscription("one", "run.failed", experiment_id=1)
    )
    await events.run_changed(run_id("a"), "FAILED", 5)
    await events.run_changed(run_id("a"), "FAILED", 5)  # the same request once more
    await events.run_changed(run_id("b"), "FAILED", 5)
    await events.run_changed(run_id("b"), "RUNNING", None)
    receiver = Receiver()
    assert await delivery(store, receiver).round() == 3
    assert sorted((to, event.data["run_id"][0]) for to, _, event, _ in receiver.got) == [
        ("all", "a"), ("all", "b"), ("one", "a"),
    ]  # fmt: skip
    [data] = [event.data for to, _, event, _ in receiver.got if to == "one"]
    assert data["status"] == "FAILED"
    assert (data["experiment_id"], data["experiment_name"], data["metrics"]) == ("1", "e1", {"m": 1.0})
    assert await delivery(store, receiver).round() == 0
    counts = await kept.counts()
    assert sorted(each.delivered for each in counts.values()) == [1, 2]


async def test_a_slow_receiver_holds_up_no_other(store: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "PATIENCE_SECONDS", 0.01)
    world.experiment(1)
    letters = [*string.ascii_lowercase, *"0123"]
    for each in letters:
        world.run(each, 1)
    _, events = await told(store, subscription("slow", "run.failed"), subscription("quick", "run.failed"))
    for each in letters:
        await events.run_changed(run_id(each), "FAILED", 5)
    answer = asyncio.Event()

    class Slow(Receiver):
        async def tell(self, to: Subscription, delivery_id: str, event: Event, workspace: str | None = None) -> int:
            if to.name == "slow":
                await answer.wait()
            return await super().tell(to, delivery_id, event, workspace)

    receiver = Slow()
    made = delivery(store, receiver)
    async with asyncio.timeout(60):
        while len(receiver.got) < 30:
            await made.round()
        assert {to for to, *_ in receiver.got} == {"quick"}
        answer.set()
        while len(receiver.got) < 60:
            await made.round()
    assert len({delivery_id for _, delivery_id, *_ in receiver.got}) == 60
    await made.close()


async def test_a_threshold_is_passed_once_a_run(store: Store, world: World) -> None:
    world.experiment(1)
    for letter in "ab":
        world.run(letter, 1)
    _, events = await told(store, subscription("low", METRIC, metric="loss", below=0.5))
    _, another_worker = Events(), Events()
    another_worker._store = events._store
    await another_worker.refresh()
    for worker in (events, another_worker):
        await worker.logged(run_id("a"), [MetricRow("loss", 0.5, 1, 1), MetricRow("acc", 0.1, 1, 1)])
        await worker.logged(run_id("a"), [MetricRow("loss", 0.0, 1, 1, is_nan=True)])
        await worker.logged(run_id("a"), [MetricRow("loss", 0.4, 1, 2)])
        await worker.logged(run_id("a"), [MetricRow("loss", 0.3, 1, 3)])
    await events.logged(run_id("b"), [MetricRow("loss", -1.0, 1, 1)])
    receiver = Receiver()
    assert await delivery(store, receiver).round() == 2
    values = {event.data["run_id"][0]: (event.data["value"], event.data["step"]) for _, _, event, _ in receiver.got}
    assert values == {"a": (0.4, 2), "b": (-1.0, 1)}


async def test_models(store: Store) -> None:
    _, events = await told(store, subscription("m", VERSION, ALIAS))
    await events.version_made("default", "cat", 1)
    await events.version_made("default", "cat", 1)
    await events.alias_moved("default", "cat", "champion", 1, at=5)
    receiver = Receiver()
    assert await delivery(store, receiver).round() == 2
    assert {event.kind: event.data for _, _, event, _ in receiver.got} == {
        VERSION: {"name": "cat", "version": "1", "source": None, "run_id": None, "description": None, "tags": {}},
        ALIAS: {"name": "cat", "alias": "champion", "version": "1"},
    }


async def test_several_processes_take_each_once(store: Store) -> None:
    kept, events = await told(store, subscription("m", VERSION))
    for number in range(30):
        await events.version_made("default", "cat", number)
    taken = [each.id for group in await asyncio.gather(*(kept.take(7) for _ in range(6))) for each in group]
    assert len(taken) == len(set(taken)) == 30


async def test_what_was_under_way_in_a_process_that_died_comes_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, events = await told(store, subscription("m", VERSION))
    await events.version_made("default", "cat", 1)
    [first] = await kept.take(10)
    assert await kept.take(10) == []
    now = now_ms()
    monkeypatch.setattr(stored, "now_ms", lambda: now + stored.LEASE_MS + 1)
    [second] = await kept.take(10)
    assert (second.id, first.attempts, second.attempts) == (first.id, 1, 2)


async def test_again_until_it_is_taken(store: Store, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, events = await told(store, subscription("m", VERSION), subscription("other", VERSION))
    for number in (1, 2, 3):
        await events.version_made("default", "cat", number)
    database.execute("""
        DELETE FROM headrace_deliveries WHERE subject LIKE '% 3'
        AND subscription_id = (SELECT id FROM headrace_events WHERE name = 'other')""")

    class Broken(Receiver):
        async def tell(self, to: Subscription, delivery_id: str, event: Event, workspace: str | None = None) -> int:
            self.errors = ["the answer was 500"] if to.name == "m" else []
            return await super().tell(to, delivery_id, event, workspace)

    receiver = Broken()
    assert await delivery(store, receiver).round() == 5
    assert [to for to, *_ in receiver.got] == ["other", "other"], "who is well gets theirs"
    assert await kept.take(10) == [], "and who is not is left alone for a while"
    counts = {each.name: (await kept.counts())[each.id] for each in await kept.subscriptions()}
    assert (counts["m"].waiting, counts["m"].delivered, counts["m"].error) == (3, 0, "the answer was 500")
    database.execute("UPDATE headrace_deliveries SET next_at = 1 WHERE next_at IS NOT NULL")
    well = Receiver()
    assert await delivery(store, well).round() == 3
    assert sorted(event.data["version"] for _, _, event, _ in well.got) == ["1", "2", "3"]

    await events.version_made("default", "cat", 9)
    database.execute("UPDATE headrace_deliveries SET at = 1 WHERE next_at IS NOT NULL")
    await delivery(store, Receiver("no", "no")).round()
    assert [each.given_up for each in (await kept.counts()).values()] == [1, 1]
    await kept.forget()
    assert [each.given_up for each in (await kept.counts()).values()] == [0, 0]
    assert await kept.remove("m")
    assert [each.name for each in await kept.subscriptions()] == ["other"]
    assert database.query("SELECT count(*) AS rows FROM headrace_deliveries") == [{"rows": 2}]


async def test_a_note_that_the_database_did_not_take_is_noted_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, events = await told(store, subscription("m", VERSION))

    async def away(self: EventStore, notes: Any) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(EventStore, "note", away)
        await events.version_made("default", "cat", 1)
    assert await kept.take(10) == []
    await events.refresh()
    assert len(await kept.take(10)) == 1
