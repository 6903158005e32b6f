"""Who gets JSON compressed."""

from __future__ import annotations

import gzip

import pytest

from headrace.asgi.compression import JsonCompression

BODY = b'{"a": 1}' * 1000


@pytest.mark.parametrize(
    ("whom", "client", "compressed"),
    [
        ("remote", ("10.0.0.7", 5), True),
        ("remote", ("2001:db8::1", 5), True),
        ("remote", ("127.0.0.1", 5), False),
        ("remote", ("::1", 5), False),
        ("remote", ("::ffff:127.0.0.1", 5), False),
        ("remote", None, False),
        ("always", ("127.0.0.1", 5), True),
        ("always", None, True),
        ("never", ("10.0.0.7", 5), False),
    ],
)
async def test_whom(whom: str, client: tuple[str, int] | None, compressed: bool) -> None:
    scope = {"headers": [(b"accept-encoding", b"deflate, GZIP;q=0.5")], "client": client}
    compression = JsonCompression(whom)
    assert compression.pays(scope, BODY) == compressed
    body, headers = await compression.compress(scope, BODY)
    assert (b"content-encoding", b"gzip") in headers
    assert gzip.decompress(body) == BODY


async def test_large_and_small() -> None:
    scope = {"headers": [(b"accept-encoding", b"gzip")], "client": ("10.0.0.7", 5)}
    compression = JsonCompression("remote")
    assert not compression.pays(scope, b"{}" * 511)
    assert compression.pays(scope, b"{}" * 512)
    body, _ = await compression.compress(scope, BODY * 100)
    assert gzip.decompress(body) == BODY * 100
