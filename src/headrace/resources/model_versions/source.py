"""Where the files of a new model version are: what may be its source, and where that leads.

Rules: handlers._create_model_version, SqlAlchemyStore.create_model_version, mlflow/store/artifact/host_policy.py.
Declined, as they depend on this machine's file system or on settings of stock's: a local path that comes with a run or
a logged model, sources under an administrator's rule, hosts where the server's own artifacts are on one.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn
from urllib.parse import SplitResult, unquote, unquote_plus, urlparse, urlsplit

from headrace.api.endpoint import Call
from headrace.api.message import invalid
from headrace.auth.objects import PROMPT_SOURCES
from headrace.db.query import Bound
from headrace.errors import ApiError, Declined, InvalidParameter, NotFound
from headrace.resources import validation as valid
from headrace.resources.model_versions import sql
from headrace.resources.model_versions.messages import CreateModelVersion
from headrace.resources.registered_models import sql as model_sql
from headrace.resources.registered_models import validation as rules

MAX_SOURCE = 500  # the column's
# schemes whose URIs name the host that stock would connect to; mlflow-artifacts only where it names one
_OF_A_HOST = frozenset({"ftp", "sftp", "hdfs", "viewfs", "http", "https", "mlflow-artifacts", "r2", "b2", "abfss"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class Source(NamedTuple):
    """`uri`: what is stored as the source, `location`: where the files are. None: no run is known."""

    uri: str
    location: str
    run_id: str | None
    model_id: str = ""


async def resolve(call: Call, message: CreateModelVersion, is_prompt: bool) -> Source:
    """The source of a new version. Raises InvalidParameter, NotFound, Declined."""
    uri = valid.text(message.source, MAX_SOURCE, "source")
    run_id = valid.without_nul(message.run_id or "", "run_id")
    model_id = valid.without_nul(message.model_id or "", "model_id")
    if os.environ.get("MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX"):
        raise Declined("a rule of the administrator's for sources")
    if is_prompt:
        if uri not in PROMPT_SOURCES:
            raise InvalidParameter(f"Invalid prompt source: '{uri}'. Prompt sources must use an MLflow placeholder.")
        return Source(uri, uri, run_id)
    if _CONTROL.search(uri) or uri == "databricks":
        raise Declined("a source that may be read in more than one way")
    try:
        parsed = urlsplit(uri)
    except ValueError:
        raise invalid("source", uri, "It is no URI.") from None
    _check_host(call, uri, parsed)
    if parsed.scheme == "models" and (other := _named(uri, parsed)) is not None:
        return await _of_version(call, uri, other, message)
    if parsed.scheme in ("", "file"):
        host = parsed.hostname if parsed.scheme else None
        if host and host != "." and not host.startswith(("localhost", "127.0.0.1")):
            raise InvalidParameter(
                f"{uri} is not a valid remote uri. For remote access on windows, please consider using a different "
                "scheme such as SMB (e.g. smb://<hostname>/<path>)."
            )
        if model_id or run_id:
            raise Declined("a path that stock must look at")
        raise InvalidParameter(
            f"Invalid model version source: '{uri}'. To use a local path as a model version source, the run_id request "
            "parameter has to be specified and the local path has to be contained within the artifact directory of the "
            "run specified by the run_id."
        )
    _check_path(uri)
    if model_id:
        return await _of_logged_model(call, uri, parsed, run_id, model_id)
    return await _of_run(call, uri, parsed, run_id)


def _check_host(call: Call, uri: str, parsed: SplitResult) -> None:
    """_validate_artifact_uri_scheme."""
    scheme = parsed.scheme
    if scheme not in _OF_A_HOST or (scheme == "mlflow-artifacts" and not parsed.netloc):
        return
    roots = (call.settings.default_artifact_root, call.settings.artifacts_destination)
    if os.environ.get("MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES") or any(
        root.partition(":")[0].lower() in _OF_A_HOST and "://" in root for root in roots
    ):
        raise Declined("a host that stock may trust")
    raise InvalidParameter(
        f"'source' cannot use the '{scheme}' scheme: the '{scheme}' scheme addresses a host other than the tracking "
        "server's configured artifact storage, so the server would connect to the host named in the URI. Set the "
        "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES environment variable on the server to allow it."
    )


def _check_path(uri: str) -> None:
    """_validate_non_local_source_contains_relative_paths; this machine's links don't count."""
    plain = _unquoted(uri, plus=True)
    path = re.sub("/+", "/", urlparse(plain).path.rstrip("/"))
    if "\0" in path or ".." in plain.split("/") or not path.startswith("/") or posixpath.normpath(path) != path:
        raise InvalidParameter(
            f"Invalid model version source: '{uri}'. If supplying a source as an http, https, local file path, ftp, "
            "objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references "
            "present. Please provide an absolute path."
        )


def _unquoted(text: str, plus: bool = False) -> str:
    """The text without %-escapes, however often they were escaped themselves."""
    decode = unquote_plus if plus else unquote
    while (decoded := decode(text)) != text:
        text = decoded
    return text


async def _of_run(call: Call, uri: str, parsed: SplitResult, run_id: str) -> Source:
    """_validate_source_run."""
    if parsed.scheme == "models":  # a logged model's, which must be named
        _not_inside(uri, "model_id")
    if parsed.scheme == "runs" and (parsed.netloc or not run_id or parsed.path[1:].partition("/")[0] != run_id):
        _not_inside(uri, "run_id")
    if parsed.scheme == "mlflow-artifacts":
        rows = await call.db.rows(sql.RUN(run_id=run_id, workspace=call.workspace)) if run_id else ()
        if not rows or not _is_within(uri, rows[0][0] or ""):
            _not_inside(uri, "run_id")
    return Source(uri, uri, run_id)


async def _of_logged_model(call: Call, uri: str, parsed: SplitResult, run_id: str, model_id: str) -> Source:
    """_validate_source_model."""
    its_own = parsed.scheme == "models" and _path(uri) == f"/{model_id}"
    if parsed.scheme == "runs" or (parsed.scheme == "models" and not its_own):
        _not_inside(uri, "model_id")
    rows = await call.db.rows(sql.LOGGED_MODEL(model_id=model_id, workspace=call.workspace))
    if parsed.scheme == "mlflow-artifacts" and not (rows and _is_within(uri, rows[0][0])):
        _not_inside(uri, "model_id")
    if not rows:
        raise NotFound(f"Logged model with ID '{model_id}' not found.")
    location, its_run = rows[0]
    return Source(uri, location if its_own else uri, run_id or its_run, model_id)


def _named(uri: str, parsed: SplitResult) -> tuple[str, str] | None:
    """(name, version, "latest", stage or @alias) of a URI of a registered model's version; None: of a logged model.

    Rules: _parse_model_uri.
    """
    if parsed.netloc:
        raise InvalidParameter(
            f"Invalid model version source: '{uri}'. Registered model sources must use the active model registry."
        )
    path = _path(uri)
    parts = path.lstrip("/").split("/")
    if not path.startswith("/") or len(parts) > 2 or not all(part.strip() for part in parts):
        _not_inside(uri, "model_id")
    if len(parts) == 2:
        return parts[0], parts[1]
    name, at, alias = parts[0].rpartition("@")
    if at and not alias.strip():
        _not_inside(uri, "model_id")
    return (name, f"@{alias}") if at else None


async def _of_version(call: Call, uri: str, other: tuple[str, str], message: CreateModelVersion) -> Source:
    """_resolve_registered_model_source_lineage: the files of another model's version."""
    name, which = other
    place = {"workspace": call.workspace, "name": rules.model_name(name)}
    try:
        statement, missing = _statement(which, **place)
    except ApiError as error:  # told after the model is found
        statement, missing = sql.GET(version=0, **place), error
    models, tags, versions = await call.db.rows_of(
        model_sql.GET(**place), model_sql.TAGS(workspace=call.workspace, names=[name]), statement
    )
    if not models:
        raise rules.unknown_model(name)
    if rules.is_prompt({key: value or "" for _, key, value in tags}):
        raise InvalidParameter(
            f"Invalid model version source: '{uri}'. Prompt versions cannot be used as model version sources."
        )
    if not versions:
        raise missing
    version, its_run = versions[0]["version"], versions[0]["run_id"]
    if (message.run_id is not None and message.run_id != (its_run or "")) or message.model_id:
        raise InvalidParameter(
            f"Invalid model version source: '{uri}'. The run_id and model_id request parameters must match the "
            "referenced model version."
        )
    uri = f"models:/{name}/{version}"
    _check_path(uri)
    rows = await call.db.rows(sql.SOURCE(version=version, **place))
    return Source(uri, rows[0][0], its_run if message.run_id is None else message.run_id)


