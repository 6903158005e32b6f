"""What every artifact store promises (artifacts/store.py), on the local disk and on S3."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from headrace.artifacts.local import LocalStore
from headrace.artifacts.s3 import PART_BYTES, Buckets, S3Store
from headrace.artifacts.store import ArtifactStore, Entry, IsAFolder, NotThere, Refused, Size
from headrace.errors import ApiError, Declined, InvalidParameter
from tests.support.servers import Server, start_moto
from tests.support.tls import certificate


def s3_environment(s3: Server) -> dict[str, str]:
    return {"MLFLOW_S3_ENDPOINT_URL": s3.url}


@pytest.fixture
def s3_client(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    return boto3.Session().client("s3", endpoint_url=s3.url)


@pytest.fixture(params=("local", "s3"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "local":
        return LocalStore(str(tmp_path / "artifacts"))
    s3: Server = request.getfixturevalue("s3")
    client = request.getfixturevalue("s3_client")
    bucket = f"contract-{os.urandom(4).hex()}"
    client.create_bucket(Bucket=bucket)
    return S3Store(Buckets(s3_environment(s3)).get(bucket), "a prefix")


async def chunks(content: bytes, failing: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 100_000):
        yield content[start : start + 100_000]
    if failing:
        raise KeyError("the client")


async def put(store: ArtifactStore, path: str, content: bytes, sized: bool = True) -> None:
    await (await store.create(path)).write(chunks(content), len(content) if sized else None)


async def get(store: ArtifactStore, path: str, part: Callable[[int], tuple[int, int]] | None = None) -> bytes:
    download = await store.open(path)
    start, end = part(download.size) if part else (0, download.size)
    try:
        return b"".join([chunk async for chunk in download.read(start, end)])
    finally:
        await download.close()


@pytest.mark.parametrize("size", [0, 1, 100_000, PART_BYTES - 1, PART_BYTES, 3 * PART_BYTES + 7])
@pytest.mark.parametrize("sized", [True, False])
async def test_what_is_put_is_got(store: ArtifactStore, size: int, sized: bool) -> None:
    content = os.urandom(size)
    await put(store, "a/folder/file", content, sized)
    assert await get(store, "a/folder/file") == content
    third = size // 3
    assert await get(store, "a/folder/file", lambda size: (third, size - third)) == content[third : size - third]


async def test_a_new_one_replaces_the_old(store: ArtifactStore) -> None:
    await put(store, "file", b"old")
    before = await store.open("file")
    await put(store, "file", b"newer")
    assert await get(store, "file") == b"newer"
    after = await store.open("file")
    assert after.etag != before.etag
    for download in (before, after):
        await download.close()


@pytest.mark.parametrize("size", [10, 3 * PART_BYTES])
async def test_what_fails_leaves_the_old(store: ArtifactStore, size: int) -> None:
    await put(store, "file", b"old")
    for path in ("file", "another"):
        with pytest.raises(KeyError):
            await (await store.create(path)).write(chunks(bytes(size), failing=True), size * 2)
    assert await get(store, "file") == b"old"
    assert await store.list_folder("") == [Entry("file", False, 3)]


async def test_listings(store: ArtifactStore) -> None:
    for path in ("b", "a/x", "a/deep/er", "a.txt", "ab/c"):
        await put(store, path, b"12")
    folder = [Entry("a", True), Entry("a.txt", False, 2), Entry("ab", True), Entry("b", False, 2)]
    assert await store.list_folder("") == folder
    assert await store.list_folder("a") == [Entry("a/deep", True), Entry("a/x", False, 2)]
    assert await store.list_folder("b") == await store.list_folder("nothing") == []


async def test_deleting(store: ArtifactStore) -> None:
    for path in ("a/file", "a/deep/er", "a.txt", "ab", "b"):
        await put(store, path, b"12")
    for path in ("a/file", "nothing", "b", "ab/below"):
        await store.delete(path)
    assert await store.list_folder("") == [Entry("a", True), Entry("a.txt", False, 2), Entry("ab", False, 2)]
    await store.delete("a")
    assert await store.list_folder("") == [Entry("a.txt", False, 2), Entry("ab", False, 2)]


async def test_sizes(store: ArtifactStore) -> None:
    for path in ("1/a", "1/deep/er", "10/b"):
        await put(store, path, b"12")
    assert await store.measure("1") == Size(2, 4)
    assert await store.measure("") == Size(3, 6)
    assert await store.measure("nothing") == Size()


async def test_what_is_not_there(store: ArtifactStore) -> None:
    await put(store, "a/file", b"1")
    for path in ("nothing", "a/file/below", "a/fil", "b/file"):
        with pytest.raises(NotThere, match=f"No such artifact: '{path}'"):
            await store.open(path)
    with pytest.raises(IsAFolder, match="refers to a directory, not a file: 'a'"):
        await store.open("a")


async def test_links_do_not_lead_out(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "artifacts"))
    await put(store, "inside/file", b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    (tmp_path / "artifacts" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "artifacts" / "out.txt").symlink_to(tmp_path / "outside" / "file")
    (tmp_path / "artifacts" / "in").symlink_to(tmp_path / "artifacts" / "inside")
    os.mkfifo(tmp_path / "artifacts" / "pipe")
    for path in ("out/file", "out.txt", "pipe"):
        with pytest.raises(Declined):
            await store.open(path)
    for path in ("out/file", "out.txt", "out/new"):
        with pytest.raises(Declined):
            await store.create(path)
    with pytest.raises(Declined):
        await store.list_folder("out")
    with pytest.raises(Refused):
        await store.delete("out/file")
    for path in ("out", "out.txt", "pipe"):  # the link, not what it leads to
        await store.delete(path)
    assert (tmp_path / "outside" / "file").read_text() == "outside"
    assert await get(store, "in/file") == b"inside"


async def test_no_file_has_such_a_path(tmp_path: Path) -> None:
    """Folders where a file goes, files where a folder goes, now or meanwhile, links in a circle: 400, nothing done."""
    store = LocalStore(str(tmp_path))
    await put(store, "inside/file", b"inside")
    for link, target in (("a", "b"), ("b", "c"), ("c", "a"), ("self", "self"), ("below", "below/x")):
        (tmp_path / link).symlink_to(tmp_path / target)
    for path in ("inside", "inside/file/below", "inside/file/be/low", "a", "a/x", "self/x/y", "below", "below/x"):
        with pytest.raises(InvalidParameter, match="another path"):
            await put(store, path, b"1")
    for path in ("a", "a/x", "self", "below"):
        with pytest.raises(InvalidParameter):
            await store.open(path)
        with pytest.raises(InvalidParameter):
            await store.list_folder(path)
    await store.delete("self")  # the link
    upload = await store.create("folder/file")
    (tmp_path / "folder").write_text("in the way by now")
    with pytest.raises(InvalidParameter, match="No artifact can have this path"):
        await upload.write(chunks(b"1"), 1)
    upload = await store.create("taken")
    (tmp_path / "taken").mkdir()
    with pytest.raises(InvalidParameter, match="No artifact can have this path"):
        await upload.write(chunks(b"1"), 1)
    assert not list((tmp_path / "taken").iterdir())
    assert await get(store, "inside/file") == b"inside"


async def test_keys_that_s3_does_not_take(s3: Server, s3_client: Any) -> None:
    """S3 has 1,024 bytes for one, the prefix with it; it was a 503, which clients send again."""
    store = S3Store(Buckets(s3_environment(s3)).get("there-is-none"), "team")
    longest = "a/" * 400 + "\u00e9" * 109  # 800 + 218 bytes, and "team/"
    for work in (store.create, store.open, store.list_folder, store.measure, store.delete):
        with pytest.raises(InvalidParameter, match="1025 bytes"):
            await work(longest + "bb")
    with pytest.raises(NotThere):  # one byte less is a key; there is no such bucket
        await put(store, longest + "b", b"1")


async def test_settings_that_are_stocks(s3: Server) -> None:
    for name, value in (
        ("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012"),
        ("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"ACL": "private"}'),
        ("MLFLOW_S3_UPLOAD_EXTRA_ARGS", "[1]"),
    ):
        with pytest.raises(Declined):
            Buckets(s3_environment(s3) | {name: value}).get("bucket")


async def test_no_bucket(s3: Server, s3_client: Any) -> None:
    store = S3Store(Buckets(s3_environment(s3)).get("there-is-none"), "")
    with pytest.raises(NotThere, match="The bucket of the server's artifacts does not exist"):  # not sent again
        await put(store, "a", b"1")
    with pytest.raises(Declined):
        await store.open("a")


async def test_encryption_and_types(s3: Server, s3_client: Any) -> None:
    s3_client.create_bucket(Bucket="encrypted")
    arguments = '{"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:us-east-1:123456789012:key/a"}'
    bucket = Buckets(s3_environment(s3) | {"MLFLOW_S3_UPLOAD_EXTRA_ARGS": arguments}).get("encrypted")
    for name, size in (("small.tar.gz", 10), ("large.csv", 2 * PART_BYTES)):
        await put(S3Store(bucket, "p"), name, bytes(size))
        head = s3_client.head_object(Bucket="encrypted", Key=f"p/{name}")
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"].endswith("key/a")
    assert head["ContentType"] == "text/csv"
    assert s3_client.head_object(Bucket="encrypted", Key="p/small.tar.gz")["ContentEncoding"] == "gzip"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
async def test_certificates_that_nobody_trusts(tmp_path: Path, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)  # with one, S3 is stock's
    server = start_moto(tmp_path, *certificate(tmp_path))
    try:
        trusting = {"MLFLOW_S3_ENDPOINT_URL": server.url, "MLFLOW_S3_IGNORE_TLS": "true"}
        boto3.Session().client("s3", endpoint_url=server.url, verify=False).create_bucket(Bucket="secured")
        store = S3Store(Buckets(trusting).get("secured"), "")
        await put(store, "file", b"1")
        assert await get(store, "file") == b"1"
        await store.delete("file")
        assert await store.list_folder("") == []
        careful = S3Store(Buckets({"MLFLOW_S3_ENDPOINT_URL": server.url}).get("secured"), "")
        with pytest.raises(Declined):
            await put(careful, "file", b"1")
        with pytest.raises(ApiError):
            await careful.delete("file")
    finally:
        server.stop()


async def test_the_role_of_the_instance(s3: Server, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moto is the instance's metadata service, too; it gives the credentials of a role to whoever asks."""
    s3_client.create_bucket(Bucket="of-a-role")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s3.url)
    store = S3Store(Buckets(s3_environment(s3)).get("of-a-role"), "")
    await put(store, "file", b"1")
    url, size = await store.sign_download("file", 60)
    assert size == 1
    assert "X-Amz-Security-Token=" in url
    assert (await asyncio.to_thread(requests.get, url)).content == b"1"
