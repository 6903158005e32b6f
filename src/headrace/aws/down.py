"""Take a deployment away: the app, and only when asked in so many words, the data."""

from __future__ import annotations

from headrace.aws import adopt, container, database, domain, journal, leftover, restore, stacks
from headrace.aws.client import Answer, Cloud, passing_over
from headrace.aws.stacks import Say
from headrace.errors import AwsError
from headrace.ssm import OLD, SETTINGS

_MADE = ("DB_PASS", f"DB_PASS{OLD}", "ADMIN_TOKEN", f"ADMIN_TOKEN{OLD}", "SETTINGS", leftover.PARAMETER)


def down(cloud: Cloud, name: str, say: Say) -> None:
    """Delete the app stack. Database, bucket, key, images and secrets stay, and `up` finds them again."""
    app = stacks.settle(cloud, f"{name}-app", say, to_delete=True)
    if app is None:
        say(f"there is no stack {name}-app")
    else:
        leftover.keep(cloud, name, app.parameters)
        if balancer := stacks.resources(cloud, app.name).get("LoadBalancer"):
            domain.unlead(cloud, app.parameters["Domain"], balancer, say)
        stacks.delete(cloud, app.name, say)
    journal.end(cloud, name)


def delete_data(cloud: Cloud, name: str, say: Say) -> list[str]:
    """Delete the data stack and what it protects; what remains, each with the command that removes it.

    The database leaves a final snapshot and its automated backups, and so the deployment's own key, where it has one,
    has to stay. Whatever a try that was broken off has deleted already is passed over.
    """
    data = stacks.settle(cloud, f"{name}-data", say, to_delete=True)
    if data is None:
        say(f"there is no stack {name}-data")
        return []
    if stacks.find(cloud, f"{name}-app") is not None:
        raise AwsError(f"{name}-app still stands on {data.name}: `headrace aws down` first.")
    for one in adopt.adopted(data.parameters):
        say(f"{one}: stays as it is; it was there before")
    if old := restore.put_aside(cloud, data):
        raise AwsError(
            f"{', '.join(old)} of an earlier restore would stay, and keep the network of {data.name}: `headrace aws "
            "restore --delete-old` first."
        )
    identifier, bucket = data.output("DatabaseId"), data.output("Bucket")
    made, resource = stacks.resources(cloud, data.name), ""
    if "Database" in made:
        with passing_over("DBInstanceNotFound"):
            resource = database.resource(cloud, data)
            stacks.unprotect(cloud, identifier)
    if "Bucket" in made:
        with passing_over("NoSuchBucket"):
            _delete_bucket(cloud, bucket, say)
    if "Repository" in made:
        with passing_over("RepositoryNotFoundException"):
            cloud.call("ecr", "delete_repository", repositoryName=name, force=True)
            say(f"repository {name}: deleted, with its images")
    for parameter in _parameters(cloud, name):
        cloud.drop_parameter(parameter)
    stacks.delete(cloud, data.name, say)
    if "Database" in made:
        with passing_over("ResourceNotFoundException"):
            cloud.call("logs", "delete_log_group", logGroupName=database.log_group(data))
    snapshots = [
        one
        for one in cloud.pages(
            "rds", "describe_db_snapshots", "DBSnapshots", DBInstanceIdentifier=identifier, SnapshotType="manual"
        )
        if "Database" in made or one["DBSnapshotIdentifier"].startswith(f"headrace-{name}-")  # of upgrades
    ]
    left = [
        f"aws rds delete-db-snapshot --region {cloud.region} --db-snapshot-identifier {one['DBSnapshotIdentifier']}"
        for one in snapshots
    ]
    if resource:  # RDS keeps them for the days that the template says, and then deletes them by itself
        delete = "aws rds delete-db-instance-automated-backup"
        left.append(f"{delete} --region {cloud.region} --dbi-resource-id {resource}")
    if key := made.get("Key"):
        left.append(f"aws kms schedule-key-deletion --region {cloud.region} --key-id {key}")
    return left


def _parameters(cloud: Cloud, name: str) -> list[str]:
    """Those that no stack has made."""
    below = (
        one["Name"]
        for folder in (SETTINGS, container.FOLDER)
        for one in cloud.pages("ssm", "get_parameters_by_path", "Parameters", Path=f"/{name}/{folder}")
    )
    return [*(f"/{name}/{one}" for one in _MADE), *below]


def _delete_bucket(cloud: Cloud, bucket: str, say: Say) -> None:
    """Every version of every object, and the bucket."""
    say(f"bucket {bucket}: deleting every version of every object")
    batch: list[Answer] = []
    for key in ("Versions", "DeleteMarkers"):
        for item in cloud.pages("s3", "list_object_versions", key, Bucket=bucket):
            batch.append({"Key": item["Key"], "VersionId": item["VersionId"]})
            if len(batch) == 1000:  # S3's limit
                _delete_objects(cloud, bucket, batch)
                batch = []
    _delete_objects(cloud, bucket, batch)
    cloud.call("s3", "delete_bucket", Bucket=bucket)


def _delete_objects(cloud: Cloud, bucket: str, batch: list[Answer]) -> None:
    if batch:
        answer = cloud.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        if errors := answer.get("Errors"):
            raise AwsError(f"S3 did not delete {errors[0]['Key']} of {bucket}: {errors[0]['Message']}")
