"""Artifacts with MLflow's own client, transfers that break off, and stores that fail."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import requests

from headrace.cli.aws import PAST_THE_TUNNEL
from tests.support.databases import Databases
from tests.support.faults import Fault, FaultyProxy
from tests.support.fork_server import client_environment
from tests.support.processes import wait_until
from tests.support.servers import Server, start_headrace
from tests.support.tls import TLSProxy, certificate

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MEBIBYTE = 1024 * 1024
BUCKET = "artifacts"


class Subject:
    """A Headrace, its store, and what is in it."""

    def __init__(self, kind: str, server: Server, folder: Path, s3: Any) -> None:
        self.kind, self.server, self.folder, self.s3 = kind, server, folder, s3
        self.url = server.url + ARTIFACTS

    def stored(self, bucket: str = BUCKET) -> list[str]:
        """Every file or object, half-written ones, too."""
        if self.kind == "local":
            files = (self.folder / "artifacts").rglob("*")
            return sorted(str(file.relative_to(self.folder / "artifacts")) for file in files if file.is_file())
        uploads = self.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        objects = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return sorted([o["Key"] for o in objects] + [f"upload of {u['Key']}" for u in uploads])

    @property
    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.server.process.pid).children()
        return [child for child in children if "headrace.worker" in " ".join(child.cmdline())]

    def receiving(self) -> bool:
        """Whether a worker writes to a file that has no name yet (Linux)."""
        folder = str(self.folder / "artifacts")
        files = [link for worker in self.workers for link in links_of(worker.pid)]
        return any(file.startswith(folder) and file.endswith("(deleted)") for file in files)

    def store(self, path: str, content: bytes) -> None:
        """Put an artifact there, past the server."""
        if self.kind == "local":
            file = self.folder / "artifacts" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        else:
            self.s3.put_object(Bucket=BUCKET, Key=path, Body=content)


def links_of(pid: int) -> list[str]:
    """Where a process's descriptors lead."""
    found = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            found.append(os.readlink(link))
    return found


def client_of(s3: Server) -> Any:
    return boto3.client(
        "s3", endpoint_url=s3.url, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )


