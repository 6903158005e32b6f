"""Requests as MLflow's own client writes them , and single calls for preparing and checking."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

API = "/api/2.0/mlflow"
# An endpoint that Headrace passes through: once it answers, stock is up.
PASSED_THROUGH = "/api/3.0/mlflow/mcp-servers"
# as MLflow's client sends them
HEADERS = {
    "User-Agent": "mlflow-python-client/3.17.2",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
    "Connection": "keep-alive",
    "X-MLflow-Client-Version": "3.17.2",
}


class ApiFailure(Exception):
    """A call that prepares or checks a workload was not answered with 200."""


def request(method: str, path: str, body: bytes | None = None) -> bytes:
    """One HTTP request as bytes; `path` is relative to MLflow's REST API."""
    lines = [
        f"{method} {API}/{path} HTTP/1.1",
        "Host: 127.0.0.1:5000",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
    ]
    if body is not None:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def post(path: str, content: dict[str, Any]) -> bytes:
    """A POST request as bytes, with the JSON that Python's json.dumps writes, as the client's."""
    return request("POST", path, json.dumps(content).encode())


def get_run_path(run_id: str) -> str:
    return f"runs/get?run_uuid={run_id}&run_id={run_id}"


def call(
    port: int, method: str, path: str, content: dict[str, Any] | None = None, patience: float = 0.0
) -> dict[str, Any]:
    """Make one call and return its JSON; a 503 is tried again for `patience` seconds.

    Raises ApiFailure for any other status than 200.
    """
    give_up = time.monotonic() + patience
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            body = None if content is None else json.dumps(content)
            connection.request(method, f"{API}/{path}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status == 200:
            loaded: dict[str, Any] = json.loads(answer)
            return loaded
        if response.status != 503 or time.monotonic() > give_up:
            raise ApiFailure(f"{method} {path} was answered with {response.status}: {answer[:300]!r}")
        time.sleep(0.1)


def get_run(port: int, run_id: str) -> dict[str, Any]:
    """The `run` of runs/get."""
    run: dict[str, Any] = call(port, "GET", get_run_path(run_id))["run"]
    return run


class Session:
    """A client's one connection, for answers of megabytes, one at a time. Close it, or use it in a `with`."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, path: str, content: dict[str, Any] | None = None) -> bytes:
        """The body of an answer as it came, which may be compressed. Raises ApiFailure for another status than 200."""
        body = None if content is None else json.dumps(content)
        headers = HEADERS if body is None else {**HEADERS, "Content-Type": "application/json"}
        self._connection.request(method, f"{API}/{path}", body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ApiFailure(f"{method} {path} was answered with {response.status}: {answer[:300]!r}")
        return answer
