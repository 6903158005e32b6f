"""Servers that the tests talk to: stock MLflow, Headrace, and moto's S3."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import requests
from bench.api import PASSED_THROUGH as PASSED_THROUGH

from tests.support import fork_server
from tests.support.databases import Database
from tests.support.processes import Process, free_port

SCRIPTS = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
# Stock's job runner is four and more processes that no test needs; both servers go without.
# One hash seed for all: some of stock's error messages list the items of a set.
# The AI gateway is on by default on stock, and not on Headrace. Prices are those that come with MLflow.
STOCK_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "PYTHONHASHSEED": "0",
}
# How long a request waits for a stock that starts: 5 s of processor time, of which a busy machine has little.
STOCK_SECONDS = 120
_BY_STOCK = re.compile(r'^headrace_requests_total{answered_by="stock",endpoint="([^"]+)",method="([^"]+)"', re.M)


class Server:
    """A running HTTP server; `url` has no slash at its end."""

    def __init__(self, name: str, url: str, process: Process) -> None:
        self.name = name
        self.url = url
        self.process = process

    def answers(self, path: str, status: int = 200) -> bool:
        """Whether GET is answered so; http alone. It is asked twenty times a second, where `requests` takes 4 ms."""
        scheme, _, host = self.url.partition("://")
        assert scheme == "http"
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()  # who goes before the end breaks off what is under way
            return answer.status == status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        # stock takes its time to stop, and has nothing to lose
        self.process.stop(signal.SIGKILL if self.name == "stock" else signal.SIGTERM)


def start_stock(
    database: Database,
    folder: Path,
    *options: str,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Server:
    """`mlflow server` with one worker, ready; artifacts and log below `folder`."""
    port = port or free_port()
    command: list[str | Path] = [
        *(sys.executable, "-m", "tests.support.stock", "server"),
        "--workers",
        "1",
        *_common(database, folder, port),
        *options,
    ]
    environment = STOCK_ENVIRONMENT | {"PYTHONPATH": str(ROOT)} | fork_server.environment() | dict(env or {})
    process = Process(command, folder / "stock.log", env=environment, cwd=folder)
    server = Server("stock", f"http://127.0.0.1:{port}", process)
    process.wait_until(lambda: server.answers(PASSED_THROUGH), "stock MLflow answers")
    return server


def start_headrace(
    database: Database,
    folder: Path,
    *options: str,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    until: str = PASSED_THROUGH,
) -> Server:
    """`headrace serve`, ready: the path `until` answers 200. Its stock, 4 s of processor time, starts with the first
    request that needs it, such as PASSED_THROUGH; "/health" needs none."""
    port = port or free_port()
    lazy = ["--stock", "lazy", "--stock-wait", str(STOCK_SECONDS)]
    command: list[str | Path] = [SCRIPTS / "headrace", "serve", *_common(database, folder, port), *lazy, *options]
    environment = STOCK_ENVIRONMENT | fork_server.environment() | dict(env or {})
    process = Process(command, folder / "headrace.log", env=environment, cwd=folder)
    server = Server("headrace", f"http://127.0.0.1:{port}", process)
    process.wait_until(lambda: server.answers(until), "Headrace answers")
    return server


def answered_by_stock(url: str) -> set[tuple[str, str]]:
    """Path and method of the endpoints that a Headrace's stock has answered so far, from its metrics."""
    metrics = requests.get(f"{url}/metrics", timeout=60).text
    assert "headrace_requests_total{" in metrics
    return set(_BY_STOCK.findall(metrics))


def start_moto(
    folder: Path, certificate: Path | None = None, key: Path | None = None, host: str = "127.0.0.1"
) -> Server:
    """Moto's AWS, S3 and all else: any key is accepted. Give clients AWS_ENDPOINT_URL and MLFLOW_S3_ENDPOINT_URL."""
    port = free_port()
    command: list[str | Path] = [SCRIPTS / "moto_server", "--host", host, "--port", str(port)]
    scheme = "http"
    if certificate is not None and key is not None:
        command += ["--ssl-cert", certificate, "--ssl-key", key]
        scheme = "https"
    process = Process(command, folder / "moto.log", cwd=folder)
    server = Server("moto", f"{scheme}://{host}:{port}", process)
    process.wait_until(lambda: accepts(port) if certificate else server.answers("/moto-api/"), "moto answers")
    return server


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _common(database: Database, folder: Path, port: int) -> list[str]:
    return [
        *["--host", "127.0.0.1", "--port", str(port)],
        *["--backend-store-uri", database.uri],
        *["--artifacts-destination", str(folder / "artifacts")],
    ]