def _statement(which: str, workspace: str, name: str) -> tuple[Bound, ApiError]:
    """What finds the version, and what is wrong where it finds none. Raises ApiError."""
    place = {"workspace": workspace, "name": name}
    if which.lower() in ("latest", "@latest"):
        return sql.LATEST(**place), NotFound(f"No versions of model with name '{name}' found")
    if which.startswith("@"):
        alias = rules.alias(which[1:])
        return sql.GET_BY_ALIAS(alias=alias, **place), InvalidParameter(f"Registered model alias {alias} not found.")
    if which.isdecimal():
        number = rules.version(which, name)
        return sql.GET(version=number, **place), rules.unknown_version(name, number)
    stage = rules.stage(which)
    missing = NotFound(f"No versions of model with name '{name}' and stage '{which}' found")
    return sql.LATEST_OF_STAGE(stage=stage, **place), missing


def _path(uri: str) -> str:
    """What comes behind the scheme; a fragment is part of it."""
    return urlsplit(uri, allow_fragments=False).path


def _is_within(uri: str, root: str) -> bool:
    """_is_uri_within_root."""
    inner, outer = tuple(_parts(uri)), tuple(_parts(root))
    return len(outer) > 2 and inner[: len(outer)] == outer


def _parts(uri: str) -> Iterator[str]:
    parsed = urlsplit(uri)
    yield from (parsed.scheme.lower(), parsed.netloc.lower())
    yield from (_unquoted(part) for part in parsed.path.split("/") if part)


def _not_inside(uri: str, parameter: str) -> NoReturn:
    """_raise_invalid_model_version_source."""
    raise InvalidParameter(
        f"Invalid model version source: '{uri}'. The {parameter} request parameter must identify the resource that "
        "contains the source."
    )
