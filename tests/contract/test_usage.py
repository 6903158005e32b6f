"""Rows and bytes of each experiment: counted, shared out, and measured among the artifacts."""

from __future__ import annotations

import pytest

from headrace import usage
from headrace.artifacts.locations import Locations
from headrace.db.database import Database as Store
from headrace.errors import Declined
from headrace.settings import Settings
from headrace.usage import Usage, measure
from tests.contract.world import YOUNG, World, model_id, run_id


def counts(found: Usage) -> tuple[int, ...]:
    return tuple(getattr(found, what) for what in usage.COUNTED)


@pytest.fixture
def locations(world: World) -> Locations:
    return Locations(Settings(artifacts_destination=str(world.folder)), {})


async def test_experiments(world: World, store: Store, locations: Locations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "RUNS_AT_ONCE", 2)
    world.experiment(1)
    world.experiment(2, deleted=YOUNG)
    for letter in "abc":
        world.run(letter, 1, metrics=5)
    world.run("d", 2, deleted=YOUNG)
    world.model("a", 1)
    world.file("2/traces/t2/artifacts/traces.json")
    told: list[tuple[int, int]] = []
    sizes: dict[str, int] = {}
    look = usage._sizes

    async def seen(db: Store) -> dict[str, int] | None:
        """A table that autovacuum comes to is larger a moment later."""
        found = await look(db)
        sizes.update(found or {})
        return found

    monkeypatch.setattr(usage, "_sizes", seen)
    found = await measure(store, locations, told=lambda done, of: told.append((done, of)))
    assert told[-1] == (3, 3)
    assert [each.experiment_id for each in found] == [1, 2, 0]
    one, two, default = found
    assert usage.COUNTED == ("runs", "metrics", "params", "tags", "logged_models", "traces", "spans")
    assert counts(one) == (3, 15, 3, 3, 1, 1, 1)
    assert counts(two) == (1, 3, 1, 1, 0, 1, 1)
    assert counts(default) == (0, 0, 0, 0, 0, 0, 0)
    assert (one.lifecycle_stage, two.lifecycle_stage, one.name) == ("active", "deleted", "e1")
    assert (one.artifacts, one.artifact_bytes) == (4, 4)
    assert (two.artifacts, two.artifact_bytes) == (2, 2)
    assert one.database_bytes is not None
    assert two.database_bytes is not None
    assert one.database_bytes > two.database_bytes > 0
    assert default.database_bytes == 0
    # what is shared out is what there is
    assert one.database_bytes + two.database_bytes == pytest.approx(sum(sizes.values()), abs=5)


async def test_one_of_them_and_no_files(world: World, store: Store, locations: Locations) -> None:
    world.experiment(1)
    world.run("a", 1)
    for only in ("1", "e1"):
        (found,) = await measure(store, None, [only])
        assert (found.experiment_id, found.runs, found.artifacts, found.artifact_bytes) == (1, 1, None, None)
    with pytest.raises(Declined, match="There is no experiment e2"):
        await measure(store, locations, ["e1", "e2"])


async def test_in_a_folder_of_the_users_choice_the_runs_are_measured(
    world: World, store: Store, locations: Locations
) -> None:
    world.experiment(1)
    world.run("a", 1)
    world.model("a", 1)
    world.file("1/of-somebody-else")
    world.database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/shared/1/x'")
    (found,) = await measure(store, locations, ["1"])
    assert (found.artifacts, found.artifact_bytes) == (2, 2)
    assert {run_id("a"), model_id("a")} <= {part for file in world.files for part in file.split("/")}


async def test_where_headrace_does_not_reach_it_says_so(world: World, store: Store, locations: Locations) -> None:
    world.experiment(1)
    world.database.execute("UPDATE experiments SET artifact_location = 'gs://bucket/1' WHERE experiment_id = 1")
    (found,) = await measure(store, locations, ["1"])
    assert found.artifacts is None
    assert found.why == "its files are at gs://bucket/1: no native store for gs"