def environment(endpoint: str) -> dict[str, str]:
    return {
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="module", params=("local", "s3"))
def subject(
    request: pytest.FixtureRequest, databases: Databases, s3: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("artifacts")
    options = ["--artifacts-destination", f"s3://{BUCKET}"] if request.param == "s3" else []
    client = client_of(s3)
    if request.param == "s3":
        client.create_bucket(Bucket=BUCKET)
    server = start_headrace(databases.migrated("sqlite"), folder, *options, env=environment(s3.url), until="/health")
    yield Subject(request.param, server, folder, client)
    server.stop()


CLIENT = """
import hashlib, os, pathlib, sys, mlflow
from mlflow import MlflowClient
folder = pathlib.Path(sys.argv[2])
mlflow.set_tracking_uri(sys.argv[1])
names = ["plain.txt", "with space.txt", "Unicode-\\u00fc-\\u65e5.txt", "percent %.txt", "plus+.txt"]
names += ["a&b=c.bin", "empty", "semi;colon,comma.txt", "quote's.txt", "~x[y]{z}^.txt"]
for name in names:
    for sub in ("", "deep/er folder"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        (folder / sub / name).write_bytes(b"" if name == "empty" else os.urandom(70_000))
big = folder / "deep" / "big.bin"
big.write_bytes(os.urandom(64 * 1024 * 1024))
with mlflow.start_run() as run:
    mlflow.log_artifacts(str(folder), "tree")
    mlflow.log_artifact(str(folder / "with space.txt"))
    mlflow.log_text("hello", "texts/hello.txt")
    mlflow.log_dict({"a": 1}, "a.json")
client = MlflowClient()
assert {f.path for f in client.list_artifacts(run.info.run_id)} == {"tree", "with space.txt", "texts", "a.json"}
assert client.list_artifacts(run.info.run_id, "a.json") == []
got = pathlib.Path(client.download_artifacts(run.info.run_id, "tree", sys.argv[3]))
def tree(root):
    files = [f for f in root.rglob("*") if f.is_file()]
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
assert tree(folder) == tree(got), set(tree(folder)) ^ set(tree(got))
assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/texts/hello.txt") == "hello"
assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/a.json") == {"a": 1}
import matplotlib, numpy
matplotlib.use("agg")
from matplotlib import pyplot
from sklearn.linear_model import LinearRegression
figure, axes = pyplot.subplots()
model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
with mlflow.start_run() as run:
    mlflow.log_figure(figure, "figures/figure.png")
    mlflow.log_image(numpy.zeros((8, 8, 3), dtype=numpy.uint8), "image.png")
    model_uri = mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"]).model_uri
assert abs(mlflow.sklearn.load_model(model_uri).predict([[2.0]])[0] - 4.0) < 1e-6
assert mlflow.artifacts.load_image(f"runs:/{run.info.run_id}/image.png").size == (8, 8)
"""


def test_mlflows_client(subject: Subject, tmp_path: Path) -> None:
    for name in ("sent", "got"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, subject.server.url, tmp_path / "sent", tmp_path / "got"],
        env=client_environment() | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_upload_that_breaks_off_leaves_nothing(subject: Subject) -> None:
    before = subject.stored()
    address = subject.server.url.removeprefix("http://").split(":")
    for size, sent in ((20 * MEBIBYTE, 12 * MEBIBYTE), (1000, 10)):
        with socket.create_connection((address[0], int(address[1]))) as connection:
            head = f"PUT {ARTIFACTS}/broken/off.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(head.encode() + bytes(sent))
            if sent > MEBIBYTE:
                wait_until(lambda: subject.receiving() or subject.stored() != before, "some of it has arrived")
        wait_until(lambda: subject.stored() == before, "nothing of it is left")
    # what was there stays
    requests.put(f"{subject.url}/broken/off.bin", data=b"whole").raise_for_status()
    with socket.create_connection((address[0], int(address[1]))) as connection:
        connection.sendall(head.encode() + bytes(10))
    assert requests.get(f"{subject.url}/broken/off.bin").content == b"whole"


def test_an_upload_whose_worker_is_killed(subject: Subject) -> None:
    """On the disk nothing is left. In S3 the parts are, which no one can tell from an upload that goes on: the bucket's
    lifecycle rule drops them (docs/artifacts.md)."""
    before = subject.stored()
    host, port = subject.server.url.removeprefix("http://").split(":")
    (worker,) = subject.workers
    with socket.create_connection((host, int(port))) as connection:
        head = f"PUT {ARTIFACTS}/killed/off.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: {20 * MEBIBYTE}\r\n\r\n"
        connection.sendall(head.encode() + bytes(12 * MEBIBYTE))
        wait_until(lambda: subject.receiving() or subject.stored() != before, "some of it has arrived")
        worker.kill()
        wait_until(lambda: subject.server.answers("/health"), "there is a new worker")
    left = subject.stored()
    if subject.kind == "s3":
        assert left == sorted([*before, "upload of killed/off.bin"])
        (upload,) = subject.s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
        subject.s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    else:
        assert left == before
    assert requests.get(f"{subject.url}/killed/off.bin").status_code >= 400
    requests.put(f"{subject.url}/killed/off.bin", data=b"again").raise_for_status()


class Counted:
    """A body of `count` equal blocks, and its digest."""

    def __init__(self, count: int) -> None:
        self.block = os.urandom(MEBIBYTE)
        self.count = count
        self.sent = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.count):
            block = number.to_bytes(8, "big") + self.block[8:]
            self.sent.update(block)
            yield block


def test_a_gibibyte(databases: Databases, tmp_path: Path) -> None:
    """To the local disk, in little memory; what is got is what was put."""
    server = start_headrace(databases.migrated("sqlite"), tmp_path, until="/health")
    subject = Subject("local", server, tmp_path, None)
    try:
        content = Counted(1024)
        with Peak(subject) as peak, closing(http.client.HTTPConnection(server.url[7:], timeout=300)) as connection:
            connection.request("PUT", f"{ARTIFACTS}/large.bin", content, {"Content-Length": str(1024 * MEBIBYTE)})
            assert connection.getresponse().read() == b""
            got = hashlib.sha256()
            connection.request("GET", f"{ARTIFACTS}/large.bin")
            answer = connection.getresponse()
            while chunk := answer.read(MEBIBYTE):
                got.update(chunk)
        assert got.hexdigest() == content.sent.hexdigest()
        assert peak.grown < 32 * MEBIBYTE
    finally:
        server.stop()
        (tmp_path / "artifacts" / "large.bin").unlink()


def test_chunked_uploads(subject: Subject) -> None:
    for count in (0, 1, 40):
        block = os.urandom(MEBIBYTE)
        answer = requests.put(f"{subject.url}/chunked.bin", data=(block for _ in range(count)))
        assert (answer.status_code, answer.headers["headrace-answered-by"]) == (200, "native")
        assert requests.get(f"{subject.url}/chunked.bin").content == block * count


