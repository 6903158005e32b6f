"""The security promises of docs/aws.md, each with where the templates keep it. cfn-lint is the first opinion."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.aws import images, templates
from headrace.aws.deployment import SIZES, Choices
from tests.aws.template import Template
from tests.support.servers import SCRIPTS

BALANCED = {"Ingress": "alb", "Domain": "ml.example.org", "CertificateArn": "arn:c", "AllowCidr": "203.0.113.0/24"}
DATA = Template(templates.data())
APP = Template(templates.app())
ALB = Template(templates.app(), **BALANCED)
MAILED = Template(templates.app(), AlarmEmail="me@example.org")
AWS_KEYS = {"Keys": "aws-managed"}
DATA_AWS_KEYS = Template(templates.data(), **AWS_KEYS)
APP_AWS_KEYS = Template(templates.app(), AlarmEmail="me@example.org", **AWS_KEYS)
VPC = Template(templates.app(), Ingress="vpc", AllowSecurityGroup="sg-1")
KEY = {"Fn::GetAtt": ["Key", "Arn"]}
IMPORTED_KEY = {"Fn::ImportValue": {"Fn::Sub": "${DataStack}-KeyArn"}}
BUCKET_KEY = {"Fn::ImportValue": {"Fn::Sub": "${DataStack}-BucketKeyArn"}}
DATABASE = DATA.properties("Database")
BUCKET = DATA.properties("Bucket")
LAUNCH = APP.properties("LaunchTemplate")["LaunchTemplateData"]
HELD = ("Key", "Bucket", "BucketPolicy", "Database", "Repository")


def inbound(template: Template) -> list[dict[str, Any]]:
    """Every inbound rule for the hosts and for the balancer."""
    rules = [rule for group in template.of_type("EC2::SecurityGroup") for rule in group.get("SecurityGroupIngress", [])]
    return rules + template.of_type("EC2::SecurityGroupIngress")


def role_of(template: Template) -> dict[str, Any]:
    """What its hosts may, by the statement's name."""
    policy = template.properties("Role")["Policies"][0]["PolicyDocument"]
    return {one["Sid"]: one for one in policy["Statement"]}


STATEMENTS = role_of(APP)


def actions(*statements: str) -> set[str]:
    given = [STATEMENTS[one]["Action"] for one in statements]
    return {action for one in given for action in ([one] if isinstance(one, str) else one)}


