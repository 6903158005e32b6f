"""Artifacts: the same requests to stock and to Headrace, on the local disk and on S3, and the same answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import boto3
import pytest
import requests

from tests.support.databases import Database, Databases
from tests.support.servers import Server, start_headrace, start_stock

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MLFLOW = "/api/2.0/mlflow"
MPU = "/api/2.0/mlflow-artifacts/mpu"
PRESIGNED = "/api/2.0/mlflow-artifacts/presigned"
PART = {"part_number": 1, "etag": "etag"}
SIGNATURE = ("X-Amz-Signature", "X-Amz-Date", "X-Amz-Credential")
ODD_NAMES = (
    "plain.txt",
    "with space.csv",
    "ünïcödé-日本.png",
    "日本.bin",
    "plus+sign.json",
    "a&b=c.txt",
    "50%.txt",
    'quote\'s "double".txt',
    "model.tar.gz",
    "MLmodel",
    "page.html",
    "picture.svg",
    "data.xml",
    ".hidden",
    "no_extension",
    "~tilde*star[x]{y}|z^.txt",
    "semi;colon,comma!$().txt",
    "..two",
    "colon:inside.txt",
)
# Encoded once, twice, and in other ways out: each is tried as the path of every route.
ESCAPES = (
    "../secret",
    "a/../../secret",
    "a/../b",
    "%2e%2e/secret",
    "%2e%2e%2fsecret",
    "%252e%252e%252fsecret",
    "%25252e%25252e%25252fsecret",
    "..%5csecret",
    "..%255csecret",
    "a%5cb",
    "%2fetc%2fpasswd",
    "%252fetc%252fpasswd",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "file%3A%2F%2F%2Fetc%2Fpasswd",
    "C:/windows",
    "C%3A%5Cwindows",
    "a%2500b",
    "a%0ab",
    "a//b",
    "a/./b",
    "./a",
    "a/",
    "%C3%28",
    "link/secret",
    "linked",
)
NUMBERS = itertools.count()


class Subject:
    """A server and its artifacts' destination."""

    def __init__(self, server: Server, database: Database, folder: Path) -> None:
        self.server, self.database, self.folder = server, database, folder

    def send(self, method: str, path: str, **more: Any) -> requests.Response:
        """The target goes out as it is: requests would resolve `..` in it."""
        request = requests.Request(method, self.server.url, **more).prepare()
        request.url = self.server.url + path
        with requests.Session() as session:
            return session.send(request, timeout=60)

    def create_version(self, name: str, source: str, run: str) -> None:
        self.send("POST", f"{MLFLOW}/registered-models/create", json={"name": name}).raise_for_status()
        body = {"name": name, "source": source, "run_id": run}
        self.send("POST", f"{MLFLOW}/model-versions/create", json=body).raise_for_status()

    def create_run(self, location: str | None = None) -> tuple[str, str]:
        """(experiment's id, run's id)."""
        body = {"name": f"experiment {next(NUMBERS)}", "artifact_location": location or ""}
        experiment = self.send("POST", f"{MLFLOW}/experiments/create", json=body).json()["experiment_id"]
        run = self.send("POST", f"{MLFLOW}/runs/create", json={"experiment_id": experiment, "start_time": 1})
        return experiment, run.json()["run"]["info"]["run_id"]

    def create_logged_model(self, experiment: str) -> str:
        body = {"experiment_id": experiment, "name": "signed"}
        model = self.send("POST", f"{MLFLOW}/logged-models", json=body).json()["model"]
        return str(model["info"]["model_id"])


class Pair:
    def __init__(self, store: str, stock: Subject, headrace: Subject) -> None:
        self.store, self.stock, self.headrace = store, stock, headrace
        self.both = (stock, headrace)

    def same(self, method: str, path: str, by: str = "native", **more: Any) -> requests.Response:
        """Headrace's answer, which is stock's; `by`: who must give it, or "any"."""
        expected, found = (subject.send(method, path, **more) for subject in self.both)
        assert seen(found) == seen(expected), (
            f"{method} {path}: {found.content[:200]!r}, stock {expected.content[:200]!r}"
        )
        if by != "any":
            assert found.headers["headrace-answered-by"] == by, f"{method} {path}"
        return found