def test_many_at_once_in_little_memory(subject: Subject) -> None:
    """32 downloads and uploads, 512 MiB together: memory is bounded by what is under way, not by what is asked for."""
    size = 16 * MEBIBYTE
    address = subject.server.url.removeprefix("http://")
    subject.store("many/stored", bytes(size))

    def download(_: int) -> bool:
        received = 0
        with requests.get(f"{subject.url}/many/stored", stream=True, timeout=300) as answer:
            for chunk in answer.iter_content(MEBIBYTE):
                received += len(chunk)
        return received == size

    def upload(number: int) -> bool:
        with closing(http.client.HTTPConnection(address, timeout=300)) as connection:
            blocks = itertools.repeat(bytes(MEBIBYTE), size // MEBIBYTE)
            connection.request("PUT", f"{ARTIFACTS}/many/{number}", blocks, {"Content-Length": str(size)})
            return connection.getresponse().status == 200

    assert download(0)
    assert upload(0)
    with Peak(subject) as downloads, ThreadPoolExecutor(32) as pool:
        assert all(pool.map(download, range(32)))
    with Peak(subject) as uploads, ThreadPoolExecutor(32) as pool:
        assert all(pool.map(upload, range(32)))
    grown = f"{downloads.grown / MEBIBYTE:.0f} MiB for downloads, {uploads.grown / MEBIBYTE:.0f} for uploads"
    print(grown)
    assert downloads.grown < 64 * MEBIBYTE, grown
    assert uploads.grown < 256 * MEBIBYTE, grown


def test_clients_that_go_away_make_room(subject: Subject) -> None:
    """More downloads than may run at once, none of them read: the next one is not kept waiting."""
    content = os.urandom(8 * MEBIBYTE)
    requests.put(f"{subject.url}/unread.bin", data=content).raise_for_status()
    host, port = subject.server.url.removeprefix("http://").split(":")
    request = f"GET {ARTIFACTS}/unread.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    connections = [socket.create_connection((host, int(port))) for _ in range(40)]
    for connection in connections:
        connection.sendall(request)
    connections[0].recv(1)
    for connection in connections:
        connection.close()
    assert requests.get(f"{subject.url}/unread.bin", timeout=60).content == content


class Peak:
    """How much a server's own processes grow, in bytes: proportional (on Linux) or resident set size."""

    def __init__(self, subject: Subject) -> None:
        self._workers = subject.workers
        self._before = self._now()
        self._done = threading.Event()
        self._watching = threading.Thread(target=self._watch)
        self.grown = 0

    def _now(self) -> int:
        kind = "pss" if sys.platform == "linux" else "rss"
        return sum(int(getattr(worker.memory_full_info(), kind)) for worker in self._workers)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.grown = max(self.grown, self._now() - self._before)

    def __enter__(self) -> Peak:
        assert self._workers
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watching.join()


class Failing:
    """A Headrace whose S3 has a proxy with faults in front of it."""

    def __init__(self, server: Server, proxy: FaultyProxy, s3: Any) -> None:
        self.server, self.proxy, self.s3 = server, proxy, s3
        self.url = server.url + ARTIFACTS

    def stored(self) -> list[str]:
        return Subject("s3", self.server, Path(), self.s3).stored(FAILING)


FAILING = "failing"


@pytest.fixture(scope="module")
def failing(databases: Databases, s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    """Faults by the artifact's name."""

    def fault(line: str, before: int) -> Fault | None:
        method, target, _ = line.split(" ")
        if "busy-twice" in target and before < 2:
            return Fault("unavailable")
        if "reset-once" in target and before < 1:
            return Fault("reset")
        if "always-busy" in target and (method == "PUT" or "uploadId" not in target):
            return Fault("unavailable")
        if "cut" in target and method == "GET":
            return Fault("cut", 3 * MEBIBYTE)
        return None

    client = client_of(s3)
    client.create_bucket(Bucket=FAILING)
    proxy = FaultyProxy(s3.url, fault)
    proxy.start()
    options = ("--artifacts-destination", f"s3://{FAILING}")
    folder = tmp_path_factory.mktemp("failing")
    env = environment(proxy.url)
    server = start_headrace(databases.migrated("sqlite"), folder, *options, env=env, until="/health")
    yield Failing(server, proxy, client)
    server.stop()
    proxy.stop()


@pytest.mark.parametrize(
    ("variables", "status", "says"),
    [
        ({"AWS_PROFILE": "nobody"}, 403, "S3 can't be used: The config profile (nobody) could not be found. Look at"),
        ({"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1"}, 503, "S3 can't be reached at http://127.0.0.1:1: "),
        ({"MLFLOW_S3_ENDPOINT_URL": "https://127.0.0.1:{tls}"}, 503, "self-signed certificate. Let AWS_CA_BUNDLE name"),
    ],
)
def test_a_bucket_that_can_not_be_used_is_answered_without_stock(
    variables: dict[str, str], status: int, says: str, s3: Server, databases: Databases, tmp_path: Path
) -> None:
    """Stock would come up for each, answer 500 without a word, and fill the log with tracebacks."""
    tls = TLSProxy(int(s3.url.rpartition(":")[2]), *certificate(tmp_path))
    tls.start()
    env = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    env |= {name: value.format(tls=tls.port) for name, value in variables.items()}
    destination = ("--artifacts-destination", "s3://bucket")
    server = start_headrace(databases.migrated("sqlite"), tmp_path, *destination, env=env, until="/health")
    try:
        for method, path in (("PUT", f"{ARTIFACTS}/a"), ("GET", f"{ARTIFACTS}/a"), ("GET", f"{ARTIFACTS}?path=a")):
            answer = requests.request(method, server.url + path, data=b"1" if method == "PUT" else None, timeout=60)
            assert (answer.status_code, answer.headers["headrace-answered-by"]) == (status, "native"), path
            assert "artifact store" in answer.json()["message"]
    finally:
        server.stop()
        tls.stop()
    log = server.process.log.read_text()
    assert says in log
    assert "Traceback" not in log
    assert "stock MLflow starts" not in log


def test_a_download_that_s3_cuts_is_no_short_200(failing: Failing) -> None:
    failing.s3.put_object(Bucket=FAILING, Key="whole.bin", Body=b"x" * MEBIBYTE)
    failing.s3.put_object(Bucket=FAILING, Key="cut.bin", Body=os.urandom(8 * MEBIBYTE))
    assert requests.get(f"{failing.url}/whole.bin").content == b"x" * MEBIBYTE
    connection = http.client.HTTPConnection(failing.server.url.removeprefix("http://"), timeout=120)
    connection.request("GET", f"{ARTIFACTS}/cut.bin")
    answer = connection.getresponse()
    assert answer.headers["Content-Length"] == str(8 * MEBIBYTE)
    try:
        content = answer.read()
    except (http.client.IncompleteRead, ConnectionError):
        return  # an aborted response
    finally:
        connection.close()
    assert content == failing.s3.get_object(Bucket=FAILING, Key="cut.bin")["Body"].read()  # retried, and complete


@pytest.mark.parametrize("fault", ["busy-twice", "reset-once"])
@pytest.mark.parametrize("size", [1000, 12 * MEBIBYTE])
def test_what_s3_does_the_next_time_is_tried_again(failing: Failing, fault: str, size: int) -> None:
    content = os.urandom(size)
    url = f"{failing.url}/{fault}/{size}"
    answer = requests.put(url, data=content, timeout=60)
    assert answer.status_code == 200, answer.text
    found = requests.get(url, timeout=60)
    assert found.headers["headrace-answered-by"] == "native"
    assert found.content == content
    if size > MEBIBYTE:
        parts = [line for line in failing.proxy.seen if fault in line and "partNumber=1&" in line]
        assert len(parts) > 1, failing.proxy.seen


@pytest.mark.parametrize("size", [1000, 12 * MEBIBYTE])
def test_an_upload_that_s3_never_takes(failing: Failing, size: int) -> None:
    before = failing.stored()
    answer = requests.put(f"{failing.url}/always-busy/{size}", data=bytes(size), timeout=120)
    assert answer.status_code == 503
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert failing.stored() == before


DIRECT = "direct"
DIRECT_CLIENT = """
import hashlib, os, pathlib, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
folder = pathlib.Path(sys.argv[2])
(folder / "large.bin").write_bytes(os.urandom(12 * 1024 * 1024 + 1))
(folder / "small.txt").write_text("small")
with mlflow.start_run() as run:
    mlflow.log_artifacts(str(folder), "a folder")
got = pathlib.Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="a folder"))
for name in ("large.bin", "small.txt"):
    assert (folder / name).read_bytes() == (got / name).read_bytes()
"""


@pytest.fixture(scope="module")
def direct(databases: Databases, s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    """A Headrace with --artifact-transfer direct; the proxy in front of S3 sees what goes there."""
    proxy = FaultyProxy(s3.url, lambda line, before: None)
    proxy.start()
    client = client_of(s3)
    client.create_bucket(Bucket=DIRECT)
    options = ("--artifacts-destination", f"s3://{DIRECT}", "--artifact-transfer", "direct")
    folder = tmp_path_factory.mktemp("direct")
    server = start_headrace(databases.migrated("sqlite"), folder, *options, env=environment(proxy.url), until="/health")
    yield Failing(server, proxy, client)
    server.stop()
    proxy.stop()


IN_PARTS = {
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(6 * MEBIBYTE),
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(6 * MEBIBYTE),
}
WHOLE = {"MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"}


@pytest.mark.parametrize(
    ("variables", "parts_of_it"),
    [(IN_PARTS, 3), (WHOLE, 0), (PAST_THE_TUNNEL, 2)],
    ids=["in parts", "whole", "as connect prints"],
)
def test_mlflows_client_and_direct_transfer(
    direct: Failing, variables: dict[str, str], parts_of_it: int, tmp_path: Path
) -> None:
    """With its multipart ways, and (as an older client) without: then downloads are redirected."""
    direct.proxy.seen.clear()
    done = subprocess.run(
        [sys.executable, "-c", DIRECT_CLIENT, direct.server.url, tmp_path],
        env=client_environment() | variables | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    signed = [line for line in direct.proxy.seen if "X-Amz-Signature=" in line]
    parts = [line for line in signed if line.startswith("PUT ") and "partNumber=" in line]
    downloads = [line for line in signed if line.startswith("GET ") and "large.bin" in line]
    assert len(parts) == parts_of_it, direct.proxy.seen
    assert downloads, direct.proxy.seen


def test_redirects(direct: Failing) -> None:
    content = os.urandom(9 * MEBIBYTE)
    direct.s3.put_object(Bucket=DIRECT, Key="large.html", Body=content)
    direct.s3.put_object(Bucket=DIRECT, Key="small.bin", Body=b"small")
    found = requests.get(f"{direct.url}/large.html", allow_redirects=False)
    assert (found.status_code, found.content) == (307, b"")
    assert found.headers["Location"].startswith(direct.proxy.url)
    assert found.headers["Cache-Control"] == "no-store"
    assert found.headers["headrace-answered-by"] == "native"
    fetched = requests.get(f"{direct.url}/large.html", auth=("somebody", "their password"))
    assert fetched.content == content
    assert fetched.headers["Content-Disposition"] == 'attachment; filename="large.html"'
    assert "Authorization" not in fetched.request.headers
    part = requests.get(f"{direct.url}/large.html", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, content[5:10])
    whole = requests.head(f"{direct.url}/large.html")
    assert (whole.status_code, whole.headers["Content-Length"]) == (200, str(len(content)))
    small = requests.get(f"{direct.url}/small.bin", allow_redirects=False)
    assert (small.status_code, small.content) == (200, b"small")


def test_with_always_proxy_no_client_sees_the_bucket(databases: Databases, s3: Server, tmp_path: Path) -> None:
    """As where the store is on a network of its own: MLflow's client, by itself, would ask the bucket."""
    proxy = FaultyProxy(s3.url, lambda line, before: None)
    proxy.start()
    client_of(s3).create_bucket(Bucket="apart")
    options = ("--artifacts-destination", "s3://apart", "--artifact-transfer", "always-proxy")
    server = start_headrace(
        databases.migrated("sqlite"), tmp_path, *options, env=environment(proxy.url), until="/health"
    )
    try:
        env = client_environment() | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
        command: list[str | Path] = [sys.executable, "-c", DIRECT_CLIENT, server.url, tmp_path]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        api = f"{server.url}/api/2.0"
        wanted = {"run_id": "a", "path": "a"}
        for answer in (
            requests.get(f"{api}/mlflow-artifacts/presigned/0/a", timeout=60),
            requests.post(f"{api}/mlflow-artifacts/mpu/create/0", json={"path": "a", "num_parts": 2}, timeout=60),
            requests.post(f"{api}/mlflow/artifacts/presigned-download-url", json=wanted, timeout=60),
        ):
            assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
            assert "--artifact-transfer always-proxy" in answer.json()["message"]
    finally:
        server.stop()
        proxy.stop()
    assert len(proxy.seen) > 2
    assert not any("X-Amz-Signature=" in line for line in proxy.seen)


def test_redirects_are_off_by_default(failing: Failing) -> None:
    failing.s3.put_object(Bucket=FAILING, Key="large.bin", Body=bytes(9 * MEBIBYTE))
    assert requests.get(f"{failing.url}/large.bin", allow_redirects=False).status_code == 200
