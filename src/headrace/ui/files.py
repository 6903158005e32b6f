"""MLflow's own UI: the build in the installed package, its files unchanged, compressed for the way to the browser.

Its page alone is changed: its head gets what keeps out of sight what is off here (page_head.py).

A file is compressed when it is first asked for and kept in memory: a first page's 1.9 MB take a third of a second once,
so that there is no cache on a disk to be written, found and outdated.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import re
from email.utils import formatdate
from functools import cached_property, partial
from mimetypes import guess_type
from pathlib import Path
from typing import NamedTuple

import brotli

from headrace.asgi.compression import MIN_BYTES, best
from headrace.asgi.types import Application, Headers, Receive, Scope, Send, header
from headrace.versions import mlflow_folder

BROTLI_QUALITY = 6  # 4.4 MB of JavaScript become 1.07 MB in 0.3 s; 11 saves another 10% and takes 16 s
GZIP_LEVEL = 6
COMPRESSED = frozenset((".css", ".html", ".ico", ".js", ".json", ".map", ".mjs", ".svg", ".ttf", ".txt"))
_HASHED = re.compile(r"\.[0-9a-f]{8,32}\.")
# Stock leaves out X-Frame-Options below this path (mlflow.tracing.constant.TRACE_RENDERER_ASSET_PATH).
_STOCKS = "lib/notebook-trace-renderer"


class File(NamedTuple):
    """A file of the build as it was when the UI was first asked for."""

    path: Path
    size: int
    modified_ns: int
    head: bytes = b""  # what is added to the page's head


class UI:
    """The routes of the UI's files; none where the package comes without a build."""

    def __init__(self, prefix: str, page_headers: Headers, head: bytes) -> None:
        self._page = f"{prefix}/"
        self._below = f"{prefix}/static-files/"
        self._page_headers = page_headers
        self._head = head
        self._content: dict[tuple[File, str], asyncio.Future[bytes]] = {}

    @cached_property
    def _files(self) -> dict[str, File]:
        """The build's four hundred files by their paths here; a start does not wait for them."""
        files = {}
        build = build_folder()
        for folder, _, names in os.walk(build):
            for name in names:
                path = Path(folder, name)
                below = path.relative_to(build).as_posix()
                if not below.startswith(_STOCKS):
                    files[self._below + below] = _file(path)
        page = files.get(f"{self._below}index.html")
        if page is not None:
            page = page._replace(size=page.size + len(self._head), head=self._head)
            files[self._page] = files[f"{self._below}index.html"] = page
        return files

    def find(self, method: str, path: str) -> Application | None:
        """What answers such a request; None: stock does."""
        if method not in ("GET", "HEAD") or not (path == self._page or path.startswith(self._below)):
            return None
        file = self._files.get(path)
        return partial(self._send, file) if file is not None else None

    async def _send(self, file: File, scope: Scope, receive: Receive, send: Send) -> None:
        encoding = best(scope) if file.path.suffix in COMPRESSED and file.size >= MIN_BYTES else ""
        etag = f'"{file.modified_ns:x}-{file.size:x}{encoding and "-" + encoding}"'.encode()
        headers = [
            (b"content-type", _content_type(file.path).encode()),
            (b"cache-control", _cache_control(file.path)),
            (b"etag", etag),
            (b"last-modified", formatdate(file.modified_ns // 10**9, usegmt=True).encode()),
            (b"vary", b"Accept-Encoding, Origin"),
            *(self._page_headers if file.path.suffix == ".html" else ()),
        ]
        if etag in [tag.strip() for tag in (header(scope, b"if-none-match") or b"").split(b",")]:
            await send({"type": "http.response.start", "status": 304, "headers": headers[1:]})
            await send({"type": "http.response.body", "body": b""})
            return
        content = await self._get(file, encoding)
        headers.append((b"content-length", b"%d" % len(content)))
        if encoding:
            headers.append((b"content-encoding", encoding.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    async def _get(self, file: File, encoding: str) -> bytes:
        """The file's bytes; what is compressed is so once, however many ask for it at the same time."""
        work = partial(_read, file, encoding)
        if not encoding:
            return await asyncio.to_thread(work)
        key = (file, encoding)
        if key not in self._content:
            self._content[key] = asyncio.ensure_future(asyncio.to_thread(work))
        return await asyncio.shield(self._content[key])


def build_folder() -> Path:
    """Where the installed MLflow keeps the UI; found without importing it."""
    return mlflow_folder() / "server" / "js" / "build"


def _file(path: Path) -> File:
    found = path.stat()
    return File(path, found.st_size, found.st_mtime_ns)


def _read(file: File, encoding: str) -> bytes:
    content = file.path.read_bytes()
    if file.head:
        content = content.replace(b"<head>", b"<head>" + file.head, 1)
    if encoding == "br":
        compressed: bytes = brotli.compress(content, quality=BROTLI_QUALITY, lgwin=24)
        return compressed
    return gzip.compress(content, GZIP_LEVEL, mtime=0) if encoding else content


def _content_type(file: Path) -> str:
    """As Flask's send_from_directory says it."""
    kind = guess_type(file.name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind in ("application/javascript", "application/json+ld", "image/svg+xml")
    return f"{kind}; charset=utf-8" if text else kind


def _cache_control(file: Path) -> bytes:
    if _HASHED.search(file.name):
        return b"public, max-age=31536000, immutable"
    return b"no-cache" if file.suffix in (".html", ".json") else b"public, max-age=86400"
