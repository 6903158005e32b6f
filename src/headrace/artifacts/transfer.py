"""Artifacts over HTTP: a download as an answer, a request's body as an upload.

Headers as stock sends them (mlflow/server/artifact_router.py, handlers._content_disposition_attachment), and a
Content-Length, an ETag and a Last-Modified from every store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import unicodedata
from collections.abc import AsyncIterator, Awaitable
from email.utils import formatdate
from mimetypes import guess_type
from urllib.parse import quote

from headrace.artifacts.store import Download
from headrace.asgi.types import Header, Receive, Scope, Send, header
from headrace.errors import ApiError, Declined

logger = logging.getLogger(__name__)

# A client that neither reads nor writes for so long gives its place to those that wait for one.
STALLED_SECONDS = 120.0

_RANGE = re.compile(rb"bytes=(\d{1,18})?-(\d{1,18})?\Z")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+\Z")
# mlflow.utils.mime_type_utils.get_text_extensions
_TEXT = frozenset(
    [
        "txt",
        "log",
        "err",
        "cfg",
        "conf",
        "cnf",
        "cf",
        "ini",
        "properties",
        "prop",
        "hocon",
        "toml",
        "yaml",
        "yml",
        "xml",
        "json",
        "js",
        "py",
        "py3",
        "csv",
        "tsv",
        "md",
        "rst",
        "ipynb",
        "MLmodel",
        "mlproject",
    ]
)
# Even when a browser shows an artifact nevertheless, no script in it runs with the user's session.
_SANDBOX: Header = (b"content-security-policy", b"sandbox; default-src 'none'")


class ClientGone(Exception):
    """The client closed its connection before its request was complete."""


class TooSlow(ApiError):
    """Nothing of the request's body came for STALLED_SECONDS."""

    status = 408
    error_code = "REQUEST_LIMIT_EXCEEDED"


class WrongLength(ApiError):
    """The body has another length than the request's Content-Length said."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"


async def send_download(
    scope: Scope, receive: Receive, send: Send, download: Download, path: str, uncached: bool = False
) -> None:
    """Answer GET or HEAD with a file: 200, 206, 304, or 416 behind its end, where a client asks that goes on with a
    download that was complete. `uncached`: a browser shall ask again each time.

    When the store breaks off this returns with the answer incomplete, and the connection ends without a proper end.
    Raises Declined for conditions and ranges that are not the plain ones.
    """
    headers = [
        (b"content-type", content_type(path).encode()),
        (b"content-disposition", content_disposition(path.rsplit("/", 1)[-1]).encode()),
        (b"last-modified", formatdate(download.modified, usegmt=True).encode()),
        (b"accept-ranges", b"bytes"),
        (b"x-content-type-options", b"nosniff"),
        _SANDBOX,
    ]
    if uncached:
        headers.append((b"cache-control", b"no-cache"))
    if download.etag:
        headers.append((b"etag", download.etag.encode()))
    if download.etag and _names(header(scope, b"if-none-match"), download.etag):
        await send({"type": "http.response.start", "status": 304, "headers": headers[1:]})
        await send({"type": "http.response.body", "body": b""})
        return
    start, end = _range(scope, download.size)
    if start > 0 and start >= download.size:
        there = (b"content-range", b"bytes */%d" % download.size)
        await send({"type": "http.response.start", "status": 416, "headers": [there, (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    status = 200
    if (start, end) != (0, download.size):
        status = 206
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, download.size)))
    headers.append((b"content-length", b"%d" % (end - start)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["method"] == "HEAD" or start == end:
        await send({"type": "http.response.body", "body": b""})
    else:
        await _while_connected(receive, _send_body(send, download, start, end, path))


async def send_redirect(send: Send, url: str) -> None:
    """Send the client to the store itself, for this time: the URL is good for some minutes only."""
    headers = [(b"location", url.encode()), (b"cache-control", b"no-store"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _send_body(send: Send, download: Download, start: int, end: int, path: str) -> None:
    left = end - start
    try:
        async for chunk in download.read(start, end):
            left -= len(chunk)
            if left < 0:
                break
            async with asyncio.timeout(STALLED_SECONDS):
                await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
                del chunk
                if left:
                    # uvicorn waits before it takes something, so this returns when the chunk has gone: a download has
                    # one in memory, not one that goes and one that waits
                    await send({"type": "http.response.body", "body": b"", "more_body": True})
    except OSError as error:  # a timeout is one, too
        logger.warning("the download of %s broke off: %s", path, error or "the client does not read")
        return
    if left:
        logger.warning("the store gave another number of bytes for %s than it said: %d off", path, left)


async def _while_connected(receive: Receive, sending: Awaitable[None]) -> None:
    """Send until it is done or the client has gone: nobody reads the rest of a file for a closed connection."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = (asyncio.ensure_future(sending), asyncio.ensure_future(gone()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not tasks[0].cancelled() and (error := tasks[0].exception()) is not None:
        raise error


def upload_size(scope: Scope) -> int | None:
    """The request's Content-Length. None: it comes in chunks."""
    length = header(scope, b"content-length")
    if length is None:
        return None if header(scope, b"transfer-encoding") is not None else 0
    return int(length)


async def body(receive: Receive, size: int | None) -> AsyncIterator[bytes]:
    """A request's body as it comes in. Raises ClientGone, TooSlow, WrongLength."""
    received = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"Nothing came for {STALLED_SECONDS:g} s. Nothing was stored; send it again.") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = message.get("more_body", False)
        if chunk := message.get("body"):
            received += len(chunk)
            yield chunk
    if size is not None and received != size:
        raise WrongLength(f"The body has {received} bytes, but Content-Length says {size}. Nothing was stored.")


def content_type(path: str) -> str:
    """mlflow.utils.mime_type_utils._guess_mime_type."""
    name = path.rsplit("/", 1)[-1]
    if (os.path.splitext(name)[-1].replace(".", "") or name) in _TEXT:
        return "text/plain"
    return guess_type(name)[0] or "application/octet-stream"


def content_disposition(name: str) -> str:
    """An attachment of that name, for browsers that know RFC 5987 and those that don't."""
    if name.isascii():
        return f"attachment; filename={_quoted(name)}"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii") or "download"
    return f"attachment; filename={_quoted(plain)}; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"


def _quoted(value: str) -> str:
    """werkzeug.http.quote_header_value."""
    if _TOKEN.match(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _names(if_none_match: bytes | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.decode("latin-1").split(",")]
    return etag in tags or tags == ["*"]


def _range(scope: Scope, size: int) -> tuple[int, int]:
    """The first byte that is wanted, and the first that no longer is."""
    wanted = header(scope, b"range")
    if wanted is None:
        return 0, size
    match = _RANGE.match(wanted)
    if match is None or match.groups() == (None, None) or header(scope, b"if-range") is not None:
        raise Declined("a range that is not plain")
    first, last = match.groups()
    if first is None:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end and not (start >= size > 0 and (last is None or int(last) >= start)):
        raise Declined("a range of nothing")
    return start, end
