"""What variables, the AWS config file and whoever gives credentials say about S3, taken as stock takes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from headrace.artifacts.locations import Locations
from headrace.artifacts.s3 import CREDENTIALS_KEPT, Buckets, Credentials, S3Store
from headrace.errors import Declined, Forbidden, StoreUnusable, Unavailable
from headrace.settings.resolve import resolve


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL", "ENDPOINT_URL_S3", "PROFILE", "CA_BUNDLE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")


class Giver(BaseHTTPRequestHandler):
    """Credentials as ECS and EKS give them to a container, with three minutes left."""

    left = timedelta(minutes=3)

    def do_GET(self) -> None:
        end = datetime.now(UTC) + self.left
        given = {"AccessKeyId": "k", "SecretAccessKey": "s", "Token": "t", "Expiration": end.isoformat()}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(given).encode())

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def giver() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Giver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("left", "kept"), [(timedelta(minutes=3),) * 2, (timedelta(hours=6), CREDENTIALS_KEPT)])
def test_credentials_are_kept_until_their_end(
    left: timedelta, kept: timedelta, giver: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").unlink()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", giver)
    monkeypatch.setattr(Giver, "left", left)
    given = Credentials(Session())()
    assert (given["access_key_id"], given["secret_access_key"], given["token"]) == ("k", "s", "t")
    assert given["expires_at"] is not None
    assert abs(given["expires_at"] - datetime.now(UTC) - kept) < timedelta(seconds=5)


def test_keys_without_an_end() -> None:
    given = Credentials(Session())()
    assert given["expires_at"] is not None
    assert timedelta() < given["expires_at"] - datetime.now(UTC) <= CREDENTIALS_KEPT


@pytest.mark.parametrize(
    ("config", "environment", "endpoint"),
    [
        ("endpoint_url = http://minio:9000", {}, "http://minio:9000"),
        ("endpoint_url = http://minio:9000", {"AWS_ENDPOINT_URL": "http://other:1"}, "http://other:1"),
        ("endpoint_url = http://minio:9000", {"MLFLOW_S3_ENDPOINT_URL": "http://other:1"}, "http://other:1"),
        (
            "endpoint_url = http://all:1\nservices = here\n[services here]\ns3 =\n  endpoint_url = http://minio:9000",
            {},
            "http://minio:9000",
        ),
        ("endpoint_url = http://minio:9000\nignore_configured_endpoint_urls = true", {}, None),
        ("s3 =\n  max_concurrent_requests = 20", {}, None),
    ],
)
def test_the_endpoint_of_the_config_file(
    config: str, environment: dict[str, str], endpoint: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(f"[default]\nregion = eu-central-1\n{config}\n")
    client = Buckets(environment).get("bucket").client
    assert client.config.get("endpoint") == endpoint
    assert client.config["region"] == "eu-central-1"


@pytest.mark.parametrize(
    "config",
    [
        "use_fips_endpoint = true",
        "use_dualstack_endpoint = true",
        "ca_bundle = /a/bundle.pem",
        "s3 =\n  use_accelerate_endpoint = true",
        "services = missing",
    ],
)
def test_what_only_botocore_follows_is_stocks(config: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"[default]\n{config}\n")
    with pytest.raises(Declined):
        Buckets({}).get("bucket")


@pytest.mark.parametrize(
    ("environment", "files", "says"),
    [
        ({"AWS_PROFILE": "nobody"}, {}, r"The config profile \(nobody\) could not be found"),
        ({"AWS_PROFILE": ""}, {}, "The config profile"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, {"credentials": ""}, "there are no AWS credentials"),
        ({"AWS_ACCESS_KEY_ID": "k"}, {}, "Partial credentials found"),
        (
            {},
            {"credentials": "", "config": "[default]\ncredential_process = false\n"},
            "credentials from custom-process",
        ),
        ({}, {"config": "no section\n"}, "Unable to parse config file"),
        ({}, {"config": "[default]\nendpoint_url = minio:9000\n"}, "'minio:9000' does not begin with http://"),
        ({"AWS_ENDPOINT_URL": "http://minio:x"}, {}, "the endpoint 'http://minio:x' has no host, a port"),
        ({"MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "odd"}, {}, "ADDRESSING_STYLE is 'odd', but must be one of auto"),
    ],
)
def test_what_can_not_work_is_said_and_not_left_to_stock(
    environment: dict[str, str],
    files: dict[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stock would answer each request with a 500 without a word, and its log would have 500 lines of it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    buckets = Buckets(environment)
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=f"^S3 can't be used: .*{says}") as raised:
            buckets.get("bucket")
        assert isinstance(raised.value.answer, Forbidden)
    (line,) = (each.getMessage() for each in caplog.records if each.name == "headrace.artifacts.s3")
    assert "Look at the variables AWS_" in line  # once, and one line


async def test_credentials_that_can_not_be_had_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "credentials").write_text("")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "none"))
    store = S3Store(Buckets({"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1"}).get("bucket"), "")
    for ask in (store.create("a"), store.open("a"), store.list_folder("")):
        with pytest.raises(StoreUnusable, match="No such file or directory"):
            await ask
    assert {each.name for each in caplog.records} <= {"headrace.artifacts.s3", "asyncio"}


async def test_nobody_at_the_address() -> None:
    store = S3Store(Buckets({"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1"}).get("bucket"), "")
    for ask in (store.create("a"), store.open("a"), store.list_folder("")):
        with pytest.raises(StoreUnusable, match="S3 can't be reached: ") as raised:
            await ask
        assert isinstance(raised.value.answer, Unavailable)


@pytest.mark.parametrize("uri", ["s3://b//team", "s3://b/team//", "s3://b//", "s3://b/a//b"])
def test_doubled_slashes_are_in_stocks_keys(uri: str) -> None:
    """obstore has no key with an empty part: existing artifacts would not be found, new ones not by stock."""
    locations = Locations(resolve({"artifacts_destination": uri}, {}), {})
    with pytest.raises(Declined, match="doubled slash"):
        locations.destination()
    with pytest.raises(Declined, match="doubled slash"):
        locations.find(f"{uri}/0/run/artifacts")