# promise -> its check on the template
PROMISES: dict[str, Callable[[], bool]] = {
    "what holds data outlives its stack, and a replacement": lambda: all(
        DATA.resources[name]["DeletionPolicy"] in ("RetainExceptOnCreate", "Snapshot")
        and DATA.resources[name]["UpdateReplacePolicy"] in ("Retain", "Snapshot")
        for name in HELD
    ),
    "the database can't be deleted by accident": lambda: DATABASE["DeletionProtection"] is True,
    "7 days of point-in-time recovery, kept after a deletion": lambda: (
        DATABASE["BackupRetentionPeriod"] == {"Ref": "BackupDays"} and DATABASE["DeleteAutomatedBackups"] is False
    ),
    "the database is encrypted with the key": lambda: (
        DATABASE["StorageEncrypted"] is True and DATABASE["KmsKeyId"] == KEY
    ),
    "the database takes TLS only": lambda: (
        DATA.properties("DatabaseParameters")["Parameters"]["rds.force_ssl"] == "1"
        and DATABASE["DBParameterGroupName"] == {"Ref": "DatabaseParameters"}
    ),
    "the database has no public address": lambda: DATABASE["PubliclyAccessible"] is False,
    "the database is in subnets without a way out": lambda: (
        not any(
            one["SubnetId"] in ({"Ref": "DatabaseSubnetA"}, {"Ref": "DatabaseSubnetB"})
            for one in DATA.of_type("EC2::SubnetRouteTableAssociation")
        )
    ),
    "only the hosts reach the database": lambda: (
        inbound(DATA) == []
        and [
            rule["SourceSecurityGroupId"]
            for rule in inbound(APP)
            if rule["GroupId"] == {"Fn::ImportValue": {"Fn::Sub": "${DataStack}-DatabaseSecurityGroup"}}
        ]
        == [{"Fn::GetAtt": ["HostSecurityGroup", "GroupId"]}]
    ),
    "nobody has typed the master password; RDS keeps it, encrypted with the key": lambda: (
        DATABASE["ManageMasterUserPassword"] is True
        and "MasterUserPassword" not in DATABASE
        and DATABASE["MasterUserSecret"]["KmsKeyId"] == KEY
    ),
    "the bucket is versioned": lambda: BUCKET["VersioningConfiguration"] == {"Status": "Enabled"},
    "the bucket can't be made public": lambda: (
        set(BUCKET["PublicAccessBlockConfiguration"].values()) == {True}
        and len(BUCKET["PublicAccessBlockConfiguration"]) == 4
    ),
    "the bucket is encrypted with the key": lambda: (
        BUCKET["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]["ServerSideEncryptionByDefault"]
        == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    ),
    "the bucket takes TLS only": lambda: any(
        one["Effect"] == "Deny"
        and one["Action"] == "s3:*"
        and one["Principal"] == "*"
        and one["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        and len(one["Resource"]) == 2
        for one in DATA.properties("BucketPolicy")["PolicyDocument"]["Statement"]
    ),
    "the key rotates": lambda: DATA.properties("Key")["EnableKeyRotation"] is True,
    "an image that a host runs does not expire": lambda: (
        [
            (rule["selection"]["tagStatus"], rule["selection"].get("tagPrefixList"), rule["selection"]["countNumber"])
            for rule in sorted(
                json.loads(DATA.properties("Repository")["LifecyclePolicy"]["LifecyclePolicyText"])["rules"],
                key=lambda rule: rule["rulePriority"],
            )
        ]
        == [("tagged", ["headrace-"], 1000), ("any", None, 50)]
        and all(tag.startswith("headrace-") for tag in (images.RUNNING, images.PREVIOUS))
    ),
    "images are scanned, and encrypted with the key": lambda: (
        DATA.properties("Repository")["ImageScanningConfiguration"] == {"ScanOnPush": True}
        and DATA.properties("Repository")["EncryptionConfiguration"]["KmsKey"] == KEY
    ),
    "alarms, and the one rule that reminds of fixes, write to the topic, and nobody else": lambda: (
        [
            (one["Principal"], one["Action"], next(iter(one["Condition"])))
            for one in MAILED.properties("AlarmTopicPolicy")["PolicyDocument"]["Statement"]
        ]
        == [
            ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish", "StringEquals"),
            ({"Service": "events.amazonaws.com"}, "sns:Publish", "ArnEquals"),
        ]
        and MAILED.properties("Reminder")["Targets"][0]["Arn"] == {"Ref": "AlarmTopic"}
        and not {"Reminder", "AlarmTopic", "AlarmTopicPolicy"} & APP.resources.keys()
    ),
    "no secret is in a template, a parameter of a stack or user data": lambda: (
        not re.search(
            "NoEcho|resolve:|\\bMasterUserPassword:|SecretString|with-decryption|PASSWORD",
            templates.data() + templates.app(),
        )
        and not [name for name in {**DATA.parameters, **APP.parameters} if re.search("(?i)password|secret|token", name)]
    ),
    "with --ingress vpc one security group reaches the hosts' port, and nobody else": lambda: (
        [
            (rule["FromPort"], rule["ToPort"], rule["SourceSecurityGroupId"], rule.get("CidrIp"))
            for rule in inbound(VPC)
            if rule["GroupId"] == {"Fn::GetAtt": ["HostSecurityGroup", "GroupId"]}
        ]
        == [(5000, 5000, {"Ref": "AllowSecurityGroup"}, None)]
        and VPC.of_type("ElasticLoadBalancingV2::LoadBalancer") == []
    ),
    "the balancer may be in public subnets while the hosts are in private ones": lambda: (
        Template(templates.app(), **BALANCED, BalancerSubnetIds="subnet-1,subnet-2").properties("LoadBalancer")[
            "Subnets"
        ]
        == {"Fn::Split": [",", {"Ref": "BalancerSubnetIds"}]}
    ),
    "hosts have no inbound port": lambda: (
        not any(rule.get("GroupId") == {"Fn::GetAtt": ["HostSecurityGroup", "GroupId"]} for rule in inbound(APP))
        and "SecurityGroupIngress" not in APP.properties("HostSecurityGroup")
    ),
    "hosts speak to AWS over TLS and to the database, and to nobody else": lambda: (
        [rule["ToPort"] for rule in APP.properties("HostSecurityGroup")["SecurityGroupEgress"]]
        == [443, {"Fn::ImportValue": {"Fn::Sub": "${DataStack}-DatabasePort"}}]
    ),
    "with a balancer, only it reaches the hosts": lambda: (
        [
            rule["SourceSecurityGroupId"]
            for rule in inbound(ALB)
            if rule.get("GroupId") == {"Fn::GetAtt": ["HostSecurityGroup", "GroupId"]}
        ]
        == [{"Fn::GetAtt": ["BalancerSecurityGroup", "GroupId"]}]
    ),
    "with a balancer, only HTTPS, and only from --allow-cidr": lambda: (
        [
            (rule["FromPort"], rule["ToPort"], rule["CidrIp"])
            for rule in ALB.properties("BalancerSecurityGroup")["SecurityGroupIngress"]
        ]
        == [(443, 443, {"Ref": "AllowCidr"})]
        and [one["Protocol"] for one in ALB.of_type("ElasticLoadBalancingV2::Listener")] == ["HTTPS"]
    ),
    "the server believes the balancer about clients, and nobody else": lambda: (
        ALB.parameters["TrustedProxies"].split(",")
        == [DATA.properties(subnet)["CidrBlock"] for subnet in ("AppSubnetA", "AppSubnetB")]
        and ALB.properties("LoadBalancer")["Subnets"]["Fn::Split"][1]
        == {"Fn::ImportValue": {"Fn::Sub": "${DataStack}-AppSubnetIds"}}
    ),
    "TLS 1.2 or newer": lambda: "TLS13-1-2" in ALB.properties("Listener")["SslPolicy"],
    "IMDSv2 only": lambda: LAUNCH["MetadataOptions"]["HttpTokens"] == "required",
    "hosts' disks are encrypted": lambda: all(one["Ebs"]["Encrypted"] is True for one in LAUNCH["BlockDeviceMappings"]),
    "the role has no managed policy": lambda: "ManagedPolicyArns" not in APP.properties("Role"),
    "the role reads and writes one bucket": lambda: (
        actions("ListTheBucket", "ReadAndWriteTheBucket")
        == {
            "s3:ListBucket",
            "s3:GetBucketLocation",
            "s3:ListBucketMultipartUploads",
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
        }
        and all(
            one["Resource"]["Fn::Sub"][1] == {"Bucket": {"Fn::ImportValue": {"Fn::Sub": "${DataStack}-Bucket"}}}
            for one in (STATEMENTS["ListTheBucket"], STATEMENTS["ReadAndWriteTheBucket"])
        )
    ),
    "the role pulls one image": lambda: (
        STATEMENTS["PullTheImage"]["Resource"]["Fn::Sub"].endswith(":repository/${Name}")
        and all("Put" not in action and "Upload" not in action for action in actions("PullTheImage", "LogInToEcr"))
    ),
    "the role reads the deployment's parameters only": lambda: (
        actions("ReadParameters") == {"ssm:GetParameter", "ssm:GetParameters"}
        and STATEMENTS["ReadParameters"]["Resource"]["Fn::Sub"].endswith(":parameter/${Name}/*")
        and not any(action.startswith("ssm:GetParameter") for action in actions("SessionManager"))
    ),
    "the role decrypts with one key, and that of a bucket which was there before": lambda: (
        actions("DecryptParametersAndArtifacts") == {"kms:Decrypt"}
        and STATEMENTS["DecryptParametersAndArtifacts"]["Resource"] == [IMPORTED_KEY, BUCKET_KEY]
        and STATEMENTS["EncryptArtifacts"]["Resource"] == BUCKET_KEY
        and DATA.outputs["BucketKeyArn"]["Value"] == KEY
        and "kms:ViaService" in str(STATEMENTS["EncryptArtifacts"]["Condition"])
    ),
    "with AWS's keys there is none of its own, and everything is encrypted all the same": lambda: (
        not {"Key", "KeyAlias"} & DATA_AWS_KEYS.resources.keys()
        and DATA_AWS_KEYS.properties("Database")["StorageEncrypted"] is True
        and not {"KmsKeyId", "MasterUserSecret"} & DATA_AWS_KEYS.properties("Database").keys()
        and DATA_AWS_KEYS.properties("Bucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        == [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        and DATA_AWS_KEYS.properties("Repository")["EncryptionConfiguration"] == {"EncryptionType": "AES256"}
        and '["Key", "Arn"]' not in json.dumps([DATA_AWS_KEYS.resources, DATA_AWS_KEYS.outputs])
    ),
    "with AWS's keys no output is empty, which none may be, and SSM's key is named for the secrets": lambda: (
        DATA_AWS_KEYS.outputs["KeyArn"]["Value"] == "alias/aws/ssm"
        and DATA_AWS_KEYS.outputs["BucketKeyArn"]["Value"] == "alias/aws/s3"
    ),
    "with AWS's keys the role needs none, the log names none, and alarms can write to the topic": lambda: (
        "kms:" not in json.dumps(role_of(APP_AWS_KEYS))
        and role_of(APP_AWS_KEYS).keys() == STATEMENTS.keys() - {"DecryptParametersAndArtifacts", "EncryptArtifacts"}
        and "KmsKeyId" not in APP_AWS_KEYS.properties("LogGroup")
        and "KmsMasterKeyId" not in APP_AWS_KEYS.properties("AlarmTopic")
        and MAILED.properties("AlarmTopic")["KmsMasterKeyId"] == IMPORTED_KEY
    ),
    "with AWS's keys the role uses that of a bucket which was there before": lambda: (
        {
            sid: one["Resource"]
            for sid, one in role_of(Template(templates.app(), ExistingBucketKey="arn:k", **AWS_KEYS)).items()
            if "kms:" in json.dumps(one)
        }
        == {"DecryptParametersAndArtifacts": [BUCKET_KEY], "EncryptArtifacts": BUCKET_KEY}
        and Template(templates.data(), ExistingBucket="b", ExistingBucketKey="arn:k", **AWS_KEYS).outputs[
            "BucketKeyArn"
        ]["Value"]
        == {"Ref": "ExistingBucketKey"}
    ),
    "the role has no action with a wildcard, and all resources only where AWS knows no narrower": lambda: (
        not any("*" in action for action in actions(*STATEMENTS))
        and {sid for sid, one in STATEMENTS.items() if one["Resource"] == "*"}
        == {"LogInToEcr", "SessionManager", "WriteMetrics", "FindItsGroup"}
    ),
    "a host is in service when its server is, and only its own group is told so": lambda: (
        APP.properties("ServesHook")["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING"
        and APP.properties("ServesHook")["DefaultResult"] == "ABANDON"
        and actions("SayThatItServes") == {"autoscaling:CompleteLifecycleAction"}
        and STATEMENTS["SayThatItServes"]["Resource"]["Fn::Sub"].endswith("/${AWS::StackName}-Hosts-*")
    ),
    "only EC2 takes the role": lambda: (
        APP.properties("Role")["AssumeRolePolicyDocument"]["Statement"]
        == [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]
    ),
    "logs are encrypted with the key, and end": lambda: (
        APP.properties("LogGroup")["KmsKeyId"] == IMPORTED_KEY and APP.properties("LogGroup")["RetentionInDays"] == 30
    ),
    "status, server, errors, disk, CPU, and the database's CPU, storage and connections have alarms": lambda: (
        {name for name in APP.resources if name.startswith("Alarm")}
        == {
            *("AlarmHost", "AlarmServer", "AlarmErrorsInTheLog", "AlarmDisk", "AlarmCpu"),
            *("AlarmDatabaseCpu", "AlarmDatabaseStorage", "AlarmDatabaseConnections"),
        }
        and "AlarmErrors" in ALB.resources
    ),
    "the alarm of a server that says nothing is made late, so that a first `up` can quiet it": lambda: (
        APP.resources["AlarmServer"]["DependsOn"] == "Hosts"
        and APP.properties("AlarmServer")["TreatMissingData"] == "breaching"
        and not [
            name
            for name, one in ALB.resources.items()
            if name != "AlarmServer" and one["Properties"].get("TreatMissingData") == "breaching"
        ]
    ),
}


@pytest.mark.parametrize("promise", PROMISES)
def test_promise(promise: str) -> None:
    assert PROMISES[promise]()


def test_cfn_lint(tmp_path: Path) -> None:
    for name, text in (("data", templates.data()), ("app", templates.app())):
        (tmp_path / f"{name}.yaml").write_text(text)
    done = subprocess.run(
        [SCRIPTS / "cfn-lint", tmp_path / "data.yaml", tmp_path / "app.yaml"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_first_boot_fits_into_user_data() -> None:
    """AWS takes 16 KB. It must be one script that bash can read, with the scripts of the package whole in it."""
    separator, pieces = LAUNCH["UserData"]["Fn::Base64"]["Fn::Join"]
    text = separator.join(one if isinstance(one, str) else one["Fn::Sub"] for one in pieces)
    assert len(text) < 15_500  # and 850 for the names in it, an image's of 150 among them
    assert text.startswith("#!/bin/bash\nexport HEADRACE_IMAGE=")
    run_container, host_boot = map(templates.script, ("run_container.sh", "host_boot.sh"))
    assert templates.without_comments(run_container).rstrip() in text
    assert text.endswith(templates.without_comments(host_boot).rstrip())
    assert "set -euo pipefail\n" in text
    assert text.count("#!/bin/bash\n") == 3, "its own, and of the two scripts that it writes"
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_templates_fit_into_a_request() -> None:
    assert len(templates.data()) < 51_200
    assert len(templates.app()) < 51_200


@pytest.mark.parametrize("size", SIZES)
def test_parameters_of_a_size_are_the_templates(size: str) -> None:
    choices = Choices(
        size=size, ingress="alb", domain="ml.example.org", certificate_arn="arn:c", allow_cidr="10.0.0.0/8"
    )
    assert choices.data_parameters({}).keys() <= DATA.parameters.keys()
    assert choices.app_parameters({}).keys() <= APP.parameters.keys()
