"""MLflow's UI: every file as stock serves it, compressed where the browser takes it."""

from __future__ import annotations

import gzip
from pathlib import Path

import brotli
import pytest
import requests

from headrace.settings import Settings
from headrace.ui.files import build_folder
from headrace.ui.page_head import page_head
from tests.differential.conftest import Pair
from tests.support.databases import BACKENDS, Databases
from tests.support.servers import Server, start_headrace

PREFIX = "/a/prefix"
# the servers of these tests have the gateway, as stock has it
HEAD = page_head(Settings(enable_ai_gateway=True))


@pytest.fixture
def servers(pair: Pair) -> tuple[Server, Server]:
    """Stock and Headrace, on /; those below PREFIX and with options are in the tests that need them."""
    return pair.stock.server, pair.headrace.server


# on one database: these files come from none
on_one = pytest.mark.parametrize("pair", BACKENDS[:1], indirect=True)


def names() -> list[str]:
    folder = build_folder()
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


@on_one
def test_every_file_is_stocks(servers: tuple[Server, Server]) -> None:
    paths = ["/", *(f"/static-files/{name}" for name in names() if not name.endswith(".LICENSE.txt"))]
    with requests.Session() as session:
        for path in paths:
            expected, found = (session.get(server.url + path, headers={"Accept-Encoding": ""}) for server in servers)
            assert found.status_code == expected.status_code == 200, path
            content = found.content.replace(HEAD, b"") if path.endswith(("/", "index.html")) else found.content
            assert content == expected.content, path
            for header in ("Content-Type", "X-Content-Type-Options", "X-Frame-Options"):
                assert found.headers.get(header) == expected.headers.get(header), (path, header)
            assert found.headers["headrace-answered-by"] == ("stock" if "notebook-trace" in path else "native"), path


@on_one
def test_compressed_and_cached(servers: tuple[Server, Server]) -> None:
    _, headrace = servers
    main = next(name for name in names() if name.startswith("static/js/main."))
    plain = (build_folder() / main).read_bytes()
    for encoding, unpack in (("br", brotli.decompress), ("gzip", gzip.decompress)):
        url = f"{headrace.url}/static-files/{main}"
        accepts = {"Accept-Encoding": "gzip, br" if encoding == "br" else encoding}
        with requests.get(url, headers=accepts, stream=True) as found:
            assert found.headers["Content-Encoding"] == encoding
            assert "immutable" in found.headers["Cache-Control"]
            assert "Accept-Encoding" in found.headers["Vary"]
            content = found.raw.read(decode_content=False)
        assert len(content) < len(plain) / 3
        assert unpack(content) == plain
        again = requests.get(url, headers={"If-None-Match": found.headers["ETag"], **accepts})
        assert (again.status_code, again.content) == (304, b"")
    index = requests.get(headrace.url + "/")
    assert index.headers["Cache-Control"] == "no-cache"
    head = requests.head(headrace.url + "/", headers={"Accept-Encoding": ""})
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(index.content)))


def assert_json_is_compressed(api: str) -> None:
    """Where there are more than 1,024 bytes of it, and the client takes it."""
    for number in range(10):
        requests.post(f"{api}experiments/create", json={"name": f"a name {number}"}).raise_for_status()
    for accepts, encoding in (("gzip, deflate, br", "br"), ("gzip", "gzip"), ("br;q=0", None), ("", None)):
        url = f"{api}experiments/search?max_results="
        found = requests.get(f"{url}50", headers={"Accept-Encoding": accepts})
        assert found.headers.get("Content-Encoding") == encoding
        assert ("Accept-Encoding" in found.headers["Vary"]) == (encoding is not None)
        assert len(found.json()["experiments"]) == 11
        assert "Content-Encoding" not in requests.get(f"{url}1", headers={"Accept-Encoding": accepts}).headers


def test_json_for_this_machine_is_not_compressed(databases: Databases, tmp_path: Path) -> None:
    headrace = start_headrace(databases.migrated("sqlite"), tmp_path, until="/health")
    try:
        api = f"{headrace.url}/ajax-api/2.0/mlflow/"
        for number in range(10):
            requests.post(f"{api}experiments/create", json={"name": f"a name {number}"}).raise_for_status()
        found = requests.get(f"{api}experiments/search?max_results=50")
    finally:
        headrace.stop()
    assert len(found.content) > 1024
    assert "Content-Encoding" not in found.headers


@on_one
def test_no_way_out(servers: tuple[Server, Server]) -> None:
    for path in ("../../__init__.py", "..%2f..%2f__init__.py", "%2e%2e/%2e%2e/__init__.py", "nothing.js", ""):
        request = requests.Request("GET", servers[0].url).prepare()
        answers = []
        for server in servers:
            request.url = f"{server.url}/static-files/{path}"
            with requests.Session() as session:
                answers.append(session.send(request))
        assert answers[1].status_code == answers[0].status_code == 404


def test_static_prefix(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> None:
    options = ("--static-prefix", PREFIX, "--compress-json", "always")
    folder = tmp_path_factory.mktemp("ui")
    server = start_headrace(databases.migrated("sqlite"), folder, *options, until=f"{PREFIX}/health")
    try:
        assert_json_is_compressed(f"{server.url}{PREFIX}/ajax-api/2.0/mlflow/")
        for prefix in ("", PREFIX):
            info = requests.get(f"{server.url}{prefix}/ajax-api/3.0/mlflow/server-info")
            assert info.headers["headrace-answered-by"] == "native"
        index = requests.get(f"{server.url}{PREFIX}/")
        assert index.headers["headrace-answered-by"] == "native"
        assert index.content.replace(HEAD, b"") == (build_folder() / "index.html").read_bytes()
        icon = requests.get(f"{server.url}{PREFIX}/static-files/favicon.ico")
        assert icon.content == (build_folder() / "favicon.ico").read_bytes()
        artifacts = "/api/2.0/mlflow-artifacts/artifacts"
        assert requests.put(f"{server.url}{artifacts}/a", data=b"1").content == b""
        assert requests.put(f"{server.url}{PREFIX}{artifacts}/b", data=b"2").json() == {}
        for prefix in ("", PREFIX):
            assert requests.get(f"{server.url}{prefix}{artifacts}/b").content == b"2"
        listed = requests.get(f"{server.url}{PREFIX}{artifacts}").json()["files"]
        assert [file["path"] for file in listed] == ["a", "b"]
    finally:
        server.stop()
