"""What MLflow's clients and its UI ask first: which features the server has. The UI shows nothing before it knows."""

from __future__ import annotations

import logging
import os
import re

import msgspec

from headrace.api.endpoint import Call, Endpoint
from headrace.api.message import Message, Reader
from headrace.auth.objects import NOTHING
from headrace.auth.principals import Right
from headrace.settings import Settings
from headrace.versions import mlflow_folder

logger = logging.getLogger(__name__)

PATH = "3.0/mlflow/server-info"


class GetServerInfo(Message):
    """The message of server-info: there is nothing to say."""


def endpoints(settings: Settings) -> list[Endpoint]:
    """GET server-info; none where stock alone knows the answer."""
    info = server_info(settings)
    return [] if info is None else [_endpoint(info)]


def answer_without_database(settings: Settings) -> dict[str, bytes]:
    """Path -> answer on a server of artifacts alone that has no database, for which no handler is called."""
    info = server_info(settings) if settings.artifacts_only and not settings.native else None
    return {} if info is None else dict.fromkeys(_endpoint(info).paths(settings.static_prefix), info)


def _endpoint(info: bytes) -> Endpoint:

    async def answer(call: Call, message: GetServerInfo) -> object:
        return info

    reader = Reader(GetServerInfo)
    return Endpoint("GET", PATH, Right.SIGNED_IN, NOTHING, GetServerInfo, answer, reader=reader)


def server_info(settings: Settings) -> bytes | None:
    """The answer of a server with these settings; None: stock alone knows it.

    Source: handlers.build_server_info_payload. Whether traces are archived stands in a file that may change.
    """
    multipart = _is_s3(settings.artifacts_destination) if settings.serve_artifacts else False
    stocks = settings.trace_archival_config or not (settings.native or settings.artifacts_only)
    if stocks or (multipart is None and settings.stock != "never"):
        return None
    fields = installed_fields()
    offered = bool(multipart) and settings.artifact_transfer != "always-proxy"
    values = _values(settings, offered, since_3_18="artifact_serving_enabled" in fields)
    if unknown := fields - values.keys():
        logger.warning(
            "server-info of the installed MLflow has fields that this Headrace does not know: %s", ", ".join(unknown)
        )
        if settings.stock != "never":
            return None
    return msgspec.json.encode({name: value for name, value in values.items() if name in fields})


def _values(settings: Settings, multipart: bool, since_3_18: bool) -> dict[str, object]:
    """Every field of MLflow 3.17's and 3.18's answer; what only stock reads comes from stock's variables."""
    presigned = not since_3_18 or "SSECustomerKey" not in os.environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS", "")
    features = {"gateway": settings.enable_ai_gateway}
    uploads = downloads = multipart
    if since_3_18:  # URLs of the bucket are no longer offered unasked
        features["scheduled_issue_detection"] = False  # that is the job runner's
        uploads &= presigned and _is_on("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD")
        downloads &= presigned and _is_on("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD")
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": settings.enable_workspaces,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": uploads,
        "multipart_downloads_enabled": downloads,
        "artifact_serving_enabled": settings.serve_artifacts,
        "skill_content_max_size": int(os.environ.get("MLFLOW_SKILL_CONTENT_MAX_DECOMPRESSED_SIZE") or 25 * 1024**2),
        "skill_content_max_files": 10_000,
        "presigned_upload_run_id_supported": presigned,
        "presigned_upload_model_id_supported": presigned,
        "model_artifact_presigned_downloads_supported": presigned,
        "features_enabled": features,
        "tracking_auth": os.environ.get("MLFLOW_SERVER_INFO_TRACKING_AUTH", ""),
        "artifacts_presigned_only": _is_on("MLFLOW_ARTIFACTS_PRESIGNED_ONLY"),
    }


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1")


def _is_s3(uri: str) -> bool | None:
    """Whether artifacts go to S3, the only store of ours with multipart transfers; None for a store of stock's."""
    scheme = uri.split(":", 1)[0].lower() if ":" in uri else ""
    return {"s3": True, "file": False, "": False}.get(scheme)


def installed_fields() -> set[str]:
    """The fields that the installed MLflow answers with, read without importing it."""
    source = mlflow_folder() / "utils" / "server_info.py"
    return fields_in(source.read_text()) if source.exists() else set()


def fields_in(source: str) -> set[str]:
    """Those that the source of mlflow/utils/server_info.py names."""
    return set(re.findall(r'^SERVER_INFO_\w+ = (?:\(\s*)?"(\w+)"', source, re.M))
