"""The URLs of all parts are those that botocore signs, one by one."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from headrace.artifacts import s3_calls
from headrace.artifacts.part_urls import all_parts
from headrace.artifacts.s3_calls import Calls

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PART: dict[str, Any] = {"Bucket": "bucket", "Key": "a b/größe~+&=%41/c.bin", "UploadId": "2~abc.def_-/+="}


def client(token: str | None, style: str, signature: str, endpoint: str | None, region: str) -> Any:
    session = botocore.session.get_session()
    session.set_credentials("AKIDEXAMPLE", SECRET, token)
    config = Config(signature_version=signature, s3={"addressing_style": style})
    return session.create_client("s3", region_name=region, config=config, endpoint_url=endpoint)


@pytest.mark.parametrize("token", [None, "a/token+with=signs"])
@pytest.mark.parametrize("style", ["path", "virtual"])
@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9000", "https://minio.example", "https://s3.example:443"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_they_are_botocores(token: str | None, style: str, endpoint: str | None, region: str) -> None:
    s3 = client(token, style, "s3v4", endpoint, region)
    for _ in range(3):  # until all are of one second
        urls = [
            s3.generate_presigned_url("upload_part", Params={**PART, "PartNumber": number}, ExpiresIn=3600)
            for number in range(1, 13)
        ]
        found = all_parts(urls[0], SECRET, len(urls))
        if found == urls or (found is None and endpoint == "https://s3.example:443"):
            return  # where the header has no port that the URL has, each is left to botocore
    assert found == urls


def test_what_is_signed_otherwise_is_left_to_botocore() -> None:
    s3 = client(None, "path", "s3", "http://127.0.0.1:9", "us-east-1")
    first = s3.generate_presigned_url("upload_part", Params={**PART, "PartNumber": 1}, ExpiresIn=3600)
    assert all_parts(first, SECRET, 2) is None
    s3 = client(None, "path", "s3v4", "http://127.0.0.1:9", "us-east-1")
    first = s3.generate_presigned_url("upload_part", Params={**PART, "PartNumber": 1}, ExpiresIn=3600)
    assert all_parts(first, SECRET, 2) is not None
    assert all_parts(first, "another secret", 2) is None
    assert all_parts(first.replace("partNumber=1", "partNumber=2"), SECRET, 2) is None


@pytest.mark.parametrize("secret", [SECRET, "one that has changed meanwhile"])
def test_an_upload_has_a_url_for_each_part(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    session = botocore.session.get_session()
    session.set_credentials("AKIDEXAMPLE", SECRET)
    calls = Calls("bucket", session, {"region_name": "us-east-1", "config": Config(signature_version="s3v4")}, {})
    asked = []

    def reckon(first: str, _: str, count: int) -> list[str] | None:
        asked.append(count)
        return all_parts(first, secret, count)

    monkeypatch.setattr(s3_calls, "all_parts", reckon)
    urls = calls.part_urls("a", "id", 3)
    assert asked == [3]
    assert [url.partition("partNumber=")[2].partition("&")[0] for url in urls] == ["1", "2", "3"]
    assert len({url.rpartition("X-Amz-Signature=")[2] for url in urls}) == 3
