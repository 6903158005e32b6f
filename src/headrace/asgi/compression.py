"""Content-Encoding: which one a client takes, and native JSON in it where the bytes cost more than the work.

Measured on 2.3 MB of runs/search: gzip's level 1 leaves 21% in 13.6 ms, level 6 16% in 38.6 ms; brotli's quality 1
leaves 17% in 7.1 ms, quality 4 15% in 21.7 ms; to unpack it takes 6.3 ms. So the lowest of each: it pays for clients
whose network is slower than about 700 Mbit/s (gzip) or 1 Gbit/s (brotli).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

import brotli

from headrace.asgi.types import Headers, Scope, header

MIN_BYTES = 1024
# What takes longer than about a millisecond is done beside the event loop.
_IN_A_THREAD = 128 * 1024


class JsonCompression:
    """`whom`: "never", "remote" (clients on other machines) or "always"."""

    def __init__(self, whom: str) -> None:
        self._never = whom == "never"
        self._loopback = whom == "always"

    def pays(self, scope: Scope, body: bytes) -> bool:
        """Whether it is worth the work for this client."""
        return len(body) >= MIN_BYTES and not self._never and (self._loopback or _is_remote(scope))

    async def compress(self, scope: Scope, body: bytes) -> tuple[bytes, Headers]:
        """The body as the client of this request takes it, and the headers that tell of it."""
        encoding = best(scope)
        if not encoding:
            return body, ()
        pack = _PACK[encoding]
        packed = pack(body) if len(body) < _IN_A_THREAD else await asyncio.to_thread(pack, body)
        return packed, ((b"content-encoding", encoding.encode()), (b"vary", b"Accept-Encoding"))


def best(scope: Scope) -> str:
    """The best encoding that the client takes; "" for none."""
    offered = accepted(scope)
    return next((encoding for encoding in _PACK if encoding in offered), "")


def accepted(scope: Scope) -> set[str]:
    """The encodings that the request's Accept-Encoding names and does not refuse."""
    offered = set()
    for part in (header(scope, b"accept-encoding") or b"").decode("latin-1").lower().split(","):
        name, _, quality = part.strip().partition(";")
        if quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            offered.add(name.strip())
    return offered


def _is_remote(scope: Scope) -> bool:
    """Whether a network is in between. A proxy on this machine compresses by itself, or is near."""
    host: str = (scope.get("client") or ("",))[0]
    return bool(host) and not host.startswith(("127.", "::1", "::ffff:127."))


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(body) + packer.flush()


def _brotli(body: bytes) -> bytes:
    packed: bytes = brotli.compress(body, quality=1)
    return packed


# the better one first
_PACK: dict[str, Callable[[bytes], bytes]] = {"br": _brotli, "gzip": _gzip}
