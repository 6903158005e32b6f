"""What is said of a server that can't be copied from or to, before MLflow's client tries for minutes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from headrace.copy.ends import _last_error, reach
from headrace.errors import ConfigurationError
from tests.support.processes import free_port


@pytest.fixture
def plain() -> Iterator[int]:
    """The port of a server without TLS."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_server_without_tls(plain: int) -> None:
    reach(f"http://127.0.0.1:{plain}")
    with pytest.raises(ConfigurationError, match=r"can't be reached by TLS: .*Look at whether it is https://"):
        reach(f"https://127.0.0.1:{plain}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_there(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match=r"The server .* can't be reached: Connection refused\. Look at its"):
        reach(f"{scheme}://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("ValueError: a b", "ValueError: a b"),
        ("mlflow.exceptions.MlflowException: 404: '<html>\n  <b>not\n here</b>\n'", "404: '<html> <b>not here</b> '"),
        ("\nKeyError: 'a'\n\nDuring handling\n\nTraceback:\n  File\nOSError: the last", "OSError: the last"),
        ("killed", "killed"),
    ],
)
def test_what_a_traceback_says_in_the_end(end: str, said: str) -> None:
    assert _last_error(f"Traceback (most recent call last):\n  File 'a'\n    raise\n{end}\n").endswith(said)
