"""Commands that are killed after each of their changes in turn, and run again: the end is that of an unbroken run.

AWS is moto's account. The servers and the database behind it are fakes here, since nothing of them matters but what was
asked of them: the real ones are in test_commands.py, test_upgrade.py and the rehearsal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from headrace.aws import down, execute, hosts, journal, plan, restore, server_settings, stacks, status, upgrade
from headrace.aws.client import Answer, Cloud
from headrace.aws.deployment import Choices
from headrace.errors import AwsError, ConfigurationError, SchemaOutOfDate
from tests.aws.conftest import REGION, Account

NAME = "mlflow"
ONE, TWO, THREE = (f"example.org/headrace@sha256:{64 * digit}" for digit in "123")
READS = ("describe_", "get_", "list_", "batch_get_", "delete_change_set")  # the last takes back a proposal
NAMED = (
    *("StackName", "InstanceIds", "Name", "DBSnapshotIdentifier", "NewDBInstanceIdentifier", "DBInstanceIdentifier"),
    *("Bucket", "repositoryName", "AutoScalingGroupName"),
)


RESUMED = "the group replaces unhealthy hosts again"


class Killed(BaseException):
    """As by `kill -9`: nothing of the command runs any more."""


class MortalCloud(Cloud):
    """Dies right after the first change that none of the runs before it has died after."""

    def __init__(self, living: Cloud, died_after: list[str], told: dict[str, str]) -> None:
        super().__init__(REGION, endpoint_url=living.endpoint_url)
        self._clients = living._clients  # they know nothing of a command
        self.died_after = died_after
        self.told = told
        self.dead = False

    def call(self, service: str, operation: str, **arguments: Any) -> Answer:
        if self.dead:  # who was killed does not clean up
            raise Killed
        answer = super().call(service, operation, **arguments)
        if operation == "send_command":
            image = re.search("HEADRACE_IMAGE=(.*)", arguments["Parameters"]["commands"][0])
            self.told[arguments["InstanceIds"][0]] = image[1] if image else arguments["Comment"]
        if not operation.startswith(READS):
            what = next((arguments[name] for name in NAMED if name in arguments), "")
            what = what[0] if isinstance(what, list) else what
            migrating = "migrating" if '"migrating": true' in arguments.get("Value", "") else ""
            self.changed(f"{operation} {what} {arguments.get('Comment', '')}{migrating}")
        return answer

    def changed(self, what: str) -> None:
        """A change that is not AWS's, too."""
        if what not in self.died_after:
            self.died_after.append(what)
            self.dead = True
            raise Killed


