"""Settings from AWS Systems Manager: the names, who wins, and what each failure says to do. Moto's server is SSM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from headrace import ssm
from headrace.errors import ConfigurationError
from headrace.settings.resolve import resolve
from tests.support.processes import free_port
from tests.support.servers import Server

PASSWORD = "p@ss/w:rd %#?"
PREFIX = "/mlflow"


@pytest.fixture
def aws(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an empty SSM, which this process's environment leads to."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.Session().client("ssm")
    yield client
    names = [parameter["Name"] for parameter in client.describe_parameters()["Parameters"]]
    for name in names:
        client.delete_parameter(Name=name)


def put(aws: Any, prefix: str = PREFIX, **values: str) -> None:
    for name, value in values.items():
        kind = "SecureString" if name == "DB_PASS" else "String"
        aws.put_parameter(Name=f"{prefix}/{name}", Value=value, Type=kind)


def test_the_parameters_are_the_containers_variables(aws: Any) -> None:
    put(aws, DB_HOST="db.example.com", DB_USER="mlflow", DB_PASS=PASSWORD, BUCKET="mlflow-artifacts")
    variables = {"HOST": "db.example.com", "USERNAME": "mlflow", "PASSWORD": PASSWORD, "DATABASE": "mlflow"}
    variables["BUCKET"] = "s3://mlflow-artifacts/"
    # HOST and PORT are in the environment of many shells: they are not the database's here
    for environment in (
        {"HEADRACE_SSM_PREFIX": PREFIX},
        {"HEADRACE_SSM_PREFIX": "mlflow/", "HOST": "me", "PORT": "80"},
    ):
        assert resolve({}, environment).backend_store_uri == resolve({}, variables).backend_store_uri
        assert resolve({}, environment).artifacts_destination == "s3://mlflow-artifacts/"
    put(aws, DB_PORT="5433", DB_NAME="other", ADMIN_TOKEN="hr_" + "x" * 40)
    settings = resolve({"ssm_prefix": PREFIX}, {})
    assert settings.backend_store_uri.endswith("@db.example.com:5433/other")
    assert settings.admin_token == "hr_" + "x" * 40


def test_a_bucket_from_the_environment(aws: Any) -> None:
    put(aws, DB_HOST="h", DB_USER="u", DB_PASS="p")
    environment = {"HEADRACE_SSM_PREFIX": PREFIX}
    with pytest.raises(ConfigurationError, match=r"not BUCKET.*parameter of --ssm-prefix"):
        resolve({}, environment)
    assert resolve({}, environment | {"BUCKET": "s3://mine/"}).artifacts_destination == "s3://mine/"


def test_a_backend_store_wins_and_ssm_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    environment = {"HEADRACE_SSM_PREFIX": PREFIX}
    assert resolve({"backend_store_uri": "sqlite:///a.db"}, environment).backend_store_uri == "sqlite:///a.db"


def test_a_login_is_written_encrypted(aws: Any) -> None:
    put(aws, DB_HOST="h", DB_USER="master", DB_PASS="old")
    ssm.write_login(PREFIX, {}, "mlflow_server", PASSWORD)
    read = ssm.read(PREFIX, {})
    assert (read["USERNAME"], read["PASSWORD"]) == ("mlflow_server", PASSWORD)
    assert aws.get_parameter(Name=f"{PREFIX}/DB_PASS")["Parameter"]["Type"] == "SecureString"


def test_missing_parameters_are_named_with_the_command_that_makes_one(aws: Any) -> None:
    put(aws, DB_HOST="h")
    with pytest.raises(ConfigurationError) as caught:
        ssm.read(PREFIX, {})
    text = str(caught.value)
    assert "SSM in eu-west-1 has no parameter /mlflow/DB_USER, /mlflow/DB_PASS" in text
    assert "aws ssm put-parameter --region eu-west-1 --name /mlflow/DB_PASS --type SecureString" in text


def test_no_region(aws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"no region is set. Set AWS_DEFAULT_REGION"):
        ssm.read(PREFIX, {})
    with pytest.raises(ConfigurationError, match="SSM in us-west-2 has no parameter"):
        ssm.read(PREFIX, {"AWS_REGION": "us-west-2"})


def test_no_credentials(aws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigurationError, match=r"Unable to locate credentials.*hop limit of 2"):
        ssm.read(PREFIX, {})


def test_no_connection(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ConfigurationError, match=r"Could not connect to the endpoint(.|\n)*AWS_ENDPOINT_URL"):
        ssm.read(PREFIX, {})


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        ("AccessDeniedException", r"needs ssm:GetParameters and kms:Decrypt: on parameter/mlflow/\*"),
        ("ExpiredTokenException", "sign in again"),
        ("ThrottlingException", "Run the command again"),
    ],
)
def test_what_aws_refuses(aws: Any, monkeypatch: pytest.MonkeyPatch, code: str, fix: str) -> None:
    """Moto allows everything, so botocore's Stubber refuses here."""
    import botocore.session

    with Stubber(aws) as stub:
        stub.add_client_error("get_parameters", code, "User is not authorized")
        monkeypatch.setattr(botocore.session.Session, "create_client", lambda *_, **__: aws)
        with pytest.raises(ConfigurationError, match=fix) as caught:
            ssm.read(PREFIX, {})
    assert "User is not authorized" in str(caught.value)
