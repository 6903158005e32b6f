"""What is there already, a database of RDS and a bucket, used in place: never changed by a stack, never deleted.

The data stack knows both by its parameters alone. What the deployment adds to them it takes away again: a rule in the
database's security group, which is the app stack's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.aws.client import Answer, Cloud
from headrace.errors import AwsError, ConfigurationError

OLDEST = 13  # PostgreSQL, as docs/database.md has it


def parameters(cloud: Cloud, database: str | None, name: str | None, bucket: str | None) -> dict[str, str]:
    """The data stack's parameters for what is adopted. Raises ConfigurationError for what can't be, AwsError."""
    found: dict[str, str] = {}
    if database:
        instance = find(cloud, database)
        if wrong := unfit(instance):
            raise ConfigurationError(f"--existing-database {database}: {wrong}")
        found |= {
            "VpcId": instance["DBSubnetGroup"]["VpcId"],
            "ExistingDatabase": database,
            "ExistingDatabaseHost": instance["Endpoint"]["Address"],
            "ExistingDatabasePort": str(instance["Endpoint"]["Port"]),
            "ExistingDatabaseName": name or instance.get("DBName") or "mlflow",
            "ExistingDatabaseSecurityGroup": instance["VpcSecurityGroups"][0]["VpcSecurityGroupId"],
        }
    if bucket:
        found |= {"ExistingBucket": bucket, "ExistingBucketKey": bucket_key(cloud, bucket)}
    return found


def adopted(data: Mapping[str, str]) -> list[str]:
    """What of the data stack's parameters (or outputs' names) is not its own, in words."""
    both = (("ExistingDatabase", "database"), ("ExistingBucket", "bucket"))
    return [f"{what} {data[key]}" for key, what in both if data.get(key)]


def find(cloud: Cloud, identifier: str) -> Answer:
    """What RDS says of an instance. Raises ConfigurationError where there is none of that name."""
    try:
        answer: Answer = cloud.call("rds", "describe_db_instances", DBInstanceIdentifier=identifier)["DBInstances"][0]
    except AwsError as error:
        if error.code not in ("DBInstanceNotFound", "DBInstanceNotFoundFault"):
            raise
        raise ConfigurationError(
            f"RDS in {cloud.region} has no database instance {identifier}: aws rds describe-db-instances --region "
            f"{cloud.region} lists those that are there."
        ) from None
    return answer


def unfit(instance: Answer) -> str:
    """Why Headrace can't use the instance, with what to do; empty where it can."""
    engine, version = instance["Engine"], str(instance["EngineVersion"])
    major = int(version.partition(".")[0])
    if engine != "postgres":
        return f"it is {engine}, and Headrace works with PostgreSQL. `headrace copy` takes its runs along."
    if major < OLDEST:
        return f"it is PostgreSQL {version}, and Headrace works with {OLDEST} and newer. Let RDS upgrade it first."
    if instance["DBInstanceStatus"] in ("stopped", "stopping", "failed", "deleting"):
        return f"it is {instance['DBInstanceStatus']}. Start it first: aws rds start-db-instance."
    if not instance.get("VpcSecurityGroups") or not instance.get("DBSubnetGroup"):
        return "it is in no VPC."
    return ""


def tls(cloud: Cloud, instance: Answer) -> bool | None:
    """Whether the instance takes connections with TLS alone; None where its parameter group does not say."""
    group = instance["DBParameterGroups"][0]["DBParameterGroupName"]
    for one in cloud.pages("rds", "describe_db_parameters", "Parameters", DBParameterGroupName=group):
        if one["ParameterName"] == "rds.force_ssl":
            return str(one.get("ParameterValue")) == "1"
    return None


def bucket_key(cloud: Cloud, bucket: str) -> str:
    """The ARN of the KMS key that encrypts the bucket; empty where S3 does that with keys of its own.

    Raises ConfigurationError for a bucket that is not there, or is in another region.
    """
    try:
        place = cloud.call("s3", "get_bucket_location", Bucket=bucket).get("LocationConstraint") or "us-east-1"
    except AwsError as error:
        if error.code != "NoSuchBucket":
            raise
        raise ConfigurationError(
            f"--existing-bucket {bucket}: there is no such bucket. `aws s3 ls` lists yours."
        ) from None
    if place not in (cloud.region, {"eu-west-1": "EU"}.get(cloud.region)):
        raise ConfigurationError(
            f"--existing-bucket {bucket} is in {place}, and the hosts in {cloud.region}: take --region {place}, or "
            "leave the bucket out."
        )
    try:
        answer = cloud.call("s3", "get_bucket_encryption", Bucket=bucket)
    except AwsError as error:
        if error.code != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        return ""
    rules: list[Any] = answer["ServerSideEncryptionConfiguration"]["Rules"]
    by_default = rules[0]["ApplyServerSideEncryptionByDefault"]
    given = str(by_default.get("KMSMasterKeyID", "")) if by_default["SSEAlgorithm"].startswith("aws:kms") else ""
    if not given or given.endswith("alias/aws/s3"):
        return ""  # S3's own key, which whoever may use the bucket may use
    if given.startswith("arn:"):
        return given
    return str(cloud.call("kms", "describe_key", KeyId=given)["KeyMetadata"]["Arn"])
