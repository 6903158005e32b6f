"""Sockets of workers: who gets the connections."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from headrace import listeners
from headrace.errors import ConfigurationError
from headrace.listeners import Listener, close, listen

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares connections out among sockets")


@pytest.fixture
def two() -> Iterator[list[Listener]]:
    listeners = listen("127.0.0.1", 0, 2)
    yield listeners
    close(listeners)


def accepted(listeners: list[Listener], connections: int) -> list[int]:
    """How many of so many connections each listener gets."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(fileno=os.dup(each.fileno()))) for each in listeners]
        for each in sockets:
            each.listen(connections)
        address = sockets[0].getsockname()
        for _ in range(connections):
            stack.enter_context(socket.create_connection(address, timeout=60))
        found = []
        for each in sockets:
            each.setblocking(False)
            found.append(0)
            while True:
                try:
                    stack.enter_context(each.accept()[0])
                except BlockingIOError:
                    break
                found[-1] += 1
        return found


@linux
def test_connections_are_shared_out(two: list[Listener]) -> None:
    assert two[0].port == two[1].port
    first, second = accepted(two, 400)
    assert first + second == 400
    assert min(first, second) > 120


@linux
def test_who_withdraws_gets_none_until_it_comes_back(two: list[Listener]) -> None:
    port = two[0].port
    two[1].withdraw()
    assert accepted(two[:1], 100) == [100]
    assert min(accepted(two, 200)) > 50
    assert two[1].port == port


def test_a_port_that_comes_free_in_a_moment() -> None:
    """As after kill -9 of a server, whose workers have not noticed yet."""
    there = listen("127.0.0.1", 0, 1)
    accepted(there, 1)
    number = there[0].port
    timer = threading.Timer(0.3, close, [there])
    timer.start()
    close(listen("127.0.0.1", number, 1))
    timer.join()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("others", [1, 2])
def test_a_port_that_another_program_has(workers: int, others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose sockets are shared among its own workers."""
    monkeypatch.setattr(listeners, "PORT_SECONDS", 0.1)
    there = listen("127.0.0.1", 0, others)
    accepted(there, 1)
    with pytest.raises(ConfigurationError, match=rf"port {there[0].port}: .*Choose another"):
        listen("127.0.0.1", there[0].port, workers)
    close(there)


def test_one_alone_keeps_what_waits() -> None:
    (alone,) = listen("127.0.0.1", 0, 1)
    alone.withdraw()
    assert accepted([alone], 10) == [10]
    close([alone])
