"""The bench's client of artifacts, and its table."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from bench import artifacts_report, report
from bench.artifact_load import get, list_folder, make_file, put
from bench.artifacts import GET, LIST
from bench.load import LoadError
from bench.workloads import Measurement

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\n\r\n0123456789"


def answering(answer: bytes, body: int = 0) -> int:
    """The port of a server that takes one request with a body of so many bytes, and answers so."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            received = b""
            while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < body:
                received += connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=serve).start()
    port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, CLOSED])
def test_answers_are_measured_whole(answer: bytes) -> None:
    assert get(answering(answer), "path", 10) > 0
    with pytest.raises(LoadError, match="10 bytes"):
        get(answering(answer), "path", 11)
    with pytest.raises(LoadError, match="10 bytes"):
        list_folder(answering(answer), "path", 100)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 Oh\r\n\r\nno", b"", CHUNKED[:60]])
def test_answers_that_are_none(answer: bytes) -> None:
    with pytest.raises(LoadError):
        get(answering(answer), "path", 10)


def test_a_file_goes_out_whole(tmp_path: Path) -> None:
    file = make_file(tmp_path / "file", 2 << 20)
    assert put(answering(LENGTH, 2 << 20), "path", file) > 0


def test_the_table() -> None:
    results = report.Results()
    measured = {"headrace": (1200.0, 10.0), "stock-workers-4": (500.0, 40.0), "stock-gunicorn-2": (900.0, 20.0)}
    for name, (speed, time) in measured.items():
        results.add("local", GET, name, Measurement(speed))
        results.add("local", LIST, name, Measurement(time))
    summary: dict[str, Any] = {
        "date": "2026-01-01T00:00:00",
        "commit": "abc",
        "rounds": 1,
        "machine": {"cores": 2, "cpu": "a processor"},
        "versions": {"headrace": "1", "stock": "3"},
        "rows": report.summarise(results),
    }
    table = artifacts_report.as_markdown(summary)
    assert "| 1,200 MB/s; 2.40 x the default (target 2 x, met) | 500 MB/s | 900 MB/s (gunicorn-2) |" in table
    assert "| 10.0 ms; 2.00 x the best (target 3 x, MISSED) | 40.0 ms | 20.0 ms (gunicorn-2) |" in table
