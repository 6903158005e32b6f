"""--quota: what is counted, by whom, and what is full."""

from __future__ import annotations

import pytest

from headrace.auth.objects import ObjectRef
from headrace.db.database import Database as Store
from headrace.errors import QuotaExceeded
from headrace.quotas import Quotas
from headrace.settings import Settings
from tests.contract.world import World, run_id


def quotas(world: World, store: Store, quota: str, every: float = 3600) -> Quotas:
    return Quotas(Settings(quota=quota, quota_every=every, artifacts_destination=str(world.folder)), store)


async def test_an_experiment_that_is_full(world: World, store: Store) -> None:
    world.experiment(1)
    world.experiment(2)
    for letter in "ab":
        world.run(letter, 1, metrics=2)
    world.run("c", 2, metrics=3)
    of_server, of_another = (quotas(world, store, "metrics=3,artifacts=1GB;e2:artifacts=0") for _ in range(2))
    await of_server._set_up()
    await of_another._set_up()
    await of_server.count()
    run, other = ObjectRef("run", run_id("a")), ObjectRef("run", run_id("c"))
    with pytest.raises(QuotaExceeded) as raised:
        await of_server.check("metrics", [run])
    assert str(raised.value).startswith(
        "Experiment e1 (1) is full: its metrics are 4 points, 1 points more than the 3 points of --quota. Delete runs"
    )
    assert (raised.value.status, raised.value.content()["error_code"]) == (507, "QUOTA_EXCEEDED")
    await of_server.check("artifacts", [run, ObjectRef("experiment", "1"), ObjectRef("run", "f" * 32)])
    await of_server.check("metrics", [other])
    with pytest.raises(QuotaExceeded, match="its artifacts are 1 B, 1 B more than the 0 B"):
        await of_server.check("artifacts", [ObjectRef("experiment", "2")])

    assert of_another.full == {}
    await of_another.read()
    assert of_another.full == of_server.full, "all workers know what one has counted"


async def test_one_server_at_a_time_counts_and_what_is_full_more_often(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.experiment(1)
    world.experiment(2)
    world.run("a", 1, metrics=5)
    world.run("b", 2, metrics=3)
    counted = quotas(world, store, "metrics=3", every=3600)
    await counted._set_up()
    await counted.count()
    assert set(counted.full) == {1}
    world.database.execute("DELETE FROM metrics WHERE step > 0")
    await counted.count()
    assert set(counted.full) == {1}, "it is not time yet"
    world.database.execute("UPDATE headrace_usage SET counted_at = counted_at - 301000")
    world.run("c", 2, metrics=9)
    await counted.count()
    assert counted.full == {}, "what was full was counted, and the others not"
    world.database.execute("UPDATE headrace_usage SET counted_at = counted_at - 3600000")
    await counted.count()
    assert set(counted.full) == {2}


async def test_files_that_cannot_be_listed_are_no_quota(world: World, store: Store) -> None:
    world.experiment(1)
    world.run("a", 1)
    world.database.execute("UPDATE experiments SET artifact_location = 'gs://bucket/1' WHERE experiment_id = 1")
    counted = quotas(world, store, "artifacts=0,metrics=0")
    await counted._set_up()
    await counted.count()
    assert set(counted.full[1]) == {"metrics"}