class World:
    """The hosts' servers and the database: what they were told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.role_made = False
        self.migrated = True
        self.cloud: MortalCloud | None = None
        for name, fake in {
            "headrace.aws.client.time.sleep": lambda _: None,
            "headrace.aws.execute._answers": lambda *_: self.role_made,
            "headrace.aws.execute.tunnel.opened": self.tunnel,
            "headrace.aws.execute.trial.round_trip": lambda *_: "run",
            "headrace.aws.database.make_role": self.make_role,
            "headrace.aws.database.as_master": self.tunnel,
            "headrace.database.prepare": self.prepare,
            "headrace.database.upgrade": self.migrate,
        }.items():
            monkeypatch.setattr(name, fake)

    @contextmanager
    def tunnel(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield type("Tunnel", (), {"port": 1})

    def make_role(self, *_: Any) -> None:
        self.role_made = True
        self.changed("make_role")

    def prepare(self, *_: Any) -> None:
        if not self.migrated:
            raise SchemaOutOfDate("The schema is of an older MLflow.")

    def migrate(self, *_: Any) -> None:
        self.migrated = True
        self.changed("migrate")

    def changed(self, what: str) -> None:
        if self.cloud is not None:
            self.cloud.changed(what)


class Deployment:
    """A deployment with two hosts, and commands on it that are killed again and again."""

    def __init__(self, account: Account, world: World) -> None:
        self.world = world
        self.cloud = account.cloud()
        self.told: dict[str, str] = {}

    def mortal(self, died_after: list[str]) -> MortalCloud:
        return MortalCloud(self.cloud, died_after, self.told)

    def kill(self, command: Callable[[Cloud], object]) -> list[str]:
        """Run the command until it ends, killed after one change more each time; the changes, in their order."""
        died_after: list[str] = []
        for _ in range(30):
            self.world.cloud = self.mortal(died_after)
            try:
                command(self.world.cloud)
            except Killed:
                continue
            self.world.cloud = None
            return died_after
        raise AssertionError(f"it never ended: {died_after}")

    def app(self) -> stacks.Stack:
        return execute.required(self.cloud, f"{NAME}-app")

    def images(self) -> tuple[str, str]:
        """What the stack says: the image, and what `rollback` goes back to."""
        parameters = self.app().parameters
        return parameters["Image"], parameters["PreviousImage"]

    def served(self) -> dict[str, str]:
        """Host -> the image that it was told to put into service, or what else it was told last."""
        return {host.id: self.told.get(host.id, "") for host in hosts.find(self.cloud, self.app())}


def say(_: str) -> None:
    """Nobody listens."""


def up(**chosen: Any) -> Callable[[Cloud], object]:
    def command(cloud: Cloud) -> None:
        live = execute.Live(cloud, say)
        for step in plan.up(cloud, Choices(**chosen), say):
            live.take(step)

    return command


def put(image: str) -> Callable[[Cloud], object]:
    return lambda cloud: upgrade.upgrade(cloud, NAME, image, say)


def back(cloud: Cloud) -> str:
    return upgrade.rollback(cloud, NAME, say)


@pytest.fixture
def deployment(account: Account, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    return Deployment(account, World(monkeypatch))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ConnectionResetError, SystemExit])
def test_the_servers_come_back_however_the_migrations_end(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    cloud, world, said = deployment.cloud, deployment.world, list[str]()
    run, done = hosts.run, list[str]()
    fails_at = "migrate"

    def fail(what: str) -> None:
        if what.startswith(fails_at):
            raise failure

    def run_unless(cloud: Cloud, host: str, commands: str, what: str, say: stacks.Say) -> str:
        fail(what)
        done.append(what)
        return run(cloud, host, commands, what, say)

    def migrate(*_: Any) -> None:
        fail("migrate")
        world.migrated = True

    monkeypatch.setattr(hosts, "run", run_unless)
    monkeypatch.setattr("headrace.database.upgrade", migrate)
    up(image=ONE)(cloud)
    for fails_at in ("stop", "migrate"):
        world.migrated = False
        done.clear()
        with pytest.raises(failure):
            upgrade.upgrade(cloud, NAME, TWO, said.append)
        assert done == [*(["stop the server"] if fails_at == "migrate" else []), "start the server again"]
        assert said[-2:] == ["The servers run again, on the database as it was.", RESUMED]
        assert cloud.parameter(f"/{NAME}/IMAGE") is None, "a host that comes now must start the old image"
        assert (record := journal.read(cloud, NAME)) is None or not record.migrating

    # once the database is migrated, no old server is started on it
    fails_at = "put "
    done.clear()
    with pytest.raises(failure):
        upgrade.upgrade(cloud, NAME, TWO, said.append)
    assert done == ["stop the server"]
    assert cloud.parameter(f"/{NAME}/IMAGE") == TWO

    # nobody can be asked whether it is: the servers are started, and the journal knows that it may be
    def unreachable(*_: Any) -> None:
        raise AwsError("the tunnel did not open")

    world.migrated, fails_at = False, "migrate"
    done.clear()
    with monkeypatch.context() as cut:
        tries = iter([world.prepare])
        cut.setattr("headrace.database.prepare", lambda *given: next(tries, unreachable)(*given))
        with pytest.raises(failure):
            upgrade.upgrade(cloud, NAME, TWO, said.append)
    assert done == ["stop the server", "start the server again"]
    assert "could not be looked at: the tunnel did not open" in "\n".join(said)
    assert (record := journal.read(cloud, NAME)) is not None
    assert record.migrating
    assert cloud.parameter(f"/{NAME}/IMAGE") == TWO


def test_a_restore_continues_after_it_was_killed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = deployment.cloud
    up(image=ONE)(cloud)
    data = execute.required(cloud, f"{NAME}-data")
    database, host = data.output("DatabaseId"), hosts.find(cloud, deployment.app())[0].id
    cloud.call("rds", "create_db_snapshot", DBInstanceIdentifier=database, DBSnapshotIdentifier="before")
    address = cloud.parameter(f"/{NAME}/DB_HOST")
    roles: list[str] = []
    monkeypatch.setattr("headrace.server_role.create_server_role", lambda _, user, __: roles.append(user))
    source = restore.Source(snapshot="before")
    found = deployment.kill(lambda cloud: restore.restore(cloud, NAME, source, say))
    new = f"{database}-restoring"
    assert [one.strip() for one in found] == [
        "restore_db_instance_from_db_snapshot before",
        f"modify_db_instance {new}",
        f"suspend_processes {deployment.app().output('Hosts')}",
        f"send_command {host} stop the server",
        f"modify_db_instance {restore.put_aside(cloud, data)[0]}",
        f"modify_db_instance {database}",
        f"send_command {host} start the server again",
        f"resume_processes {deployment.app().output('Hosts')}",  # or it would replace hosts whose server is stopped
        "add_tags_to_resource",
    ]
    assert roles[-1] == NAME
    assert len(restore.restore(cloud, NAME, source, say)) == 1, "it is in service: nothing is taken back once more"
    (old,) = restore.put_aside(cloud, data)
    made = cloud.call("rds", "describe_db_instances")["DBInstances"]
    assert {one["DBInstanceIdentifier"] for one in made} == {database, old}
    (now,) = [one for one in made if one["DBInstanceIdentifier"] == database]
    assert now["Endpoint"]["Address"] == address, "so that stack, alarms and parameters are as they should be"
    assert now["DeletionProtection"]
    assert status.status(cloud, NAME, drift=False)["put_aside"] == [old]
    with pytest.raises(AwsError, match="`headrace aws restore --delete-old` first"):
        down.down(cloud, NAME, say)
        down.delete_data(cloud, NAME, say)
    assert restore.delete_old(cloud, NAME, say) == [f"headrace-{NAME}-before-{old[-10:]}"]
    assert restore.put_aside(cloud, data) == []


def test_an_older_schema_is_migrated_for_the_image_that_runs(deployment: Deployment) -> None:
    """As that of a database which was adopted, or restored."""
    cloud, world = deployment.cloud, deployment.world
    up(image=ONE)(cloud)
    put(ONE)(cloud)
    assert cloud.call("rds", "describe_db_snapshots", SnapshotType="manual")["DBSnapshots"] == [], "it fits"
    world.migrated = False
    changes = deployment.kill(put(ONE))
    assert "migrate" in changes
    assert world.migrated
    assert len(cloud.call("rds", "describe_db_snapshots", SnapshotType="manual")["DBSnapshots"]) == 1
    assert deployment.images() == (ONE, "")
    assert set(deployment.served().values()) == {ONE}
    assert journal.read(cloud, NAME) is None


def test_every_command_continues_after_it_was_killed(deployment: Deployment) -> None:
    """One deployment from its beginning to its end, since each command stands on the one before.

    The words after a command are its changes, each of them one kill, in their order.
    """
    cloud, world = deployment.cloud, deployment.world
    data, app = ([f"{what}_change_set {NAME}-{part}" for what in ("create", "execute")] for part in ("data", "app"))
    journal, image = "parameter /mlflow/UPGRADE", "parameter /mlflow/IMAGE"

    def died(command: Callable[[Cloud], object], *points: str) -> None:
        found = deployment.kill(command)
        assert len(found) == len(points), found
        assert all(point in change for change, point in zip(found, points, strict=True)), found

    died(up(image=ONE), *data, "/mlflow/DB_PASS", "/mlflow/ADMIN_TOKEN", *app, "make_role")
    assert deployment.images() == (ONE, "")

    (old,) = deployment.served()
    died(up(size="team"), *data, *app, "start_instance_refresh")
    assert old not in deployment.served()
    group = deployment.app().output("Hosts")
    done = cloud.call("autoscaling", "describe_instance_refreshes", AutoScalingGroupName=group)["InstanceRefreshes"]
    assert [one["Status"] for one in done] == ["Successful"], "the second try waits for the first's"

    cloud.call("autoscaling", "set_desired_capacity", AutoScalingGroupName=group, DesiredCapacity=2)
    world.migrated = False
    died(
        put(TWO),
        f"put_{journal}",
        "create_db_snapshot",
        "suspend_processes",
        f"put_{journal} migrating",
        f"put_{image}",
        *2 * ["stop the server"],
        "migrate",
        *2 * [f"put {TWO}"],
        *app,
        "resume_processes",
        f"delete_{image}",
        f"delete_{journal}",
    )
    assert (deployment.images(), set(deployment.served().values())) == ((TWO, ONE), {TWO})
    assert len(cloud.call("rds", "describe_db_snapshots", SnapshotType="manual")["DBSnapshots"]) == 1

    died(back, "suspend_processes", *2 * [f"put {ONE}"], *app, "resume_processes")
    assert (deployment.images(), set(deployment.served().values())) == ((ONE, ONE), {ONE})

    died_after: list[str] = []
    while THREE not in deployment.served().values():  # an upgrade that gets as far as the first host, and is taken back
        with pytest.raises(Killed):
            put(THREE)(deployment.mortal(died_after))
    assert set(deployment.served().values()) == {ONE, THREE}
    with pytest.raises(ConfigurationError, match=f"`headrace aws upgrade {THREE}` continues it"):
        up()(cloud)
    found = status.status(cloud, NAME, drift=False)
    assert found["upgrade"]["target"] == THREE
    assert found["suspended"] == ["HealthCheck", "ReplaceUnhealthy", "AZRebalance"]
    died(back, "suspend_processes", *2 * [f"put {ONE}"], app[0], "resume_processes", f"delete_{journal}")
    assert status.status(cloud, NAME, drift=False)["suspended"] == []
    assert (deployment.images(), set(deployment.served().values())) == ((ONE, ONE), {ONE})
    assert plan.up(cloud, Choices(), say)

    kept = "put_parameter /mlflow/settings"
    died(
        up(settings={"grants": "true", "workers": "2"}),
        data[0],
        "put_parameter /mlflow/SETTINGS",
        f"{kept}/grants",
        f"{kept}/workers",
        app[0],
        *2 * ["see that the server runs with the settings"],
    )
    assert server_settings.find(cloud, NAME) == {"grants": "true", "workers": "2"}
    assert (server_settings.revision(cloud, NAME) or "").isdigit(), "no change is left half done"

    died(lambda cloud: down.down(cloud, NAME, say), "put_parameter /mlflow/APP", f"delete_stack {NAME}-app")
    assert stacks.find(cloud, f"{NAME}-app") is None
    bucket = execute.required(cloud, f"{NAME}-data").output("Bucket")
    cloud.call("s3", "put_object", Bucket=bucket, Key="1/artifact", Body=b"artifact")
    died(
        lambda cloud: down.delete_data(cloud, NAME, say),
        "modify_db_instance",
        "delete_objects",
        f"delete_bucket {bucket}",
        f"delete_repository {NAME}",
        "delete_parameter /mlflow/DB_PASS",
        "delete_parameter /mlflow/ADMIN_TOKEN",
        "delete_parameter /mlflow/SETTINGS",
        "delete_parameter /mlflow/APP",
        "delete_parameter /mlflow/settings/grants",
        "delete_parameter /mlflow/settings/workers",
        f"delete_stack {NAME}-data",
    )
    assert cloud.call("s3", "list_buckets")["Buckets"] == []
    assert cloud.call("cloudformation", "describe_stacks")["Stacks"] == []
