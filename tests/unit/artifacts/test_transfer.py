"""Headers, ranges, bodies of other lengths, and stores that break off: what goes over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from headrace.artifacts import transfer
from headrace.errors import Declined

CONTENT = b"0123456789"


class Stored:
    """A Download that gives `content`, whatever it says its size is."""

    etag = '"tag"'
    modified = 0.0

    def __init__(self, content: bytes = CONTENT, size: int = len(CONTENT), error: OSError | None = None) -> None:
        self.content, self.size, self.error = content, size, error

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        for index in range(start, min(end, len(self.content)), 3):
            yield self.content[index : min(index + 3, end)]
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        pass


async def get(download: Stored, method: str = "GET", **headers: str) -> tuple[int, dict[bytes, bytes], bytes, bool]:
    """Status, headers, body, and whether the answer came to its end."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return await asyncio.Future()  # the client stays

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await transfer.send_download({"method": method, "headers": given}, receive, send, download, "a/b.txt")
    start, *bodies = sent
    body = b"".join(message["body"] for message in bodies)
    complete = bool(bodies) and not bodies[-1].get("more_body", False)
    return start["status"], dict(start["headers"]), body, complete


async def test_the_whole() -> None:
    status, headers, body, complete = await get(Stored())
    assert (status, body, complete) == (200, CONTENT, True)
    assert headers[b"content-length"] == b"10"
    assert headers[b"content-security-policy"].startswith(b"sandbox")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("0-0", b"0"), ("2-5", b"2345"), ("7-", b"789"), ("-3", b"789"), ("5-99", b"56789"), ("-99", CONTENT)],
)
async def test_ranges(wanted: str, expected: bytes) -> None:
    status, headers, body, complete = await get(Stored(), range=f"bytes={wanted}")
    assert (body, complete) == (expected, True)
    assert status == (200 if expected == CONTENT else 206)
    assert headers[b"content-length"] == b"%d" % len(expected)


@pytest.mark.parametrize("wanted", ["10-", "10-10", "99-200"])
async def test_a_range_behind_the_end(wanted: str) -> None:
    """`curl -C -` after a whole download: it woke stock, for 4 s and more."""
    status, headers, body, complete = await get(Stored(), range=f"bytes={wanted}")
    assert (status, body, complete) == (416, b"", True)
    assert headers[b"content-range"] == b"bytes */10"


@pytest.mark.parametrize(
    "wanted", ["bytes=3-2", "bytes=12-11", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=-0"]
)
async def test_other_ranges_are_stocks(wanted: str) -> None:
    with pytest.raises(Declined):
        await get(Stored(), range=wanted)


async def test_conditions() -> None:
    assert (await get(Stored(), if_none_match='"tag"'))[0] == 304
    assert (await get(Stored(), if_none_match='"a", W/"tag"'))[0] == 304
    assert (await get(Stored(), if_none_match='"other"'))[0] == 200


async def test_head() -> None:
    status, headers, body, complete = await get(Stored(), "HEAD")
    assert (status, headers[b"content-length"], body, complete) == (200, b"10", b"", True)


@pytest.mark.parametrize("broken", [Stored(CONTENT[:6]), Stored(CONTENT[:6], error=OSError("reset"))])
async def test_a_short_read_is_an_aborted_answer(broken: Stored) -> None:
    status, _, body, complete = await get(broken)
    assert (status, body, complete) == (200, CONTENT[:6], False)


async def test_clients_that_stall_lose_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "STALLED_SECONDS", 0.05)

    async def never(*_: object) -> Any:
        await asyncio.Future()

    async def only_the_head(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await never()

    await transfer.send_download({"method": "GET", "headers": []}, never, only_the_head, Stored(), "a")
    with pytest.raises(transfer.TooSlow):
        _ = [chunk async for chunk in transfer.body(never, None)]


async def test_nothing_is_sent_beyond_the_length() -> None:
    _, _, body, complete = await get(Stored(CONTENT * 2))
    assert (body, complete) == (CONTENT, True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text/plain"),
        ("MLmodel", "text/plain"),
        ("a.b.yaml", "text/plain"),
        ("a.xml", "text/plain"),
        ("a.html", "text/html"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("nothing", "application/octet-stream"),
        (".txt", "application/octet-stream"),
    ],
)
def test_content_types(name: str, kind: str) -> None:
    assert transfer.content_type(f"folder/{name}") == kind


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("a.txt", "attachment; filename=a.txt"),
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ('a"b', 'attachment; filename="a\\"b"'),
        ("ü.txt", "attachment; filename=u.txt; filename*=UTF-8''%C3%BC.txt"),
        ("日本", "attachment; filename=download; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
    ],
)
def test_content_dispositions(name: str, disposition: str) -> None:
    assert transfer.content_disposition(name) == disposition


async def test_bodies() -> None:
    async def read(messages: list[dict[str, Any]], size: int | None) -> bytes:
        waiting = iter(messages)

        async def receive() -> MutableMapping[str, Any]:
            return next(waiting)

        return b"".join([chunk async for chunk in transfer.body(receive, size)])

    first = {"type": "http.request", "body": b"12", "more_body": True}
    last = {"type": "http.request", "body": b"3", "more_body": False}
    assert await read([first, last], None) == await read([first, last], 3) == b"123"
    with pytest.raises(transfer.ClientGone):
        await read([first, {"type": "http.disconnect"}], 3)
    with pytest.raises(transfer.WrongLength):
        await read([first, last], 4)
