"""The endpoints of artifacts. A handler streams its answer itself, or raises Declined with the body still unread.

direct.py has those for clients that go to the store by themselves. A file that another resource's handler has found (a
trace's) is sent by `Artifacts.send_file`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qsl, unquote

import msgspec

from headrace.api.endpoint import APIS, ArtifactFile
from headrace.api.message import missing
from headrace.api.workspaces import in_workspace
from headrace.artifacts import transfer
from headrace.artifacts.direct import Direct, JsonHandler
from headrace.artifacts.locations import Locations
from headrace.artifacts.paths import safe
from headrace.artifacts.store import ArtifactStore, Download, Entry, IsAFolder, NotThere, Refused, SigningStore
from headrace.asgi.responses import JSON
from headrace.asgi.types import WORKSPACE, Header, Receive, Scope, Send, header
from headrace.db.database import Database
from headrace.entities import DEFAULT_WORKSPACE
from headrace.errors import Declined, InvalidParameter
from headrace.resources.experiments.sql import IN_WORKSPACE
from headrace.resources.logged_models.reads import location
from headrace.resources.model_versions.reads import model_source
from headrace.resources.registered_models import validation as rules
from headrace.resources.runs.endpoints import unknown_run
from headrace.resources.runs.reads import artifact_uri
from headrace.settings import Settings

# (scope, receive, send); raises Declined, ApiError, both before it has sent anything
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

DOWNLOADS_AT_ONCE = 32
UPLOADS_AT_ONCE = 32
# Larger ones come from the store itself with --artifact-transfer direct: below, the second request costs more.
DIRECT_BYTES = 8 * 1024 * 1024
MOST_FROM_BROWSER = 10 * 1024 * 1024  # stock's, of upload-artifact
_PROXIED_RUN = re.compile(r"(?:workspaces/[-a-z0-9]+/)?\d+/([0-9a-f]{32})/artifacts\Z")
_OF_AN_EXPERIMENT = re.compile(r"workspaces/[^/]+/([0-9]{1,9})(?:/|\Z)")
_IN_A_RUN = re.compile(r"runs:/([0-9a-f]{32})/(.+)")
_FORMS = (b"application/x-www-form-urlencoded", b"multipart/form-data")


class Artifacts:
    """The routes of one server. `database`: where runs and models are; None: stock alone knows."""

    def __init__(self, settings: Settings, database: Database | None) -> None:
        self._database = database
        self._models_here = settings.models_here
        self._locations = Locations(settings)
        self._downloads = asyncio.Semaphore(DOWNLOADS_AT_ONCE)
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
        prefix = settings.static_prefix
        # Stock's streaming routes know no prefix; what Flask answers has it (and an upload's answer is JSON there).
        self._folders = {f"{p}/{api}/2.0/mlflow-artifacts/artifacts/": p for p in {prefix, ""} for api in APIS}
        self._prefix = prefix
        closed = settings.artifact_transfer == "always-proxy"
        self._direct = Direct(
            prefix, self._locations, self._run_uri, self._model_uri, self._in_workspace, os.environ, closed
        )
        self._redirects = settings.artifact_transfer == "direct"
        self._upload_path = f"{prefix}/ajax-api/2.0/mlflow/upload-artifact"
        self._of_logged_model = re.compile(
            re.escape(prefix) + r"/(?:api|(ajax-api))/2\.0/mlflow/logged-models/([^/]+)/artifacts/"
            r"(?:directories|(?(1)(files)|directories))"
        )
        self._exact: dict[str, Handler] = {
            f"{prefix}/get-artifact": self._get_run_artifact,
            f"{prefix}/model-versions/get-artifact": self._get_model_artifact,
            **{f"{prefix}/{api}/2.0/mlflow/artifacts/list": self._list_run_artifacts for api in APIS},
            **{f"{prefix}/{api}/2.0/mlflow-artifacts/artifacts": self._list for api in APIS},
        }

    def find(self, method: str, path: str) -> Handler | None:
        """What answers such a request; None: stock does."""
        if method in ("GET", "HEAD") and (exact := self._exact.get(path)) is not None:
            return exact
        if method in ("GET", "HEAD") and (match := self._of_logged_model.fullmatch(path)) is not None:
            handler = self._get_logged_model if match[3] else self._list_logged_model
            return partial(handler, match[2])
        for folder, prefix in self._folders.items():
            if path.startswith(folder):
                rest = path[len(folder) :]
                if method == "GET" or (method == "HEAD" and prefix == self._prefix):
                    return partial(self._get, rest)
                if method == "PUT":
                    return partial(self._put, rest, b"{}" if prefix else b"")
                if method == "DELETE" and prefix == self._prefix:
                    return partial(self._delete, rest)
        return self._upload_from_browser if (method, path) == ("POST", self._upload_path) else None

    def find_json(self, method: str, path: str) -> JsonHandler | None:
        """What answers such a request with JSON; None: stock does."""
        return self._direct.find(method, path) if self._database is not None else None

    async def send_file(self, file: ArtifactFile, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file that a handler has found. Raises ApiError, Declined, StoreUnusable."""
        try:
            await self._get_from(file.uri, {"path": file.path}, scope, receive, send)
        except NotThere:
            raise file.absent from None

    async def _get(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """GET mlflow-artifacts/artifacts/PATH (artifact_router.download_artifact)."""
        _no_body(scope)
        path = await self._in_workspace(_whole(path, scope), scope)
        try:
            await self._download(self._locations.destination(), path, scope, receive, send)
        except IsAFolder as error:
            raise _Detail(str(error)) from error

    async def _put(self, path: str, answer: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """PUT mlflow-artifacts/artifacts/PATH (artifact_router.upload_artifact)."""
        headers = (JSON,) if answer else ()
        path = await self._in_workspace(_whole(path, scope), scope)
        await self._upload(self._locations.destination(), path, scope, receive, send, answer, *headers)

    async def _upload_from_browser(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST ajax-api/2.0/mlflow/upload-artifact (handlers.upload_artifact_handler)."""
        query = _fields(scope, {"run_uuid", "path"})
        size = transfer.upload_size(scope)
        if not size or size > MOST_FROM_BROWSER or (header(scope, b"content-type") or b"").startswith(_FORMS):
            raise Declined("an upload that stock refuses")
        for name in ("run_uuid", "path"):
            if not query.get(name):
                raise InvalidParameter(f"Request must specify {name}.")
        run_id, path = query["run_uuid"], safe(query["path"])
        uri = await self._run_uri(run_id)
        store, root = self._locations.find(uri)
        if uri.startswith("mlflow-artifacts:") and not (
            (match := _PROXIED_RUN.match(root)) and match.group(1) == run_id
        ):
            raise Declined("a run whose artifacts stock uploads to another place")
        await self._upload(store, _join(root, path), scope, receive, send, b"", JSON)

    async def _delete(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE mlflow-artifacts/artifacts/PATH (handlers._delete_artifact_mlflow_artifacts).

        Stock does not look where a link leads to, and takes `.` for the whole destination: it never gets such a path.
        """
        _no_body(scope)
        store = self._locations.destination()
        try:
            path = _whole(path.removesuffix("/"), scope)  # a client ends a run's folder with one
        except Declined as error:
            raise Refused("Invalid path") from error
        await store.delete(await self._in_workspace(path, scope))
        await _send_all(send, b"{}", JSON)

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET mlflow-artifacts/artifacts?path=PATH (handlers._list_artifacts_mlflow_artifacts)."""
        query = _query(scope, {"path"})
        path = await self._in_workspace(_folder(query.get("path")), scope)
        entries = await self._locations.destination().list_folder(path)
        await _send_json(send, _files(entries, ""))

    async def _list_run_artifacts(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET artifacts/list (handlers._list_artifacts)."""
        query = _query(scope, {"run_id", "run_uuid", "path"})
        path = _folder(query.get("path"))
        run_id = query.get("run_id") or query.get("run_uuid")
        if not run_id:
            raise missing("run_id")
        uri = await self._run_uri(run_id)
        store, root = self._locations.find(uri)
        entries = await store.list_folder(_join(root, path))
        await _send_json(send, {**_files(entries, path), "root_uri": uri})

    async def _list_logged_model(self, model_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """GET logged-models/ID/artifacts/directories (handlers._list_logged_model_artifacts)."""
        query = _query(scope, {"artifact_directory_path", "page_token"})
        path = _folder(query.get("artifact_directory_path"))
        uri = await self._model_uri(model_id)
        store, root = self._locations.find(uri)
        entries = await store.list_folder(_join(root, path))
        await _send_json(send, {**_files(entries, path), "root_uri": uri})

    async def _get_logged_model(self, model_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """GET logged-models/ID/artifacts/files (handlers.get_logged_model_artifact_handler)."""
        path = safe(_query(scope, {"artifact_file_path"}).get("artifact_file_path", ""))
        uri = await self._model_uri(model_id)
        await self._get_from(uri, {"path": path}, scope, receive, send)

    async def _get_run_artifact(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /get-artifact (handlers.get_artifact_handler)."""
        query = _query(scope, {"run_id", "run_uuid", "path"})
        safe(query.get("path", ""))  # before the run is looked for
        uri = await self._run_uri(query.get("run_id") or query.get("run_uuid"))
        await self._get_from(uri, query, scope, receive, send)

    async def _get_model_artifact(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /model-versions/get-artifact (handlers.get_model_version_artifact_handler)."""
        query = _query(scope, {"name", "version", "path"})
        safe(query.get("path", ""))  # before the version is looked for
        # stock fails where there is none, and at one beyond the database's numbers
        if query.get("name") and "version" not in query:
            raise missing("version")
        if not self._models_here or not query.get("path"):
            raise Declined("a model version that stock knows")
        tables = self._tables("model_versions")
        name = rules.model_name(query.get("name", ""))
        version = rules.version(query["version"], name)
        found = await model_source(tables, scope.get(WORKSPACE, DEFAULT_WORKSPACE), name, version)
        if found is None:
            raise rules.unknown_version(name, version)
        uri = _require_uri(found)
        if run := _IN_A_RUN.fullmatch(uri):  # stock fails at it where artifacts go through the server
            uri = _join(await self._run_uri(run[1]), safe(run[2]))
        await self._get_from(uri, query, scope, receive, send, is_checked=False)

    async def _get_from(
        self, uri: str, query: dict[str, str], scope: Scope, receive: Receive, send: Send, is_checked: bool = True
    ) -> None:
        """`is_checked`: what it is the URI of is in the workspace; else a client has said what it is."""
        store, root = self._locations.find(uri)
        if uri.startswith("mlflow-artifacts:") and not is_checked:
            root = await self._in_workspace(root, scope)
        await self._download(store, _join(root, safe(query.get("path", ""))), scope, receive, send, uncached=True)

    async def _run_uri(self, run_id: str | None) -> str:
        """Raises NotFound where there is no such run."""
        found = await artifact_uri(self._tables("runs"), run_id) if run_id else None
        if found is None:
            raise unknown_run(str(run_id or None))
        return _require_uri(found)

    async def _in_workspace(self, path: str, scope: Scope) -> str:
        """Where a client's path is, below the server's root. Raises InvalidParameter for another workspace's.

        An experiment that came to the default workspace when its own was deleted has its files where they were (stock
        finds them no more).
        """
        workspace: str | None = scope.get(WORKSPACE)
        if workspace == DEFAULT_WORKSPACE and (moved := _OF_AN_EXPERIMENT.match(path)):
            here = IN_WORKSPACE(workspace=DEFAULT_WORKSPACE, experiment_ids=[int(moved[1])])
            if await self._tables("experiments").rows(here):
                return path
        return in_workspace(path, workspace)

    async def _model_uri(self, model_id: str) -> str:
        return await location(self._tables("logged_models"), model_id)

    def _tables(self, table: str) -> Database:
        """The database, if it has that table as Headrace's SQL expects it."""
        if self._database is None or table in self._database.changed_tables:
            raise Declined(f"{table} is stock's to read")
        return self._database

    async def _upload(
        self,
        store: ArtifactStore,
        path: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        answer: bytes,
        *headers: Header,
    ) -> None:
        upload = await store.create(path)
        size = transfer.upload_size(scope)
        try:
            async with self._uploads:
                await upload.write(transfer.body(receive, size), size)
        except transfer.ClientGone:
            return
        await _send_all(send, answer, *headers)

    async def _download(
        self, store: ArtifactStore, path: str, scope: Scope, receive: Receive, send: Send, uncached: bool = False
    ) -> None:
        async with self._downloads:
            download = await store.open(path)
            try:
                if self._redirects and isinstance(store, SigningStore) and _is_large(scope, download):
                    url, _ = await store.sign_download(path, self._direct.seconds, transfer.content_type(path))
                    await transfer.send_redirect(send, url)
                else:
                    await transfer.send_download(scope, receive, send, download, path, uncached)
            finally:
                await download.close()


class _Detail(Refused):
    """In the shape of stock's FastAPI half."""

    def content(self) -> dict[str, str]:
        return {"detail": str(self)}


def _is_large(scope: Scope, download: Download) -> bool:
    return scope["method"] == "GET" and download.size > DIRECT_BYTES


def _whole(path: str, scope: Scope) -> str:
    """The artifact's path. MLflow's client sends a `?` in a name as it is; these routes take no query.

    Raises Declined.
    """
    query = scope["query_string"].decode("latin-1")
    return safe(f"{path}?{unquote(query)}" if query else path)


def _no_body(scope: Scope) -> None:
    if transfer.upload_size(scope) != 0:
        raise Declined("a GET with a body")


def _query(scope: Scope, names: set[str]) -> dict[str, str]:
    """The query's fields, each given once. Raises Declined for unknown ones, and for a request with a body."""
    _no_body(scope)
    return _fields(scope, names)


def _fields(scope: Scope, names: set[str]) -> dict[str, str]:
    try:
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Declined("a query that is not UTF-8") from error
    query = dict(pairs)
    if len(query) != len(pairs) or not query.keys() <= names or any("\0" in value for value in query.values()):
        raise Declined("a query that is not plain")
    return query


def _join(root: str, path: str) -> str:
    return f"{root}/{path}" if root and path else root or path


def _folder(path: str | None) -> str:
    """A folder to list, with a slash at its end or without. Raises Declined."""
    return safe(path[: -1 if path.endswith("/") and path != "/" else None]) if path else ""


def _require_uri(uri: str) -> str:
    if not uri:
        raise Declined("nothing is known of where the artifacts are")
    return uri


def _files(entries: list[Entry], folder: str) -> dict[str, object]:
    """A listing's `files`, each path below `folder`; left out when there are none, as protobuf does."""
    files: list[dict[str, object]] = []
    for entry in entries:
        name = _join(folder, entry.path.rsplit("/", 1)[-1])
        if entry.is_dir:
            files.append({"path": name, "is_dir": True})
        else:  # FileInfo.to_proto leaves a size of 0 out
            files.append({"path": name, "is_dir": False} | ({"file_size": entry.file_size} if entry.file_size else {}))
    return {"files": files} if files else {}


async def _send_json(send: Send, value: object) -> None:
    try:
        encoded = msgspec.json.encode(value)
    except (UnicodeEncodeError, msgspec.MsgspecError) as error:
        raise Declined("a name that is not UTF-8") from error
    await _send_all(send, encoded, JSON)


async def _send_all(send: Send, content: bytes, *headers: Header) -> None:
    length = (b"content-length", b"%d" % len(content))
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": content})