def seen(response: requests.Response) -> tuple[int, Any, dict[str, str | None]]:
    """What a client sees of an answer."""
    names = ("Content-Type", "Content-Disposition", "X-Content-Type-Options", "X-Frame-Options")
    headers = {name: response.headers.get(name) for name in names}
    content = response.content.replace(b"of-headrace", b"of-stock")
    try:
        return response.status_code, json.loads(content), headers
    except ValueError:
        return response.status_code, content, headers


@pytest.fixture(scope="module", params=("local", "s3"))
def pair(
    request: pytest.FixtureRequest, databases: Databases, s3: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    env: Mapping[str, str] = {
        "MLFLOW_S3_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with ExitStack() as stack, ThreadPoolExecutor() as pool:

        def subject(name: str, start: Callable[..., Server]) -> Subject:
            database = databases.migrated("sqlite")
            folder = tmp_path_factory.mktemp(name)
            options = []
            if request.param == "s3":
                client_of(s3).create_bucket(Bucket=f"of-{name}")
                options = ["--artifacts-destination", f"s3://of-{name}/some/prefix"]
            else:
                links(folder)
            server = start(database, folder, *options, env=env)
            stack.callback(server.stop)
            return Subject(server, database, folder)

        stock = pool.submit(subject, "stock", start_stock)
        headrace = pool.submit(subject, "headrace", start_headrace)
        yield Pair(request.param, stock.result(), headrace.result())


def client_of(s3: Server) -> Any:
    return boto3.client("s3", endpoint_url=s3.url, aws_access_key_id="key", aws_secret_access_key="s")


def links(folder: Path) -> None:
    """Links in the destination that lead out of it."""
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").write_text("secret")
    (artifacts / "link").symlink_to(folder / "outside")
    (artifacts / "linked").symlink_to(folder / "outside" / "secret")


def test_odd_names(pair: Pair) -> None:
    for number, name in enumerate(ODD_NAMES):
        path = f"{ARTIFACTS}/odd/{quote(name, safe='')}"
        content = name.encode() * (number % 3)  # some are empty
        pair.same("PUT", path, data=content)
        found = pair.same("GET", path)
        assert found.content == content
        assert found.headers["Content-Length"] == str(len(content))
        head = pair.headrace.send("HEAD", path)
        assert head.status_code == 200
        assert head.headers["Content-Length"] == str(len(content))
    listed = pair.same("GET", f"{ARTIFACTS}?path=odd").json()["files"]
    assert len(listed) == len(ODD_NAMES)


# Stock cuts these, takes them for others, or refuses them.
CUT_BY_STOCK = (
    "SHAP Xgboost #1.png",
    "#",
    "#a#b#",
    "a%20b.txt",
    "100%25.txt",
    "a%23b",
    "why?.txt",
    "what?a=b&c=d;e+f#g",
    "ends in?",
    "ends in;",
    "ends in#",
    " blank before and after ",
)


def test_names_are_whole(pair: Pair, s3: Server) -> None:
    headrace = pair.headrace
    experiment, run = headrace.create_run()
    folder = f"{experiment}/{run}/artifacts/folder #1?"
    for number, name in enumerate(CUT_BY_STOCK):
        content = f"{number} {name}".encode()
        path = f"{ARTIFACTS}/{quote(f'{folder}/{name}')}"
        assert headrace.send("PUT", path, data=content).status_code == 200
        for found in (
            headrace.send("GET", path),
            headrace.send("GET", f"/get-artifact?run_id={run}&path={quote(f'folder #1?/{name}', safe='')}"),
        ):
            assert (found.content, found.headers["headrace-answered-by"]) == (content, "native")
        assert headrace.send("HEAD", path).headers["Content-Length"] == str(len(content))
        if pair.store == "s3":
            key = f"some/prefix/{folder}/{name}"
            assert client_of(s3).get_object(Bucket="of-headrace", Key=key)["Body"].read() == content
        else:
            files = {file.name: file for file in (headrace.folder / "artifacts").rglob("*") if file.is_file()}
            assert files[name].read_bytes() == content
    for target, prefix in (
        (f"{ARTIFACTS}?path={quote(folder, safe='')}", ""),
        (f"{MLFLOW}/artifacts/list?run_id={run}&path={quote('folder #1?', safe='')}", "folder #1?/"),
    ):
        listed = headrace.send("GET", target).json()["files"]
        assert {each["path"] for each in listed} == {prefix + name for name in CUT_BY_STOCK}
    for name in CUT_BY_STOCK:
        path = f"{ARTIFACTS}/{quote(f'{folder}/{name}')}"
        assert headrace.send("DELETE", path).status_code == 200
        assert headrace.send("GET", path).status_code == 404
    assert "files" not in headrace.send("GET", f"{ARTIFACTS}?path={quote(folder, safe='')}").json()


def test_a_question_mark_as_mlflows_client_sends_it(pair: Pair) -> None:
    path = f"{ARTIFACTS}/asked/why?a=b%20c"
    assert pair.headrace.send("PUT", path, data=b"because").status_code == 200
    assert pair.headrace.send("GET", path).content == b"because"
    assert pair.headrace.send("GET", f"{ARTIFACTS}?path=asked").json()["files"][0]["path"] == "why?a=b c"
    assert pair.headrace.send("DELETE", path).status_code == 200
    assert "files" not in pair.headrace.send("GET", f"{ARTIFACTS}?path=asked").json()


def test_listings(pair: Pair) -> None:
    for path in ("listed/b.txt", "listed/a/deep/file", "listed/c", "listed-too"):
        pair.same("PUT", f"{ARTIFACTS}/{path}", data=b"content")
    for query in ("?path=listed", "?path=listed%2Fa", "?path=listed/c", "?path=nothing", "?path=list"):
        pair.same("GET", f"{ARTIFACTS}{query}")
        pair.same("GET", f"/ajax-api/2.0/mlflow-artifacts/artifacts{query}")
    assert {"path": "listed", "is_dir": True} in pair.headrace.send("GET", ARTIFACTS).json()["files"]


def test_what_is_not_there_or_no_file(pair: Pair) -> None:
    pair.same("PUT", f"{ARTIFACTS}/folder/file", data=b"1")
    pair.same("PUT", f"{ARTIFACTS}/folder/file", data=b"22")
    assert pair.same("GET", f"{ARTIFACTS}/folder/file").content == b"22"
    for path in ("nothing", "nothing/below", "fold", "folder/file/below", "folder"):
        not_there(pair, f"{ARTIFACTS}/{path}", 400 if path == "folder" else 404)
    pair.same("DELETE", f"{ARTIFACTS}/folder/file")
    not_there(pair, f"{ARTIFACTS}/folder/file", 404)


def not_there(pair: Pair, target: str, status: int) -> None:
    """Stock's answer from the disk; on S3 it has a 500, which clients send again, and an empty file for a folder."""
    for method in ("GET", "HEAD"):
        if pair.store == "local":
            found = pair.same(method, target)
        else:
            found = pair.headrace.send(method, target)
            assert found.headers["headrace-answered-by"] == "native"
        assert found.status_code == status


# (method, target, JSON body); a PUT's and upload-artifact's body is bytes
ROUTES_WITH_PATHS: tuple[tuple[str, str, dict[str, object] | None], ...] = (
    ("PUT", f"{ARTIFACTS}/{{path}}", None),
    ("GET", f"{ARTIFACTS}/{{path}}", None),
    ("GET", f"{ARTIFACTS}?path={{path}}", None),
    ("GET", "/get-artifact?run_id={run}&path={path}", None),
    ("GET", "/model-versions/get-artifact?name=of+escapes&version=1&path={path}", None),
    ("GET", f"{MLFLOW}/artifacts/list?run_id={{run}}&path={{path}}", None),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path={path}", None),
    ("GET", f"{PRESIGNED}/{{path}}", None),
    ("POST", f"{MPU}/create/{{path}}", {"path": "file", "num_parts": 1}),
    ("POST", f"{MPU}/complete/{{path}}", {"path": "file", "upload_id": "1", "parts": [PART]}),
    ("POST", f"{MPU}/abort/{{path}}", {"path": "file", "upload_id": "1"}),
    ("POST", f"{MLFLOW}/artifacts/presigned-upload-url", {"run_id": "{run}", "path": "{path}"}),
    ("POST", f"{MLFLOW}/artifacts/presigned-download-url", {"run_id": "{run}", "path": "{path}"}),
)


@pytest.fixture(scope="module")
def runs(pair: Pair) -> list[str]:
    """A run of stock's and one of Headrace's, and a version of a model of each."""
    ids = []
    for subject in pair.both:
        experiment, run = subject.create_run()
        subject.create_version("of escapes", f"mlflow-artifacts:/{experiment}/{run}/artifacts/model", run)
        ids.append(run)
    return ids


@pytest.mark.parametrize("path", ESCAPES)
def test_no_way_out(pair: Pair, path: str, runs: list[str]) -> None:
    folder = pair.headrace.folder
    before = outside(folder)
    for method, target, body in ROUTES_WITH_PATHS:
        answers = []
        for subject, run in zip(pair.both, runs, strict=True):
            more: dict[str, Any] = {"data": b"from outside"} if body is None and method != "GET" else {"json": body}
            if body is not None:
                given = json.dumps(body).replace("{run}", run).replace("{path}", path)
                more = {"data": given, "headers": {"Content-Type": "application/json"}}
            answers.append(subject.send(method, target.replace("{run}", run).replace("{path}", path), **more))
        expected, found = answers
        assert found.content.find(b"root:") == -1
        assert found.content != b"secret"
        assert found.status_code == expected.status_code or expected.status_code == 500, f"{method} {target}"
        assert found.status_code < 500 or expected.status_code >= 500, f"{method} {target}: {found.content!r}"
    # stock would delete what the links lead to, so it is not asked
    found = pair.headrace.send("DELETE", f"{ARTIFACTS}/{path}")
    assert found.status_code in (200, 400, 404), found.content
    assert outside(folder) == before


def test_a_nul_is_refused(pair: Pair, runs: list[str]) -> None:
    """Stock, which is not asked here, keeps it as the text %00."""
    for method, target, body in ROUTES_WITH_PATHS:
        if "{path}" in target:
            url = target.replace("{run}", runs[1]).replace("{path}", "a%00b")
            more: dict[str, Any] = {"json": body} if body is not None or method == "GET" else {"data": b"from outside"}
            found = pair.headrace.send(method, url, **more)
            assert (found.status_code, found.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), url


@pytest.mark.parametrize("path", [".", "./", "%2e", "%252e", "link//secret", "link/./secret"])
def test_what_stock_would_delete_too_much_for(pair: Pair, path: str) -> None:
    pair.headrace.send("PUT", f"{ARTIFACTS}/stays/here", data=b"1").raise_for_status()
    before = outside(pair.headrace.folder)
    found = pair.headrace.send("DELETE", f"{ARTIFACTS}/{path}")
    assert (found.status_code, found.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert pair.headrace.send("GET", f"{ARTIFACTS}/stays/here").content == b"1"
    assert outside(pair.headrace.folder) == before


@pytest.mark.parametrize("path", ["./a/b", "a/./b", "a//b", "a/b/.", "%2e/b", "."])
def test_what_stock_fails_to_store(pair: Pair, path: str) -> None:
    """On S3 stock takes them as names; its 500 elsewhere is a 400."""
    stock, found = (each.send("PUT", f"{ARTIFACTS}/{path}/c", data=b"1") for each in (pair.stock, pair.headrace))
    assert found.status_code == (400 if stock.status_code == 500 else stock.status_code), found.text


def outside(folder: Path) -> list[str]:
    """Every file below the folder that is not in the destination."""
    return sorted(str(file) for file in folder.rglob("*") if "artifacts" not in file.parts)


def test_deleting(pair: Pair) -> None:
    for path in ("gone/a", "gone/b/c", "gone-too", "gonefile", "run/artifacts/a b"):
        pair.same("PUT", f"{ARTIFACTS}/{path}", data=b"1")
    for path in ("gone/b/c", "gone", "gonefile", "nothing", "gone/a/below", "gone-too/below", "run/artifacts/"):
        pair.same("DELETE", f"{ARTIFACTS}/{path}")
        for folder in ("", "gone", "run"):
            pair.same("GET", f"{ARTIFACTS}?path={folder}" if folder else f"{ARTIFACTS}?path=gone-too")
    assert pair.headrace.send("GET", f"{ARTIFACTS}/gone-too").content == b"1"
    pair.same("DELETE", f"{ARTIFACTS}/a", by="stock", data=b"a body")


def test_multipart_uploads(pair: Pair) -> None:
    body = {"path": "/home/me/a b%20c.csv", "num_parts": 2}
    if pair.store == "local":
        pair.same("POST", f"{MPU}/create/parts", json=body)
        return
    content = [bytes([65]) * (5 * 1024 * 1024), b"the rest"]
    for subject in pair.both:
        created = subject.send("POST", f"{MPU}/create/parts/of", json=body)
        assert created.status_code == 200, created.text
        upload = created.json()
        assert [sorted(credential) for credential in upload["credentials"]] == [["part_number", "url"]] * 2
        signed = [without_time(credential["url"], subject) for credential in upload["credentials"]]
        upload_id = upload["upload_id"]
        same_for_both(subject, [(path, query | {"uploadId": ["x"]}) for path, query in signed], "parts")
        parts = []
        for credential, part in zip(upload["credentials"], content, strict=True):
            sent = requests.put(credential["url"], data=part)
            sent.raise_for_status()
            parts.append({"part_number": credential["part_number"], "etag": sent.headers["ETag"], "url": "x"})
        done = {"path": "elsewhere/a b%20c.csv", "upload_id": upload_id, "parts": parts}
        completed = subject.send("POST", f"{MPU}/complete/parts/of", json=done)
        assert (completed.status_code, completed.json()) == (200, {})
        assert completed.headers.get("headrace-answered-by", "native") == "native"
    # the name is taken as it is, not decoded: only a listing can show it
    listed = pair.same("GET", f"{ARTIFACTS}?path=parts/of").json()["files"]
    assert listed == [{"path": "a b%20c.csv", "is_dir": False, "file_size": len(content[0]) + len(content[1])}]


def test_multipart_uploads_that_go_wrong(pair: Pair, s3: Server) -> None:
    if pair.store == "local":
        for what in ("complete", "abort"):
            pair.same("POST", f"{MPU}/{what}/parts", json={"path": "a", "upload_id": "1", "parts": [PART]})
        return
    send = pair.headrace.send
    upload_id = send("POST", f"{MPU}/create/wrong", json={"path": "a", "num_parts": 1}).json()["upload_id"]
    wrong = {"path": "a", "upload_id": upload_id, "parts": [PART]}
    assert send("POST", f"{MPU}/complete/wrong", json=wrong).status_code == 400
    # an upload that is not there; S3 says the same of one that is another key's, moto does not look
    found = send("POST", f"{MPU}/abort/wrong", json={"path": "a", "upload_id": "of nobody"})
    assert (found.status_code, found.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    uploads = client_of(s3).list_multipart_uploads(Bucket="of-headrace").get("Uploads", [])
    assert [upload["Key"] for upload in uploads if upload["UploadId"] == upload_id] == ["some/prefix/wrong/a"]
    aborted = send("POST", f"{MPU}/abort/wrong", json={"path": "a", "upload_id": upload_id})
    assert (aborted.status_code, aborted.json()) == (200, {})
    bad: dict[str, Any]
    for bad in ({"path": "a", "num_parts": 10_001}, {"path": "a", "num_parts": 2**31}):
        assert send("POST", f"{MPU}/create/wrong", json=bad).status_code == 400
    for bad in (
        {"num_parts": 1},
        {"path": "a", "num_parts": "many"},
        {"path": 1, "num_parts": 1},
        {"path": "", "num_parts": 1},
        {},
    ):
        pair.same("POST", f"{MPU}/create/wrong", by="any", json=bad)
    for file in ("..", "a/..", "a\\b"):
        found = send("POST", f"{MPU}/create/wrong", json={"path": file, "num_parts": 1})
        assert found.headers["headrace-answered-by"] == "stock"


def test_signed_urls(pair: Pair, s3: Server) -> None:
    if pair.store == "local":
        pair.same("GET", f"{PRESIGNED}/a")
        for subject in pair.both:
            for number, where in enumerate((None, f"file://{subject.folder}/own")):
                _, run = subject.create_run(where)
                for what in ("upload", "download"):
                    one = {"run_id": run, "path": "a"}
                    found = subject.send("POST", f"{MLFLOW}/artifacts/presigned-{what}-url", json=one)
                    assert found.status_code == (501 if where else 400)
                    assert found.headers.get("headrace-answered-by", "native") == "native"
                    same_for_both(subject, found.json(), f"{what} {number}")
        return
    for name in ("a.csv", "ü b.txt", "no_type"):
        pair.same("PUT", f"{ARTIFACTS}/signed/{quote(name)}", data=b"signed")
        for subject in pair.both:
            found = subject.send("GET", f"{PRESIGNED}/signed/{quote(name)}").json()
            assert (sorted(found), found["headers"], found["file_size"]) == (["file_size", "headers", "url"], {}, 6)
            assert requests.get(found["url"]).content == b"signed"
            same_for_both(subject, without_time(found["url"], subject), name)
    pair.same("GET", f"{PRESIGNED}/signed/nothing")
    for subject in pair.both:
        experiment, run = subject.create_run(f"s3://of-{subject.server.name}/own")
        for what in ("upload", "download"):
            for more in ({}, {"expiration": 60}):
                body = {"run_id": run, "path": "a folder/b.json", **more}
                found = subject.send("POST", f"{MLFLOW}/artifacts/presigned-{what}-url", json=body)
                assert found.headers.get("headrace-answered-by", "native") == "native"
                answer = found.json()
                url = answer.pop("presigned_url")
                signed = without_time(url, subject)
                same_for_both(subject, (signed[0].replace(run, "RUN"), signed[1], answer), f"{what} {more}")
                if what == "upload":
                    requests.put(url, data=b"text", headers=answer["headers"]).raise_for_status()
                else:
                    assert requests.get(url).content == b"text"
        model = subject.create_logged_model(experiment)
        for more in ({}, {"expiration": 60}):
            wanted = {"model_id": model, "path": "MLmodel", **more}
            found = subject.send("POST", f"{MLFLOW}/artifacts/presigned-upload-url", json=wanted)
            assert found.headers.get("headrace-answered-by", "native") == "native"
            signed = without_time(found.json()["presigned_url"], subject)
            same_for_both(subject, (signed[0].replace(model, "MODEL"), signed[1]), f"upload of a model {more}")
        for number, wrong in enumerate(
            ({"path": "a"}, {"run_id": run, "model_id": model, "path": "a"}, {"model_id": "m-none", "path": "a"})
        ):
            found = subject.send("POST", f"{MLFLOW}/artifacts/presigned-upload-url", json=wrong)
            same_for_both(subject, (found.status_code, found.json()), f"upload of none {number}")
            assert found.headers.get("headrace-answered-by", "native") == "native"
        _, proxied = subject.create_run()
        refused: tuple[tuple[str, dict[str, Any]], ...]
        refused = (
            ("upload", {"run_id": proxied, "path": "a"}),
            ("download", {"run_id": run, "path": "nothing"}),
            ("download", {"run_id": run, "path": "a folder/b.json", "expiration": 0}),
            ("upload", {"run_id": "none", "path": "a"}),
        )
        for number, (what, other) in enumerate(refused):
            found = subject.send("POST", f"{MLFLOW}/artifacts/presigned-{what}-url", json=other)
            text = found.text.replace(run, "RUN").replace(proxied, "PROXIED")
            same_for_both(subject, (found.status_code, json.loads(text)), f"{what} {number}")
            assert found.headers.get("headrace-answered-by", "native") == "native"


SEEN: dict[str, Any] = {}


def same_for_both(subject: Subject, value: Any, name: str) -> None:
    """What stock gave under that name is what Headrace gives."""
    if subject.server.name == "stock":
        SEEN[name] = value
    else:
        assert value == SEEN.pop(name)


def without_time(url: str, subject: Subject) -> tuple[str, dict[str, list[str]]]:
    """The path and the query of a signed URL, without what changes from one to the next."""
    parts = urlsplit(url)
    query = {name: values for name, values in parse_qs(parts.query).items() if name not in SIGNATURE}
    return parts.path.replace(f"of-{subject.server.name}", "bucket"), query


def test_uploads_from_the_browser(pair: Pair) -> None:
    upload = "/ajax-api/2.0/mlflow/upload-artifact"
    for where in ("proxied", "own", "elsewhere"):
        for subject in pair.both:
            own = f"s3://of-{subject.server.name}/{where}" if pair.store == "s3" else f"file://{subject.folder}/{where}"
            locations = {"proxied": None, "own": own, "elsewhere": "mlflow-artifacts:/else/where"}
            _, run = subject.create_run(locations[where])
            for path, kind in (("a.csv", "text/plain"), ("deep/er/b.json", "application/json"), ("a.csv", None)):
                headers = {"Content-Type": kind} if kind else {}
                data = f"of {path} as {kind}".encode()
                found = subject.send("POST", f"{upload}?run_uuid={run}&path={quote(path)}", data=data, headers=headers)
                by = "stock" if where == "elsewhere" else "native"
                assert found.headers.get("headrace-answered-by", by) == by
                same_for_both(subject, seen(found), f"answer {path} {kind}")
                got = subject.send("GET", f"/get-artifact?run_uuid={run}&path={quote(path)}")
                status = 404 if got.status_code == 500 else got.status_code  # stock's for what is not on S3
                same_for_both(subject, got.content if where != "elsewhere" else status, f"content {path} {kind}")
            refused: tuple[tuple[str, Any], ...] = (
                (f"run_uuid={run}&path=a", b""),
                (f"run_uuid={run}", b"1"),
                ("path=a", b"1"),
                ("run_uuid=none&path=a", b"1"),
                (f"run_uuid={run}&path=a", bytes(10 * 1024 * 1024 + 1)),
                (f"run_uuid={run}&path=a", {"a": "form"}),
            )
            for number, (query, data) in enumerate(refused):
                found = subject.send("POST", f"{upload}?{query}", data=data)
                same_for_both(subject, (seen(found)[0], seen(found)[1]), f"refused {number}")
                by = "stock" if "run_uuid=none" not in query and "&" in query else "native"
                assert found.headers.get("headrace-answered-by", by) == by
            # stock takes a body in chunks for none; through Headrace it has a length
            found = subject.send("POST", f"{upload}?run_uuid={run}&path=chunks", data=iter([b"in chunks"]))
            assert found.status_code == (200 if subject is pair.headrace else 400)


@pytest.mark.parametrize("where", ["proxied", "own"])
def test_artifacts_of_a_run(pair: Pair, where: str, tmp_path: Path, s3: Server) -> None:
    answers, messages = [], []
    for subject in pair.both:
        own = {"local": f"file://{tmp_path}/{subject.server.name}", "s3": f"s3://of-{subject.server.name}/own"}[
            pair.store
        ]
        experiment, run = subject.create_run(own if where == "own" else None)
        if where == "own" and pair.store == "s3":
            client_of(s3).put_object(
                Bucket=f"of-{subject.server.name}", Key=f"own/{run}/artifacts/a/b c.txt", Body=b"text"
            )
        elif where == "own":
            file = tmp_path / subject.server.name / run / "artifacts" / "a" / "b c.txt"
            file.parent.mkdir(parents=True)
            file.write_text("text")
        else:
            subject.send("PUT", f"{ARTIFACTS}/{experiment}/{run}/artifacts/a/b%20c.txt", data=b"text")
        found = [
            subject.send("GET", f"{MLFLOW}/artifacts/list?run_id={run}"),
            subject.send("GET", f"{MLFLOW}/artifacts/list?run_uuid={run}&path=a"),
            subject.send("GET", f"{MLFLOW}/artifacts/list?run_id={run}&path=none"),
            subject.send("GET", f"{MLFLOW}/artifacts/list?run_id={'0' * 32}&path=a"),
            subject.send("GET", f"{MLFLOW}/artifacts/list?path=a"),
            subject.send("GET", f"/get-artifact?run_id={'0' * 32}&path=a"),
            subject.send("GET", "/get-artifact?path=a"),
            subject.send("GET", f"/get-artifact?run_uuid={run}&path=a%2Fb+c.txt"),
        ]
        refused = [subject.send("GET", f"/get-artifact?run_uuid={run}&path={path}") for path in ("none", "a")]
        if pair.store == "local":  # on S3 stock has a 500 for the first
            messages.append([json.loads(answer.text.replace(f"{experiment}/{run}", "RUN")) for answer in refused])
        assert subject.send("GET", "/get-artifact?experiment_id=nothing&path=a").status_code >= 400
        slash = [subject.send("GET", f"{MLFLOW}/artifacts/list?run_id={run}&path={path}") for path in ("a", "a/")]
        if pair.store == "local" or subject is pair.headrace:  # on S3 stock finds nothing in a folder with a slash
            assert slash[0].json() == slash[1].json()
        if subject is pair.headrace:
            assert {answer.headers["headrace-answered-by"] for answer in found + refused} == {"native"}
            assert [answer.status_code for answer in refused] == [404, 400]
        bodies = [
            (status, {k: v for k, v in body.items() if k != "root_uri"} if isinstance(body, dict) else body, headers)
            for status, body, headers in map(seen, found)
        ]
        assert found[0].json()["root_uri"].endswith(f"{run}/artifacts")
        answers.append(bodies)
    assert answers[0] == answers[1]
    assert messages[:1] == messages[1:]


def test_artifacts_of_a_model_version(pair: Pair) -> None:
    for subject in pair.both:
        experiment, run = subject.create_run()
        subject.send("PUT", f"{ARTIFACTS}/{experiment}/{run}/artifacts/model/MLmodel", data=b"a: model")
        subject.create_version("a model", f"mlflow-artifacts:/{experiment}/{run}/artifacts/model", run)
    found = pair.same("GET", "/model-versions/get-artifact?name=a%20model&version=1&path=MLmodel")
    assert found.content == b"a: model"
    for query in (
        "name=a%20model&version=2&path=MLmodel",
        "name=none&version=1&path=MLmodel",
        "path=MLmodel",
        "name=&version=1&path=MLmodel",
        "name=a%20model&version=x&path=MLmodel",
        "name=a%20model&version=0&path=MLmodel",
    ):
        assert pair.same("GET", f"/model-versions/get-artifact?{query}").status_code in (400, 404)
    for query in ("name=none&version=1&path=../MLmodel", "name=none&path=../MLmodel"):
        assert pair.same("GET", f"/model-versions/get-artifact?{query}", by="stock").status_code == 400


def test_ranges_and_conditions(pair: Pair) -> None:
    path = f"{ARTIFACTS}/digits.bin"
    pair.same("PUT", path, data=b"0123456789")
    send = pair.headrace.send
    whole = send("GET", path)
    assert send("GET", path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert send("GET", path, headers={"If-None-Match": '"other"'}).content == b"0123456789"
    for wanted, part, where in (("0-3", b"0123", "0-3"), ("5-", b"56789", "5-9"), ("-2", b"89", "8-9")):
        found = send("GET", path, headers={"Range": f"bytes={wanted}"})
        assert (found.status_code, found.content) == (206, part)
        assert found.headers["Content-Range"] == f"bytes {where}/10"
        assert found.headers["headrace-answered-by"] == "native"
    for wanted in ("10-", "20-30"):
        found = send("GET", path, headers={"Range": f"bytes={wanted}"})
        assert (found.status_code, found.headers["Content-Range"]) == (416, "bytes */10")
        assert found.headers["headrace-answered-by"] == "native"
    if pair.store == "local":
        for wanted in ("20-30", "x", "3-1", "0-1,3-4"):
            expected, found = (s.send("GET", path, headers={"Range": f"bytes={wanted}"}) for s in pair.both)
            assert found.status_code == expected.status_code


def test_hosts_and_origins(pair: Pair) -> None:
    for headers in ({"Origin": "http://localhost:3000"}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        pair.same("PUT", f"{ARTIFACTS}/by-origin", by="any", data=b"1", headers=headers)
        pair.same("GET", f"{ARTIFACTS}/by-origin", by="any", headers=headers)


def test_no_script_runs(pair: Pair) -> None:
    pair.same("PUT", f"{ARTIFACTS}/page.html", data=b"<script>1</script>")
    found = pair.headrace.send("GET", f"{ARTIFACTS}/page.html")
    assert found.headers["Content-Disposition"].startswith("attachment")
    assert found.headers["Content-Security-Policy"].startswith("sandbox")
