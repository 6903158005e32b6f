"""nginx and Caddy with the files of deploy/, before a Headrace with the settings of deploy/: real clients through TLS.

Only names, ports, certificates and the folders of nginx are this machine's.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from requests.adapters import HTTPAdapter

from headrace.settings import Settings
from tests.deploy.parts import DEPLOY, program, settings_of_the_unit
from tests.support import tls
from tests.support.databases import Databases
from tests.support.fork_server import client_environment
from tests.support.processes import Process, free_port
from tests.support.servers import Server, start_headrace

TOKEN = "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NAME = "mlflow.example.com"
HERE = "localhost"
BIG = 72 * 1024 * 1024  # more than --max-body-bytes
SCRIPT = """
import mlflow, pathlib, sys
with mlflow.start_run() as run:
    mlflow.log_param("p", 1)
    mlflow.log_metric("m", 0.5)
    mlflow.log_text("text", "folder/text.txt")
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/folder/text.txt") == "text"
assert mlflow.get_run(run.info.run_id).data.metrics == {"m": 0.5}
"""


class Proxy(NamedTuple):
    """`checked`: the command that holds its file to its rules."""

    url: str
    port: int
    process: Process
    checked: list[str | Path]


@pytest.fixture(scope="module")
def headrace(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    port = free_port()  # of the proxy
    folder = tmp_path_factory.mktemp("headrace")
    hosts = {"MLFLOW_SERVER_ALLOWED_HOSTS": f"{HERE},{HERE}:{port}"}
    env = settings_of_the_unit() | hosts | {"HEADRACE_ADMIN_TOKEN": TOKEN, "HEADRACE_ACCESS_LOG": "text"}
    server = start_headrace(databases.migrated("sqlite"), folder, env=env, until="/health")
    yield server, port
    server.stop()


def _nginx(file: Path, text: str, folder: Path, port: int) -> tuple[list[str | Path], list[str | Path]]:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    main = folder / "nginx.conf"
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; {user}\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; {paths} include {file}; }}\n"
    )
    text = re.sub("listen 443", f"listen 127.0.0.1:{port}", text)
    file.write_text(re.sub("listen 80;", f"listen 127.0.0.1:{free_port()};", text))
    command: list[str | Path] = [found, "-c", main, "-p", folder]
    return [*command, "-t"], command


def _caddy(file: Path, text: str, folder: Path, port: int) -> tuple[list[str | Path], list[str | Path]]:
    # the certificate is ours, and nothing is asked of Let's Encrypt
    own = "{\n\tauto_https off\n\tadmin off\n}\n"
    text = text.replace(f"{HERE} {{", f"https://{HERE}:{port} {{\n\ttls {folder}/certificate {folder}/key", 1)
    file.write_text(own + text)
    options: list[str | Path] = ["--config", file, "--adapter", "caddyfile"]
    return [program("caddy"), "validate", *options], [program("caddy"), "run", *options]


KINDS = {"nginx": ("nginx/headrace.conf", _nginx), "caddy": ("caddy/Caddyfile", _caddy)}


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest, headrace: tuple[Server, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    name, prepare = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    server, port = headrace
    certificate, key = tls.certificate(folder, HERE, days=30)
    text = (DEPLOY / name).read_text()
    assert text.count("127.0.0.1:5000") == 1
    text = text.replace("127.0.0.1:5000", server.url.removeprefix("http://"))
    text = text.replace(f"/etc/nginx/tls/{NAME}.pem", str(certificate)).replace(f"/etc/nginx/tls/{NAME}.key", str(key))
    file = folder / Path(name).name
    checked, command = prepare(file, text.replace(NAME, HERE), folder, port)
    env = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = Process(command, folder / "log", env=env, cwd=folder)
    url = f"https://{HERE}:{port}"

    def up() -> bool:
        try:
            return requests.get(f"{url}/health", verify=str(certificate), timeout=10).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    process.wait_until(up, f"{request.param} answers")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        yield Proxy(url, port, process, checked)
    process.stop()


def test_it_takes_its_file(proxy: Proxy) -> None:
    done = subprocess.run(proxy.checked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr


def test_a_client_logs_a_run(proxy: Proxy, tmp_path: Path) -> None:
    tracking = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_TRACKING_TOKEN": TOKEN}
    env = client_environment() | tracking
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_nobody_comes_in_without_a_token(proxy: Proxy) -> None:
    answer = requests.post(f"{proxy.url}/api/2.0/mlflow/runs/search", json={}, timeout=60)
    assert answer.status_code == 401


def test_a_large_artifact_goes_there_and_back(proxy: Proxy) -> None:
    url = f"{proxy.url}/api/2.0/mlflow-artifacts/artifacts/0/big-{proxy.port}.bin"
    block = os.urandom(1024 * 1024)
    sent = requests.put(url, data=iter([block] * (BIG // len(block))), headers=BEARER, timeout=120)
    assert sent.status_code == 200, sent.text
    back = requests.get(url, headers=BEARER, timeout=120)
    assert len(back.content) == BIG
    assert back.content[-len(block) :] == block


def test_bodies_are_streamed(proxy: Proxy, headrace: tuple[Server, int]) -> None:
    """Headrace has an upload in hand while its client still sends: no proxy waits for the whole of it."""
    trust = ssl.create_default_context(cafile=os.environ["REQUESTS_CA_BUNDLE"])
    connection = http.client.HTTPSConnection(HERE, proxy.port, context=trust, timeout=60)
    connection.putrequest("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/slow.bin")
    connection.putheader("Authorization", BEARER["Authorization"])
    connection.putheader("Content-Length", "200000")
    connection.endheaders()
    connection.send(b"x" * 100_000)

    def in_hand() -> bool:
        answer = requests.get(f"{headrace[0].url}/metrics", headers=BEARER | {"Host": HERE}, timeout=60)
        assert answer.status_code == 200, answer.text
        return 'headrace_artifacts_in_flight{method="PUT"} 1.0' in answer.text

    proxy.process.wait_until(in_hand, "the upload has reached Headrace")
    connection.send(b"x" * 100_000)
    assert connection.getresponse().status == 200
    connection.close()


class _From(HTTPAdapter):
    """Connects from another address of this machine."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, source_address=("127.0.0.2", 0), **options)


def test_the_clients_address_comes_from_the_proxy_alone(proxy: Proxy, headrace: tuple[Server, int]) -> None:
    session = requests.Session()
    session.mount("https://", _From())
    lies = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Prefix": "/elsewhere"}
    path = f"/api/2.0/mlflow/experiments/get?experiment_id=0&port={proxy.port}"
    before = headrace[0].process.log.read_text()

    def said() -> str:  # lines of requests before it may come late
        return headrace[0].process.log.read_text()[len(before) :]

    assert session.get(proxy.url + path, headers=BEARER | lies, timeout=60).status_code == 200
    proxy.process.wait_until(lambda: " 127.0.0.2 " in said(), "the access log's line")
    assert "203.0.113.9" not in said()


def test_headrace_keeps_connections_longer() -> None:
    for name, pattern in (
        ("nginx/headrace.conf", r"keepalive_timeout (\d+)s"),
        ("caddy/Caddyfile", r"keepalive (\d+)s"),
    ):
        [seconds] = re.findall(pattern, (DEPLOY / name).read_text())
        assert int(seconds) < Settings().keep_alive
