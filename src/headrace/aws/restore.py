"""Another database in the place of the deployment's: from a point in time, or from a snapshot.

RDS names an instance's address after its identifier. So the new database takes the old one's identifier, and the stack,
the alarms, /NAME/DB_HOST and later upgrades mean the new one without a change. The old one stays under another name.

What is done is read from the instances themselves: the command, run again, continues.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import NamedTuple

from headrace.aws import database, execute, hosts, stacks, templates
from headrace.aws.client import Answer, Cloud, passing_over, polling
from headrace.aws.deployment import OWN_KEY, keys_of
from headrace.aws.execute import required, settled
from headrace.aws.stacks import Say, Stack
from headrace.errors import AwsError, ConfigurationError, SchemaOutOfDate

_TAG, _DONE = "headrace-restore", "headrace-restored"  # on the new instance: what it is from; since when it serves
_NEW = "restoring"  # how its identifier ends until then
_LOST = ("failed", "incompatible-", "restore-error", "inaccessible-")  # how a status begins that does not pass


class Source(NamedTuple):
    """What to restore: the snapshot's identifier, or the time (with its zone)."""

    snapshot: str | None = None
    time: datetime | None = None

    def __str__(self) -> str:
        return self.snapshot or (self.time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")


def moment(text: str) -> datetime:
    """A time with its zone, 2026-11-28T14:05:00Z say. Raises ConfigurationError, for one that is to come, too."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.max
    if found.tzinfo is None:
        raise ConfigurationError(f"--to {text} is no time with its zone, such as 2026-11-28T14:05:00Z.")
    if found > datetime.now(UTC):
        raise ConfigurationError(f"--to {text} is to come; RDS has the database until about five minutes ago.")
    return found


def restore(cloud: Cloud, name: str, source: Source, say: Say, again: bool = False) -> list[str]:
    """Put the database as it was into service; the identifiers of those that restores have put aside.

    Where it is in service already, nothing happens but with `again`. Raises AwsError. Until the new database is there,
    nothing changes for anybody.
    """
    data, app = settled(cloud, f"{name}-data", say), settled(cloud, f"{name}-app", say)
    if yours := data.parameters.get("ExistingDatabase"):
        raise AwsError(
            f"The database {yours} was there before the deployment, which does not replace it. Restore it in RDS to "
            f"another instance, stop the servers, and give the new one the identifier {yours}; then `headrace aws up`."
        )
    identifier = data.output("DatabaseId")
    made, new = _find(cloud, identifier), _find(cloud, f"{identifier}-{_NEW}")
    tags = _tags(made)
    exchanged = new is None and _TAG in tags and _DONE not in tags  # but what serves does not go on yet
    under_way = _tags(new).get(_TAG) or (tags[_TAG] if exchanged else None)
    if under_way is not None:
        if under_way != str(source):
            raise AwsError(
                f"A restore of {under_way} is under way in {cloud.region}: run that again, and it continues. While it "
                f"only makes {identifier}-{_NEW}, you may give it up: delete that in the RDS console."
            )
        say(f"database: from {under_way}, by an earlier command; going on")
    elif made is None:
        raise AwsError(f"RDS in {cloud.region} has no database {identifier}, whose settings the new one must have.")
    elif tags.get(_TAG) == str(source) and not again:
        say(f"the database of {source} is in service, since {tags[_DONE]}; with --again it is taken back once more")
        return put_aside(cloud, data)
    if not exchanged:
        _make(cloud, data, identifier, source, say)
    with ExitStack() as at_end:
        hosts.suspend(cloud, app)
        at_end.callback(hosts.resume, cloud, app, say)
        if not exchanged:
            running = hosts.wait_online(cloud, app, say)
            hosts.stop_servers(cloud, running, say)
            try:
                _exchange(cloud, identifier, say)
            except BaseException:  # whichever database has the name now
                hosts.start_servers(cloud, running, say)
                raise
        if not _serve(cloud, name, data, app, say):
            at_end.pop_all()  # whose servers stay stopped the group would replace
    done = [{"Key": _DONE, "Value": datetime.now(UTC).isoformat(timespec="seconds")}]
    now = _wait(cloud, identifier, say)
    cloud.call("rds", "add_tags_to_resource", ResourceName=now["DBInstanceArn"], Tags=done)
    return put_aside(cloud, data)


def put_aside(cloud: Cloud, data: Stack) -> list[str]:
    """The databases that restores have put aside; each costs what the one in service does."""
    pattern = re.compile(re.escape(data.output("DatabaseId")) + r"-\d{10}\Z")
    found = (one["DBInstanceIdentifier"] for one in cloud.pages("rds", "describe_db_instances", "DBInstances"))
    return sorted(one for one in found if pattern.match(one))


def delete_old(cloud: Cloud, name: str, say: Say) -> list[str]:
    """Delete the databases that restores have put aside, each with a last snapshot; the snapshots' identifiers."""
    snapshots = []
    for one in put_aside(cloud, required(cloud, f"{name}-data")):
        snapshot = f"headrace-{name}-before-{one[-10:]}"
        stacks.unprotect(cloud, one)
        with passing_over("InvalidDBInstanceState"):  # it is being deleted
            cloud.call("rds", "delete_db_instance", DBInstanceIdentifier=one, FinalDBSnapshotIdentifier=snapshot)
        say(f"{one}: is deleted, once its snapshot {snapshot} is there; it takes minutes")
        snapshots.append(snapshot)
    return snapshots


def _make(cloud: Cloud, data: Stack, identifier: str, source: Source, say: Say) -> None:
    """The new database beside the old one, with that one's settings."""
    new = f"{identifier}-{_NEW}"
    old = _find(cloud, identifier) or _find(cloud, put_aside(cloud, data)[-1])
    assert old is not None
    if _find(cloud, new) is None:
        options: Answer = {
            "DBInstanceClass": old["DBInstanceClass"],
            "DBSubnetGroupName": old["DBSubnetGroup"]["DBSubnetGroupName"],
            "VpcSecurityGroupIds": [one["VpcSecurityGroupId"] for one in old["VpcSecurityGroups"]],
            "DBParameterGroupName": old["DBParameterGroups"][0]["DBParameterGroupName"],
            "MultiAZ": old["MultiAZ"],
            "StorageType": old["StorageType"],
            "PubliclyAccessible": False,
            "AutoMinorVersionUpgrade": old["AutoMinorVersionUpgrade"],
            "CopyTagsToSnapshot": True,
            "EnableIAMDatabaseAuthentication": old.get("IAMDatabaseAuthenticationEnabled", False),
            "DeletionProtection": True,
            "EnableCloudwatchLogsExports": old.get("EnabledCloudwatchLogsExports", []),
            "Tags": [
                {"Key": key, "Value": value}
                for key, value in {**_tags(old), _TAG: str(source)}.items()
                if not key.startswith("aws:") and key != _DONE
            ],
        }
        say(f"database: {new} from {source}; it takes ten minutes or more, while everything goes on")
        if source.snapshot:
            cloud.call(
                "rds",
                "restore_db_instance_from_db_snapshot",
                DBInstanceIdentifier=new,
                DBSnapshotIdentifier=source.snapshot,
                **options,
            )
        else:
            cloud.call(
                "rds",
                "restore_db_instance_to_point_in_time",
                SourceDBInstanceIdentifier=identifier,
                TargetDBInstanceIdentifier=new,
                RestoreTime=source.time,
                **options,
            )
    if "MasterUserSecret" not in _wait(cloud, new, say):  # which a restore does not bring along
        own = keys_of(data.parameters) == OWN_KEY  # without a name it is alias/aws/secretsmanager
        cloud.call(
            "rds",
            "modify_db_instance",
            DBInstanceIdentifier=new,
            ManageMasterUserPassword=True,
            **({"MasterUserSecretKmsKeyId": data.output("KeyArn")} if own else {}),
            BackupRetentionPeriod=old["BackupRetentionPeriod"],
            MaxAllocatedStorage=old.get("MaxAllocatedStorage", old["AllocatedStorage"]),
            ApplyImmediately=True,
        )
        for _ in polling(longest=15):
            if "MasterUserSecret" in _wait(cloud, new, say):
                break


def _exchange(cloud: Cloud, identifier: str, say: Say) -> None:
    """Two renames, each a few minutes. Broken off between them, no database has the name until they continue."""
    if _find(cloud, identifier) is not None:
        aside = f"{identifier}-{time.strftime('%y%m%d%H%M', time.gmtime())}"
        _rename(cloud, identifier, aside, say)
    _rename(cloud, f"{identifier}-{_NEW}", identifier, say)


def _rename(cloud: Cloud, old: str, new: str, say: Say) -> None:
    say(f"database: {old} becomes {new}")
    deadline = time.monotonic() + database.BUSY_SECONDS
    for _ in polling(longest=15):
        try:
            cloud.call(
                "rds",
                "modify_db_instance",
                DBInstanceIdentifier=old,
                NewDBInstanceIdentifier=new,
                ApplyImmediately=True,
            )
        except AwsError as error:  # its backup, say: it ends by itself
            if error.code not in ("InvalidDBInstanceState", "InvalidDBInstanceStateFault") or (
                time.monotonic() > deadline
            ):
                raise
        else:
            break
    for _ in polling(longest=15):
        if _find(cloud, old) is None and _find(cloud, new) is not None:
            break
    _wait(cloud, new, say)


def _serve(cloud: Cloud, name: str, data: Stack, app: Stack, say: Say) -> bool:
    """The server's role has the password of today, and the servers answer, unless the schema is of an older MLflow."""
    from headrace.database import prepare
    from headrace.server_role import create_server_role

    if database.by_token(data):  # its tokens are for another instance
        app = settled(cloud, app.name, say)
        given = {**app.parameters, "DatabaseResource": database.resource(cloud, data)}
        stacks.execute(cloud, stacks.propose(cloud, app.name, templates.app(), given), say)
    running = hosts.wait_online(cloud, app, say)
    user, password = database.login(cloud, name)
    with database.as_master(cloud, data, running[0].id) as settings:
        try:
            prepare(settings, say)
        except SchemaOutOfDate as error:
            say(
                f"{error}\nThe database is of an older MLflow than the image: the servers stay stopped. `headrace aws "
                "rollback` puts the image of then into service; `headrace aws upgrade VERSION` migrates once more."
            )
            return False
        create_server_role(settings, user, password)
    hosts.start_servers(cloud, running, say)
    execute.wait_healthy(cloud, app.name, say)
    return True


def _wait(cloud: Cloud, identifier: str, say: Say) -> Answer:
    """The instance, once it is available. Raises AwsError for one that never will be."""
    said = ""
    for _ in polling(longest=15):
        found = _find(cloud, identifier)
        status = "not there yet" if found is None else str(found["DBInstanceStatus"])
        if found is not None and status == "available":
            return found
        if status.startswith(_LOST):
            raise AwsError(
                f"The database {identifier} in {cloud.region} is {status}. Look at its events in the RDS console: "
                f"aws rds describe-events --region {cloud.region} --source-type db-instance --source-identifier "
                f"{identifier}"
            )
        if status != said:
            say(f"database: {identifier} is {status}")
            said = status
    raise AssertionError("unreachable")


def _find(cloud: Cloud, identifier: str) -> Answer | None:
    found: list[Answer] = []
    with passing_over("DBInstanceNotFound", "DBInstanceNotFoundFault"):
        found = cloud.call("rds", "describe_db_instances", DBInstanceIdentifier=identifier)["DBInstances"]
    return found[0] if found else None


def _tags(instance: Answer | None) -> dict[str, str]:
    return {one["Key"]: one["Value"] for one in (instance or {}).get("TagList", [])}
