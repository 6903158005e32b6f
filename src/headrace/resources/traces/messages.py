"""The messages of traces."""

from __future__ import annotations

from headrace.api.message import Message


class ExportTraces(Message):
    """`POST /v1/traces`: all but the body comes from headers. None: the header is not there."""

    experiment_id: str | None = None
    run_id: str = ""
    content_type: str | None = None
    content_encoding: str = ""
    body: bytes = b""
