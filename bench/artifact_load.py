"""A client of artifacts that costs little itself: sendfile for what goes out, one buffer for what comes in."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.load import LoadError
from bench.process import memory

FOLDER = "/api/2.0/mlflow-artifacts/artifacts"
PATIENCE = 300.0


def put(port: int, path: str, file: Path) -> float:
    """Upload a file and return the seconds until it was answered. Raises LoadError for another answer than 200."""
    size = file.stat().st_size
    head = f"PUT {FOLDER}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection, file.open("rb") as content:
        started = time.perf_counter()
        connection.sendall(head.encode())
        connection.sendfile(content)
        _take(connection, head)
        return time.perf_counter() - started


def get(port: int, path: str, size: int) -> float:
    """Download `size` bytes and return the seconds that it took. Raises LoadError where it was not that."""
    return _get(port, f"{FOLDER}/{path}", size)


def list_folder(port: int, path: str, at_least: int) -> float:
    """List a folder, whose answer has at least so many bytes, and return the seconds."""
    return _get(port, f"{FOLDER}?path={path}", None, at_least)


def _get(port: int, target: str, size: int | None, at_least: int = 0) -> float:
    head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        started = time.perf_counter()
        connection.sendall(head.encode())
        received = _take(connection, head)
        seconds = time.perf_counter() - started
    if received < at_least or (size is not None and received != size):
        raise LoadError(f"GET {target}: {received} bytes")
    return seconds


def _take(connection: socket.socket, head: str) -> int:
    """Read an answer of 200 to its end and return the length of its body. Raises LoadError."""
    buffer = bytearray(4 * 1024 * 1024)
    count = 0
    while b"\r\n\r\n" not in buffer[:count]:
        if not (more := connection.recv_into(memoryview(buffer)[count:])):
            raise LoadError(f"no answer to {head.splitlines()[0]}")
        count += more
    length = buffer.index(b"\r\n\r\n") + 4
    answer = bytes(buffer[:length])
    if answer.split(b" ", 2)[1] != b"200":
        raise LoadError(f"{head.splitlines()[0]}: {bytes(buffer[: min(count, length + 300)])!r}")
    if b"transfer-encoding: chunked" in answer.lower():
        return _chunked(connection, bytes(buffer[length:count]))
    return count - length + _drain(connection, buffer)


def _drain(connection: socket.socket, buffer: bytearray) -> int:
    received = 0
    while more := connection.recv_into(buffer):
        received += more
    return received


def _chunked(connection: socket.socket, rest: bytes) -> int:
    """The length of a chunked body."""
    total = 0
    while True:
        while b"\r\n" not in rest:
            rest += connection.recv(1 << 20) or _broken()
        line, _, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            return total
        total += size
        while len(rest) < size + 2:
            size -= len(rest)
            rest = connection.recv(1 << 20) or _broken()
        rest = rest[size + 2 :]


def _broken() -> bytes:
    raise LoadError("a chunked answer broke off")


def peak_memory(pids: Callable[[], Iterable[int]], work: Callable[[int], object], count: int) -> float:
    """The most memory above what it was, in MB, of some processes while `work` is done `count` times at once."""
    before = peak = memory(pids())
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, memory(pids()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(work, range(count)))
    finally:
        done.set()
        watching.join()
    return peak - before


def make_file(path: Path, size: int) -> Path:
    """A file of so many random bytes."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    return path
