"""What MLflow's clients and its UI ask first: which features the server has. The UI shows nothing before it knows."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import msgspec

from headrace.api.endpoint import Call, Endpoint
from headrace.api.message import Message, Reader
from headrace.auth.objects import NOTHING
from headrace.auth.principals import Right
from headrace.settings import Settings


class GetServerInfo(Message):
    """The message of server-info: there is nothing to say."""


def endpoints(settings: Settings) -> list[Endpoint]:
    """GET server-info; none where stock alone knows the answer."""
    info = server_info(settings)
    if info is None:
        return []

    async def answer(call: Call, message: GetServerInfo) -> object:
        return info

    reader = Reader(GetServerInfo)
    path = "3.0/mlflow/server-info"
    return [Endpoint("GET", path, Right.SIGNED_IN, NOTHING, GetServerInfo, answer, reader=reader)]


def server_info(settings: Settings) -> bytes | None:
    """The answer of a server with these settings; None: stock alone knows it.

    Source: handlers.build_server_info_payload. Headrace refuses to start with trace archival.
    """
    multipart = _is_s3(settings.artifacts_destination) if settings.serve_artifacts else False
    if multipart is None or not settings.native:
        return None
    info = {
        "store_type": "SqlStore",
        "workspaces_enabled": settings.enable_workspaces,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": multipart,
        "multipart_downloads_enabled": multipart,
        "presigned_upload_run_id_supported": True,
        "presigned_upload_model_id_supported": True,
        "features_enabled": {"gateway": settings.enable_ai_gateway},
    }
    return msgspec.json.encode(info) if info.keys() == _fields() else None


def _is_s3(uri: str) -> bool | None:
    """Whether artifacts go to S3, the only store of ours with multipart transfers; None for a store of stock's."""
    scheme = uri.split(":", 1)[0].lower() if ":" in uri else ""
    return {"s3": True, "file": False, "": False}.get(scheme)


def _fields() -> set[str]:
    """The fields that the installed MLflow answers with, read without importing it."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        return set()
    source = Path(spec.origin).with_name("utils") / "server_info.py"
    return set(re.findall(r'^SERVER_INFO_\w+ = "(\w+)"$', source.read_text(), re.M)) if source.exists() else set()
